"""``latency.json``: the latencies of the networks of a run on one machine."""

from typing import Annotated, ClassVar, Literal

from pydantic import Field

from pfs_core.config.stages import LatencyConfig
from pfs_core.storage.result_file import Result, ResultFile, known_settings

Interval = tuple[float, float]
"""The ends of a 95% interval."""


class NetworkSize(Result):
    """The size of a network, which does not depend on the machine."""

    macs: int
    params: int
    file_mib: float
    """Size of its weights as a safetensors file, in MiB."""
    structure: str | None = None
    """Digest of its structure; missing in older files."""


class NetworkLatency(Result):
    """Statistics of a network's samples in one measurement, in milliseconds per batch."""

    rounds: int
    min_ms: float
    p50_ms: float
    p50_interval_ms: Interval
    p90_ms: float
    p99_ms: float
    flags: list[str]
    """Signs that the samples cannot be trusted: ``noisy``, ``bimodal``."""
    peak_memory_mib: float | None = None
    """Peak memory of a process that runs the network, without libraries; None where it could not be measured."""


class Ratio(Result):
    """A network's latency relative to the dense network's: the median of the ratios in the same rounds."""

    ratio: float
    interval: Interval
    verdict: str
    """``faster``, ``slower`` or ``no measurable difference``."""


class Measurement(Result):
    """One measurement of all networks in turns: one runtime, one number of threads, one batch size."""

    runtime: str
    threads: int
    batch: int
    models: dict[str, NetworkLatency]
    """Latency of each network."""
    ratios_to_dense: dict[str, Ratio]
    """Ratio of each network but the dense one."""

    def same_load(self, other: "Measurement") -> bool:
        """Return whether threads and batch are those of ``other``."""
        return (self.threads, self.batch) == (other.threads, other.batch)

    def same_way(self, other: "Measurement") -> bool:
        """Return whether runtime, threads and batch are those of ``other``."""
        return self.runtime == other.runtime and self.same_load(other)


class Machine(Result):
    """The machine that a measurement was made on."""

    cpu: str
    flags: list[str]
    """Instruction sets of the CPU that matter here."""
    governor: str
    cores: int | None
    memory_gib: float
    system: str
    python: str
    torch: str
    onnxruntime: str | None = None
    openvino: str | None = None

    @property
    def versions(self) -> dict[str, str]:
        """The versions of the runtimes that are installed, torch first."""
        known = {"torch": self.torch, "onnxruntime": self.onnxruntime, "openvino": self.openvino}
        return {name: version for name, version in known.items() if version}


class Disturbance(Result):
    """CPU time that was used by others during the measurement, as a number of cores."""

    others: float
    """Cores that other processes kept busy."""
    stolen: float
    """Cores that other virtual machines took."""


class LatencyResult(ResultFile):
    """The content of ``latency.json``; every sample is in ``samples.parquet`` beside it."""

    made_again_by: ClassVar[str] = "benchmark it again"

    schema_: Literal["pfs.latency/2"] = Field(default="pfs.latency/2", alias="schema")
    models: dict[str, NetworkSize]
    """Size of each network."""
    measurements: list[Measurement] = Field(min_length=1)
    """All measurements; tables and verdicts quote the first one, in which a latency was asked for where one was."""
    skipped: dict[str, str]
    """Runtimes that were left out, or numbers of threads and batch sizes of one, each with the reason."""
    dtype: str
    pinned: bool
    """Whether threads were pinned to cores."""
    machine: Machine
    disturbance_cores: Disturbance | None = None
    """Disturbance by others; missing in older files."""
    seconds: float | None = None
    """Duration of the whole benchmark in seconds; missing in older files."""
    noisy: list[str]
    """What disturbed the measurement; empty if nothing did."""
    config: Annotated[LatencyConfig, known_settings(LatencyConfig)] = Field(
        validation_alias="recipe", serialization_alias="recipe"
    )
    """Settings of the benchmark."""
    seed: int

    @property
    def quoted(self) -> Measurement:
        """The measurement that tables and verdicts are about."""
        return self.measurements[0]

    def quoting(self, way: Measurement) -> "LatencyResult | None":
        """Return these results with the measurement that was made as ``way`` was in front, or None where none was."""
        alike = [found for found in self.measurements if found.same_way(way)]
        rest = [found for found in self.measurements if not found.same_way(way)]
        return self.model_copy(update={"measurements": [*alike, *rest]}) if alike else None

    @property
    def beside_quoted(self) -> list[Measurement]:
        """The measurements in other runtimes with the threads and the batch of the quoted one."""
        return [found for found in self.measurements[1:] if found.same_load(self.quoted)]
