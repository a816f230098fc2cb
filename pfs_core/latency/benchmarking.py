"""The fifth step: the networks of a run measured beside each other, in every runtime that was asked for."""

import logging
import os
import tempfile
import time
from collections.abc import Mapping, Sequence
from functools import partial
from itertools import product
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq

from pfs_core.config.stages import LatencyConfig
from pfs_core.errors import UserError
from pfs_core.export.onnx_file import agree
from pfs_core.latency.machine import disturbance, machine, noise, processor_seconds, wait_until_quiet
from pfs_core.latency.memory import peak_memory
from pfs_core.latency.networks import read_network, write_network
from pfs_core.latency.protocol import loaded_and_interleaved, quiet
from pfs_core.latency.results import Disturbance, LatencyResult, Machine, Measurement, NetworkSize
from pfs_core.latency.runtimes import RUNTIMES, missing, run_eager
from pfs_core.latency.statistics import paired_ratio, summary
from pfs_core.runtime.device import core_count
from pfs_core.storage.artifacts import check_out, publish
from pfs_core.structure import Structure
from pfs_core.structure.references import dense, expanded

logger = logging.getLogger(__package__)

_SETTING = {"runtime", "threads", "batch"}


def benchmark(
    structures: Sequence[Structure],
    out: str | Path,
    config: LatencyConfig = LatencyConfig(),
    seed: int = 0,
) -> LatencyResult:
    """Measure structures beside their dense and their expanded network and write the ``latency`` folder.

    A measurement is one runtime with a number of threads and a batch size: all networks in turns, so that their
    ratios can be trusted; milliseconds of two measurements are of different minutes. Latency does not depend on
    what the weights are, so the networks are freshly initialised; a runtime whose logits differ from PyTorch's is
    left out. ``samples.parquet`` has one row per run (model, runtime, threads, batch, load, round, nanoseconds),
    ``latency.json`` the statistics and the machine (:class:`~pfs_core.latency.results.LatencyResult`).

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
    if (most := max(config.threads)) > (cores := core_count()):
        logger.warning(f"latency: {most} threads were asked for, and there are {cores} cores: measured with {cores}")
    networks = with_references(structures)
    settings = measured_settings(config, structures, core_count())
    absent: dict[str, str] = {runtime: reason for runtime, *_ in settings if (reason := missing(runtime))}
    if all(runtime in absent for runtime, *_ in settings):
        raise _none_can_measure(absent)
    wait_until_quiet(config.patience_seconds)
    started, clock = processor_seconds(), time.perf_counter()
    with tempfile.TemporaryDirectory() as scratch:
        folders = {name: Path(scratch) / name for name in networks}
        for name, structure in networks.items():
            write_network(structure, folders[name], seed)
        file_mib = {name: (folder / "model.safetensors").stat().st_size / 2**20 for name, folder in folders.items()}
        found, skipped = _in_every_setting(settings, absent, folders, structures[0].model.input_shape, config, seed)
        measurements = _with_memory([measurement for measurement, _ in found], folders)
    seconds = time.perf_counter() - clock
    disturbed = disturbance(started, processor_seconds(), seconds)
    result = LatencyResult(
        models={
            name: NetworkSize(**s.cost.model_dump(), file_mib=file_mib[name], structure=s.digest)
            for name, s in networks.items()
        },
        measurements=measurements,
        skipped=skipped,
        dtype="float32",
        pinned=hasattr(os, "sched_setaffinity"),
        machine=Machine(**machine()),
        disturbance_cores=Disturbance(**disturbed),
        seconds=seconds,
        noisy=noise(disturbed, os.cpu_count() or 1),
        config=config,
        seed=seed,
    )
    with publish(out, "latency") as folder:
        pq.write_table(pa.concat_tables([table for _, table in found]), folder / "samples.parquet")
        result.save(folder / "latency.json")
    for reason in result.noisy:
        logger.warning(f"latency: a noisy machine: {reason}")
    return result


def _in_every_setting(
    settings: Sequence[tuple[str, int, int]],
    absent: Mapping[str, str],
    folders: Mapping[str, Path],
    shape: tuple[int, int, int],
    config: LatencyConfig,
    seed: int,
) -> tuple[list[tuple[Measurement, pa.Table]], dict[str, str]]:
    """Measure the networks in each runtime, number of threads and batch size.

    Args:
        settings: the runtimes, numbers of threads and batch sizes.
        absent: the runtimes that are not installed, with the reasons.
        folders: of the networks, by name.
        shape: of an image.
        config: see :class:`LatencyConfig`.
        seed: of the order and the images.

    Returns:
        Each measurement with its samples, in the order of ``settings``; and what was left out with the reasons: a
        runtime, or one of its settings.

    Raises:
        UserError: none of the runtimes can be used.
    """
    skipped = dict(absent)
    found: dict[tuple[str, int, int], tuple[Measurement, pa.Table]] = {}
    failed: dict[tuple[str, int, int], str] = {}
    # OpenVINO never uses more cores than it found first, so those with most threads are first.
    for runtime, threads, batch in sorted(settings, key=lambda setting: -setting[1]):
        if runtime in skipped:
            continue
        images = np.random.default_rng(seed).standard_normal((batch, *shape), dtype=np.float32)
        logger.info(f"latency in {runtime}, batch {batch}, threads {threads}: {', '.join(folders)}")
        try:
            samples, loads = _measured(runtime, folders, images, threads, config, seed)
        except Exception as e:  # a runtime that cannot take this network says so in its own way
            failed[runtime, threads, batch] = reason = str(e).strip().partition("\n")[0] or type(e).__name__
            logger.warning(f"latency in {runtime}, batch {batch}, threads {threads} is left out: {reason}")
            continue
        measurement = _measurement(runtime, threads, batch, samples, loads)
        found[runtime, threads, batch] = measurement, _table(samples, loads, measurement)
        _say_ratios(measurement)
    measured = {runtime for runtime, *_ in found}
    for (runtime, threads, batch), reason in failed.items():
        skipped[f"{runtime}, batch {batch}, threads {threads}" if runtime in measured else runtime] = reason
    if not found:
        raise _none_can_measure(skipped)
    return [found[setting] for setting in settings if setting in found], skipped


def _none_can_measure(reasons: Mapping[str, str]) -> UserError:
    return UserError("no runtime can measure: " + "; ".join(f"{name}: {why}" for name, why in reasons.items()))


def with_references(structures: Sequence[Structure]) -> dict[str, Structure]:
    """``{network: structure}`` with the dense one first and the expanded one, if the search was in one, second.

    Raises:
        UserError: the structures are of different models, or two have the same name.
    """
    first = structures[0]
    identity = (first.model.name, first.model.kwargs, first.model.input_shape, first.model.num_classes)
    # The dense network does not say by which policy was searched, nor does a uniform one of an older version.
    searched = next((structure for structure in structures if "policy" in structure.chosen_by), first)
    graph = searched.graph()
    named = {"dense": dense(graph, model=first.model)}
    if searched.model.expand > 1:
        named["expanded"] = expanded(graph, model=searched.model)
    for structure in structures:
        model = structure.model
        if (model.name, model.kwargs, model.input_shape, model.num_classes) != identity:
            raise UserError(f"structures of different models ({first.model.name}, {model.name}) cannot be compared")
        if structure.network in named and structure.network not in ("dense", "expanded"):
            raise UserError(f"two structures are both {structure.network!r}; name one of them")
        named[structure.network] = structure
    return named


def measured_settings(config: LatencyConfig, structures: Sequence[Structure], cores: int) -> list[tuple[str, int, int]]:
    """The runtimes, numbers of threads and batch sizes to measure, in the order in which they are quoted.

    Where the structures were cut to a latency, what that was asked in comes first.

    Args:
        config: the settings; 0 threads are all cores.
        structures: what is measured.
        cores: the largest number of threads.
    """
    counts = dict.fromkeys(min(threads or cores, cores) for threads in config.threads)
    settings = [(runtime, *rest) for *rest, runtime in product(counts, config.batches, config.runtimes)]
    models = [found for structure in structures if (found := structure.provenance.get("latency_model"))]
    asked = [(model["runtime"], min(model["threads"], cores), 1) for model in models[:1]]
    return list(dict.fromkeys([*asked, *settings]))


def _measured(
    runtime: str, folders: Mapping[str, Path], images: np.ndarray, threads: int, config: LatencyConfig, seed: int
) -> tuple[dict[str, np.ndarray], np.ndarray]:
    """Nanoseconds per network and round, and the load of each round; checks first that PyTorch computes the same."""
    with quiet(threads):
        for name, folder in folders.items():
            found = RUNTIMES[runtime](folder, images, threads)()
            expected = run_eager(read_network(folder), images, threads)()
            if not agree(np.asarray(found), np.asarray(expected)):
                raise UserError(f"it computes something else than PyTorch for the {name} network")
        loaders = {name: partial(RUNTIMES[runtime], folder, images, threads) for name, folder in folders.items()}
        return loaded_and_interleaved(loaders, config, seed)


def _measurement(
    runtime: str, threads: int, batch: int, samples: Mapping[str, np.ndarray], loads: np.ndarray
) -> Measurement:
    dense_samples = samples["dense"]
    return Measurement(
        runtime=runtime,
        threads=threads,
        batch=batch,
        models={name: summary(values, loads) for name, values in samples.items()},
        ratios_to_dense={
            name: paired_ratio(values, dense_samples, loads) for name, values in samples.items() if name != "dense"
        },
    )


def _with_memory(measurements: Sequence[Measurement], folders: Mapping[str, Path]) -> list[Measurement]:
    """The measurements with what each network needs in memory, measured in processes of their own."""
    jobs = [
        {**found.model_dump(include=_SETTING), "folder": str(folder)}
        for found in measurements
        for folder in folders.values()
    ]
    peaks = iter(peak_memory(jobs))
    out = []
    for found in measurements:
        models = {name: found.models[name].model_copy(update={"peak_memory_mib": next(peaks)}) for name in folders}
        out.append(found.model_copy(update={"models": models}))
    return out


def _say_ratios(found: Measurement) -> None:
    dense_ms = found.models["dense"].p50_ms
    for name, ratio in found.ratios_to_dense.items():
        low, high = ratio.interval
        logger.info(
            f"latency {name}  {found.models[name].p50_ms:.3f} ms, dense {dense_ms:.3f}, "
            f"ratio {ratio.ratio:.3f} [{low:.3f}, {high:.3f}]"
        )


def _table(samples: Mapping[str, np.ndarray], loads: np.ndarray, found: Measurement) -> pa.Table:
    names = [name for name, values in samples.items() for _ in values]
    constant = {key: [value] * len(names) for key, value in found.model_dump(include=_SETTING).items()}
    columns = {
        "load": np.tile(loads, len(samples)),
        "round": np.tile(np.arange(len(loads)), len(samples)),
        "nanoseconds": np.concatenate(list(samples.values())),
    }
    return pa.table({"model": names, **constant, **columns})
