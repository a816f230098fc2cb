"""What the stages of a step cost, in figures that can be compared between methods on one machine."""

import time
from collections.abc import Mapping
from pathlib import Path

import torch

from pfs_core.storage.artifacts import read_json, write_json
from pfs_core.storage.result_file import Result

SECONDS = "seconds.json"
"""The file with the duration of a step without checkpoints. It is a file of its own, so that all others in the folder
are the same, byte for byte, for the same seed."""


class StageCost(Result):
    """Time and images of a stage of a search or training."""

    seconds: float
    """Wall-clock time in seconds."""
    device_seconds: float
    """Seconds of all GPUs together, or of all processors where there are no GPUs."""
    forward_images: int
    """Images that went through the network."""
    backward_images: int
    """Images that gradients were computed for, which are among ``forward_images``."""


class StepTimer:
    """Measures the wall-clock time since it was created."""

    def __init__(self) -> None:
        self._start = time.perf_counter()

    def write(self, folder: Path) -> None:
        """Write the seconds to ``seconds.json`` in the folder of the step."""
        write_json(folder / SECONDS, {"seconds": round(time.perf_counter() - self._start, 3)})


def seconds_of(folder: str | Path) -> float | None:
    """Return the seconds in the folder of a step; None if an older version wrote it, without ``seconds.json``."""
    path = Path(folder) / SECONDS
    return read_json(path)["seconds"] if path.exists() else None


def stage_cost(
    device: torch.device,
    elapsed: Mapping[str, float],
    forward: int,
    backward: int,
    before: Mapping[str, float] | None = None,
    processes: int = 1,
) -> StageCost:
    """Return the cost of a stage.

    Args:
        device: the device that the stage ran on.
        elapsed: what :meth:`pfs_core.training.checkpoints.Checkpoints.elapsed` returned at the end of the stage.
        forward: images that went through the network.
        backward: those of them that gradients were computed for.
        before: what ``elapsed`` was at the start of the stage; None if it is the first stage of the step.
        processes: how many processes trained together, each on its own GPU if there are GPUs.
    """
    started = before or {"seconds": 0.0, "processor_seconds": 0.0}
    seconds = elapsed["seconds"] - started["seconds"]
    processor_seconds = elapsed["processor_seconds"] - started["processor_seconds"]
    return StageCost(
        seconds=seconds,
        device_seconds=seconds * processes if device.type == "cuda" else processor_seconds,
        forward_images=forward,
        backward_images=backward,
    )
