"""``latency.json``: what the networks of a run took on a machine."""

from typing import Annotated, ClassVar, Literal

from pydantic import Field

from pfs_core.config.stages import LatencyConfig
from pfs_core.storage.result_file import Result, ResultFile, known_settings

Interval = tuple[float, float]
"""Lower and upper end, 95%."""


class NetworkSize(Result):
    """What a network costs wherever it runs."""

    macs: int
    params: int
    file_mib: float
    """Of its weights as safetensors."""


class NetworkLatency(Result):
    """The samples of a network in one measurement, in milliseconds per batch."""

    rounds: int
    min_ms: float
    p50_ms: float
    p50_interval_ms: Interval
    p90_ms: float
    p99_ms: float
    flags: list[str]
    """What is wrong with the samples: ``noisy``, ``bimodal``."""
    peak_memory_mib: float | None = None
    """Memory of a process while it answers, libraries aside; None where it could not be measured."""


class Ratio(Result):
    """A network's latency relative to the dense network's, taken round by round."""

    ratio: float
    interval: Interval
    verdict: str
    """``faster``, ``slower`` or ``no measurable difference``."""


class Measurement(Result):
    """All networks in turns, in one runtime with one number of threads and one batch size."""

    runtime: str
    threads: int
    batch: int
    models: dict[str, NetworkLatency]
    """By network."""
    ratios_to_dense: dict[str, Ratio]
    """By network, the dense one aside."""

    def same_load(self, other: "Measurement") -> bool:
        """Whether threads and batch are those of ``other``."""
        return (self.threads, self.batch) == (other.threads, other.batch)


class Machine(Result):
    """What was measured on."""

    cpu: str
    flags: list[str]
    """Those of its instruction sets that matter here."""
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
        """Versions of the runtimes that are installed, torch first."""
        known = {"torch": self.torch, "onnxruntime": self.onnxruntime, "openvino": self.openvino}
        return {name: version for name, version in known.items() if version}


class Disturbance(Result):
    """What others did during the measurement, in cores."""

    others: float
    """Kept busy by other processes."""
    stolen: float
    """Taken by other virtual machines."""


class LatencyResult(ResultFile):
    """The content of ``latency.json``; every sample is in ``samples.parquet`` beside it."""

    made_again_by: ClassVar[str] = "benchmark it again"

    schema_: Literal["pfs.latency/2"] = Field(default="pfs.latency/2", alias="schema")
    models: dict[str, NetworkSize]
    """By network."""
    measurements: list[Measurement] = Field(min_length=1)
    """The first one is quoted."""
    skipped: dict[str, str]
    """Runtimes that were left out, and why."""
    dtype: str
    pinned: bool
    """Whether threads were kept on their cores."""
    machine: Machine
    disturbance_cores: Disturbance | None = None
    """Older files do not say."""
    seconds: float | None = None
    """Of the whole benchmark; older files do not say."""
    noisy: list[str]
    """What disturbed the measurement, if anything."""
    recipe: Annotated[LatencyConfig, known_settings(LatencyConfig)]
    seed: int

    @property
    def quoted(self) -> Measurement:
        """The measurement that tables and verdicts are about."""
        return self.measurements[0]

    @property
    def beside_quoted(self) -> list[Measurement]:
        """Other runtimes with the threads and the batch of the quoted measurement."""
        return [found for found in self.measurements[1:] if found.same_load(self.quoted)]
