"""The fifth step: the networks of a run measured beside each other, in every runtime that was asked for."""

import os
import tempfile
import time
from collections.abc import Mapping, Sequence
from functools import partial
from itertools import product
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq

from pfs_core.config.spec import Budget
from pfs_core.config.stages import LatencyConfig
from pfs_core.errors import UserError
from pfs_core.export.onnx_file import agree
from pfs_core.latency.machine import disturbance, machine, noise, processor_seconds
from pfs_core.latency.memory import peak_memory
from pfs_core.latency.networks import read_network, write_network
from pfs_core.latency.protocol import cores, loaded_and_interleaved, quiet
from pfs_core.latency.runtimes import RUNTIMES, missing, run_eager
from pfs_core.latency.statistics import paired_ratio, summary
from pfs_core.runtime.progress import say
from pfs_core.storage.artifacts import check_out, publish, write_json
from pfs_core.structure import Structure
from pfs_core.structure.references import dense, expanded

SCHEMA = "pfs.latency/2"


def benchmark(
    structures: Sequence[Structure],
    out: str | Path,
    config: LatencyConfig = LatencyConfig(),
    seed: int = 0,
) -> dict[str, Any]:
    """Measure structures beside their dense and their expanded network and write the ``latency`` folder.

    A measurement is one runtime with a number of threads and a batch size: all networks in turns, so that their
    ratios can be trusted; milliseconds of two measurements are of different minutes. Latency does not depend on
    what the weights are, so the networks are freshly initialised; a runtime whose logits differ from PyTorch's is
    left out. ``samples.parquet`` has a row a run (model, runtime, threads, batch, load, round, nanoseconds),
    ``latency.json`` the statistics, the first measurement being the one to quote, and the machine.

    Args:
        structures: of one model; dense and expanded are added where they are not among them.
        out: the folder to write.
        config: see :class:`LatencyConfig`.
        seed: of the order, the weights and the images.

    Returns:
        The content of ``latency.json``.

    Raises:
        UserError: the structures are of different models, or none of the runtimes can be used.
    """
    check_out(out, "latency")
    networks = with_references(structures)
    started, clock = processor_seconds(), time.perf_counter()
    measurements: list[dict[str, Any]] = []
    tables = []
    skipped = {runtime: reason for runtime in config.runtimes if (reason := missing(runtime))}
    with tempfile.TemporaryDirectory() as scratch:
        folders = {name: Path(scratch) / name for name in networks}
        for name, structure in networks.items():
            write_network(structure, folders[name], seed)
        file_mib = {name: (folder / "model.safetensors").stat().st_size / 2**20 for name, folder in folders.items()}
        counts = thread_counts(config, len(cores()))
        falling = sorted(counts, reverse=True)  # OpenVINO never takes more cores in a process than it found at first
        for threads, batch, runtime in product(falling, config.batches, config.runtimes):
            if runtime in skipped:
                continue
            shape = (batch, *structures[0].model.input_shape)
            images = np.random.default_rng(seed).standard_normal(shape, dtype=np.float32)
            say(f"latency in {runtime}, batch {batch}, {threads} thread{'s' * (threads > 1)}: {', '.join(networks)}")
            try:
                samples, loads = _measured(runtime, folders, images, threads, config, seed)
            except Exception as e:  # a runtime that cannot take this network says so in its own way
                skipped[runtime] = str(e).strip().partition("\n")[0] or type(e).__name__
                say(f"latency in {runtime} is left out: {skipped[runtime]}")
                continue
            setting = {"runtime": runtime, "threads": threads, "batch": batch}
            measurements.append({**setting, **_statistics(samples, loads)})
            tables.append(_table(samples, loads, setting))
            _say_ratios(measurements[-1])
        if not measurements:
            raise UserError("no runtime can measure: " + "; ".join(f"{name}: {why}" for name, why in skipped.items()))
        measurements.sort(key=lambda found: counts.index(found["threads"]))
        _add_memory(measurements, folders)
    seconds = time.perf_counter() - clock
    disturbed = disturbance(started, processor_seconds(), seconds)
    info: dict[str, Any] = {
        "schema": SCHEMA,
        "models": {n: {**s.cost.model_dump(), "file_mib": file_mib[n]} for n, s in networks.items()},
        "measurements": measurements,
        "skipped": skipped,
        "dtype": "float32",
        "pinned": hasattr(os, "sched_setaffinity"),
        "machine": machine(),
        "disturbance_cores": disturbed,
        "seconds": seconds,
        "noisy": noise(disturbed, os.cpu_count() or 1),
        "recipe": config.model_dump(),
        "seed": seed,
    }
    with publish(out, "latency") as folder:
        pq.write_table(pa.concat_tables(tables), folder / "samples.parquet")
        write_json(folder / "latency.json", info)
    for reason in info["noisy"]:
        say(f"latency: this machine is noisy, {reason}")
    return info


