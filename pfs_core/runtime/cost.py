"""What a stage took, in figures that can be compared between methods on one machine."""

import time
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch

from pfs_core.storage.artifacts import read_json, write_json

SECONDS = "seconds.json"
"""What a step without checkpoints took, in a file of its own: all else in its folder is the same for the same seed."""


class StepTimer:
    """Wall-clock time since it was made."""

    def __init__(self) -> None:
        self._start = time.perf_counter()

    def write(self, folder: Path) -> None:
        """Write the seconds to the step's folder."""
        write_json(folder / SECONDS, {"seconds": round(time.perf_counter() - self._start, 3)})


def seconds_of(folder: str | Path) -> float | None:
    """The seconds in a step's folder; None where it is of an older run, which has none."""
    path = Path(folder) / SECONDS
    return read_json(path)["seconds"] if path.exists() else None


def stage_cost(
    device: torch.device,
    spent: Mapping[str, float],
    forward: int,
    backward: int,
    before: Mapping[str, float] | None = None,
    processes: int = 1,
) -> dict[str, Any]:
    """Seconds and images of a stage of a search or training.

    Args:
        device: that it ran on.
        spent: :meth:`pfs_core.training.checkpoints.Checkpoints.spent` at its end.
        forward: images that went through the network.
        backward: of them, those that gradients were computed of.
        before: as ``spent``, at its start; None where that is the start of the step.
        processes: those that trained together, each on a GPU where there are GPUs.

    Returns:
        ``seconds`` of wall-clock time; ``device_seconds``, those of processors or of GPUs; and both counts.
    """
    seconds, processors = (spent[k] - (before or {}).get(k, 0.0) for k in ("seconds", "processor_seconds"))
    return {
        "seconds": seconds,
        "device_seconds": seconds * processes if device.type == "cuda" else processors,
        "forward_images": forward,
        "backward_images": backward,
    }
