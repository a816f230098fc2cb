"""Some test images that a network takes for something else, for people to look at."""

import math
from collections.abc import Sequence
from pathlib import Path

import torch
from safetensors.torch import load_file, save_file
from torch import Tensor

FILE = "mistakes.safetensors"
SHOWN = 16


class MistakeSample:
    """Keeps up to ``SHOWN`` mistakes, spread over a test: the first ones of every batch, and of these evenly many.

    Args:
        labels: the labels of each batch, int64 [n].
    """

    def __init__(self, labels: Sequence[Tensor]) -> None:
        self._labels = iter(labels)
        self._each = math.ceil(SHOWN / len(labels)) if labels else 0
        self._kept: list[tuple[Tensor, Tensor, Tensor]] = []

    def add(self, images: Tensor, predictions: Tensor) -> None:
        """Look at the next batch: uint8 [n, C, H, W] and int64 [n]."""
        labels = next(self._labels)
        wrong = (predictions != labels).nonzero().flatten()[: self._each]
        self._kept.append((images[wrong].cpu(), labels[wrong].cpu(), predictions[wrong].cpu()))

    def save(self, folder: Path) -> None:
        """Write ``images`` (uint8 [n, C, H, W]), ``labels`` and ``predictions`` (int64 [n]) as safetensors."""
        images, labels, predictions = (_spread(torch.cat(parts)) for parts in zip(*self._kept, strict=True))
        save_file({"images": images, "labels": labels, "predictions": predictions}, folder / FILE)


def _spread(values: Tensor) -> Tensor:
    """Return ``SHOWN`` of the values at even distances, or all of them if there are no more."""
    return values[torch.arange(SHOWN) * len(values) // SHOWN] if len(values) > SHOWN else values


def load_mistakes(folder: Path) -> list[tuple[Tensor, int, int]]:
    """Return image, label and prediction of each mistake in a ``model`` folder; older ones have none."""
    if not (folder / FILE).is_file():
        return []
    found = load_file(folder / FILE)
    return list(zip(found["images"], found["labels"].tolist(), found["predictions"].tolist(), strict=True))
