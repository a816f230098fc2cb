"""Results of earlier runs on this machine that a step need not make again.

``pfs run`` names the folder of its runs in ``PFS_RUNS``. For every step that has done its work there is a small file in
``.steps`` below it, named after the step and a digest of everything that its result depends on. It says in which run
the result is, and what it was there: a result that has changed or is gone is made again.
"""

import logging
import os
import shutil
import tempfile
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import pfs_core
from pfs_core.config.spec import Config, ModelSpec
from pfs_core.errors import UserError
from pfs_core.storage.artifacts import COMPLETE, read_json, write_json
from pfs_core.storage.digests import file_digest, json_digest

logger = logging.getLogger(__package__)

RUNS, FRESH = "PFS_RUNS", "PFS_FRESH"
"""The folder of the runs; and a variable that is set where nothing may be taken from it."""
STEPS = ".steps"
"""The folder below it that says where the results of steps are."""


class Kept(Config):
    """Where the result of a step is."""

    run: str
    """The name of the run's folder."""
    complete: str
    """Digest of the result's ``complete.json``, which has the digests of its files."""
    figures: dict[str, float]
    """What the step has returned."""


def taken(step: str, inputs: Mapping[str, Any] | None, out: str | Path) -> dict[str, float] | None:
    """Put the result of an earlier run at ``out`` if it is that of the same step on the same inputs.

    Its files are links to those of that run, where the file system can have them.

    Args:
        step: the step's name.
        inputs: the :func:`known_inputs`.
        out: the folder to write.

    Returns:
        What the step returned then; None if there is no such result, or none may be taken.
    """
    entry = _entry(step, inputs)
    if entry is None or os.environ.get(FRESH) or not entry.exists():
        return None
    try:
        kept = Kept.parse(read_json(entry), str(entry))
        found = _result(entry.parents[1] / kept.run, kept.complete)
        if found is None or not _put(found, Path(out).absolute()):
            return None
    except (OSError, UserError):  # unreadable, or moved or removed meanwhile, as by a run that collects its results
        return None
    logger.info(f"{step}: taken from {kept.run}, where it had the same inputs")
    return kept.figures


def keep(step: str, inputs: Mapping[str, Any] | None, out: str | Path, figures: dict[str, float]) -> dict[str, float]:
    """Note where the result of a step is, which has returned ``figures``, and return these.

    Nothing is noted outside of ``pfs run``. The other arguments are those of :func:`taken`.
    """
    entry, out = _entry(step, inputs), Path(out).resolve()
    if entry is not None and out.is_relative_to(runs := entry.parents[1].resolve()):
        entry.parent.mkdir(parents=True, exist_ok=True)
        kept = Kept(run=out.relative_to(runs).parts[0], complete=file_digest(out / COMPLETE), figures=figures)
        write_json(entry, kept.model_dump(mode="json"))
    return figures


def known_inputs(
    params: Mapping[str, Any], spec: ModelSpec | None = None, precision: str = "", measures: bool = False
) -> dict[str, Any] | None:
    """Return everything that a step's result depends on; None where that is not known, or nothing is kept here.

    Args:
        params: what the step is given.
        spec: its network, if it has one. A user's own code counts, and the version of the library that it is from.
        precision: the precision of a step that learns. What ``auto`` stands for counts, and the kind of device.
        measures: whether the step measures times. The machine counts, with its runtimes and the cores to be used.
    """
    if not os.environ.get(RUNS):
        return None
    import torch

    from pfs_core.latency.machine import machine
    from pfs_core.models.sources import known_by
    from pfs_core.runtime.device import core_count, pick_device, resolve_precision

    inputs = {**params, "versions": [pfs_core.__version__, torch.__version__]}
    if precision:
        device = pick_device()
        inputs |= {"device": device.type, "precision": resolve_precision(precision, device)}
    if measures:
        inputs |= {"machine": machine(), "cores": core_count()}
    network = known_by(spec) if spec else {}
    return inputs | network if network is not None else None


def _entry(step: str, inputs: Mapping[str, Any] | None) -> Path | None:
    """Return the file that says where a result is; None where nothing is kept."""
    if inputs is None or not (runs := os.environ.get(RUNS)):
        return None
    return Path(runs) / STEPS / f"{step.replace('/', '-')}-{json_digest(inputs, 24, default=str)}.json"


def _result(run: Path, complete: str) -> Path | None:
    """Return the result in a run's folder whose ``complete.json`` has a digest, if all of its files are as it says."""
    for path in sorted(run.rglob(COMPLETE)) if run.is_dir() else ():
        if file_digest(path) == complete:
            files = read_json(path)
            whole = all((path.parent / n).is_file() and file_digest(path.parent / n) == d for n, d in files.items())
            return path.parent if whole else None
    return None


def _put(found: Path, out: Path) -> bool:
    """Make ``out`` a copy of a result; returns False where something is there already."""
    if out.exists() and any(out.iterdir()):
        return False
    out.parent.mkdir(parents=True, exist_ok=True)
    aside = Path(tempfile.mkdtemp(prefix=f".{out.name}.partial-", dir=out.parent))
    try:
        shutil.copytree(found, aside / out.name, copy_function=_link)
        (aside / out.name).rename(out)
    finally:
        shutil.rmtree(aside, ignore_errors=True)
    return True


def _link(source: str, target: str) -> None:
    try:
        os.link(source, target)
    except OSError:
        shutil.copy2(source, target)