def with_references(structures: Sequence[Structure]) -> dict[str, Structure]:
    """``{network: structure}`` with the dense one first and the expanded one, if the search was in one, second."""
    first = structures[0]
    identity = (first.model.name, first.model.kwargs, first.model.input_shape, first.model.num_classes)
    graph = first.graph()
    named = {"dense": dense(graph, Budget(target=1.0), model=first.model)}
    if first.model.expand > 1:
        named["expanded"] = expanded(graph, model=first.model)
    for structure in structures:
        model = structure.model
        if (model.name, model.kwargs, model.input_shape, model.num_classes) != identity:
            raise UserError(f"structures of different models ({first.model.name}, {model.name}) cannot be compared")
        if structure.network in named and structure.network not in ("dense", "expanded"):
            raise UserError(f"two structures are both {structure.network!r}; name one of them")
        named[structure.network] = structure
    return named


def thread_counts(config: LatencyConfig, most: int) -> list[int]:
    """Numbers of threads on so many cores, 0 being all of them, without those that come to the same."""
    return list(dict.fromkeys(min(threads or most, most) for threads in config.threads))


def _measured(
    runtime: str, folders: Mapping[str, Path], images: np.ndarray, threads: int, config: LatencyConfig, seed: int
) -> tuple[dict[str, np.ndarray], np.ndarray]:
    """Nanoseconds a network and round, and the round's load, once the runtime is known to compute what PyTorch does."""
    with quiet(threads):
        for name, folder in folders.items():
            found = RUNTIMES[runtime](folder, images, threads)()
            expected = run_eager(read_network(folder), images, threads)()
            if not agree(np.asarray(found), np.asarray(expected)):
                raise UserError(f"it computes something else than PyTorch for the {name} network")
        loaders = {name: partial(RUNTIMES[runtime], folder, images, threads) for name, folder in folders.items()}
        return loaded_and_interleaved(loaders, config, seed)


def _statistics(samples: Mapping[str, np.ndarray], loads: np.ndarray) -> dict[str, Any]:
    ratios = {name: paired_ratio(samples[name], samples["dense"], loads) for name in samples if name != "dense"}
    return {"models": {name: summary(values, loads) for name, values in samples.items()}, "ratios_to_dense": ratios}


def _add_memory(measurements: Sequence[dict[str, Any]], folders: Mapping[str, Path]) -> None:
    keys = ("runtime", "threads", "batch")
    cells = [(m, name) for m in measurements for name in folders]
    settings = [{key: m[key] for key in keys} for m, _ in cells]
    peaks = peak_memory([{**s, "folder": str(folders[name])} for s, (_, name) in zip(settings, cells, strict=True)])
    for (measurement, name), peak in zip(cells, peaks, strict=True):
        measurement["models"][name]["peak_memory_mib"] = peak


def _say_ratios(measurement: Mapping[str, Any]) -> None:
    stats = measurement["models"]
    for name, ratio in measurement["ratios_to_dense"].items():
        low, high = ratio["interval"]
        say(
            f"latency {name}  p50 {stats[name]['p50_ms']:.3f} ms, dense {stats['dense']['p50_ms']:.3f} ms, "
            f"ratio {ratio['ratio']:.3f} [{low:.3f}, {high:.3f}]: {ratio['verdict']}"
        )


def _table(samples: Mapping[str, np.ndarray], loads: np.ndarray, setting: Mapping[str, Any]) -> pa.Table:
    names = [name for name, values in samples.items() for _ in values]
    constant = {key: [value] * len(names) for key, value in setting.items()}
    columns = {
        "load": np.tile(loads, len(samples)),
        "round": np.tile(np.arange(len(loads)), len(samples)),
        "nanoseconds": np.concatenate(list(samples.values())),
    }
    return pa.table({"model": names, **constant, **columns})
