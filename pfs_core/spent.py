"""What a stage took, in figures that can be compared between methods on one machine."""

from collections.abc import Mapping
from typing import Any

import torch


def stage_cost(
    device: torch.device,
    spent: Mapping[str, float],
    forward: int,
    backward: int,
    before: Mapping[str, float] | None = None,
) -> dict[str, Any]:
    """Seconds and images of a stage of a search or training.

    Args:
        device: that it ran on.
        spent: :meth:`pfs_core.checkpoints.Checkpoints.spent` at its end.
        forward: images that went through the network.
        backward: of them, those that gradients were computed of.
        before: as ``spent``, at its start; None where that is the start of the step.

    Returns:
        ``seconds`` of wall-clock time; ``device_seconds``, those of processors or of the GPU; and both counts.
    """
    seconds, processors = (spent[k] - (before or {}).get(k, 0.0) for k in ("seconds", "processor_seconds"))
    return {
        "seconds": seconds,
        "device_seconds": seconds if device.type == "cuda" else processors,
        "forward_images": forward,
        "backward_images": backward,
    }
