"""RandAugment, TrivialAugment and random erasing of single images, as torchvision has them."""

from collections.abc import Sequence
from functools import cached_property
from typing import Any

import torch
from torch import Tensor

from pfs_core.config.stages import RetrainConfig
from pfs_core.runtime.seeded import seeded


class ImageAugmentation:
    """Changes training images at random, each in its own way.

    Args:
        config: ``augment`` and ``random_erasing`` say what is done, in this order.
        mean: the colour of what is erased, one level of 0-255 per channel: normalised it is 0.
    """

    def __init__(self, config: RetrainConfig, mean: Sequence[float]) -> None:
        self.policy = config.augment
        self.erasing = config.random_erasing
        self.mean = [round(level) for level in mean]

    @cached_property
    def _change(self) -> Any:
        from torchvision.transforms import v2  # here, as it is slow to import and only training needs it

        policies = {"randaugment": v2.RandAugment, "trivialaugment": v2.TrivialAugmentWide}
        changes = [policies[self.policy]()] if self.policy else []
        return v2.Compose([*changes, v2.RandomErasing(self.erasing, value=self.mean)] if self.erasing else changes)

    def __call__(self, image: Tensor) -> Tensor:
        """Return a changed image, uint8 [C, H, W] with 1 or 3 channels; draws from torch's global generator."""
        changed: Tensor = self._change(image)
        return changed

    def batch(self, images: Tensor, seeds: Tensor) -> Tensor:
        """Return changed images, uint8 [N, C, H, W], each of which follows from its seed, int64 [N]."""
        changed = torch.empty_like(images)
        for out, image, seed in zip(changed, images, seeds.tolist(), strict=True):
            with seeded(seed):
                out.copy_(self(image))
        return changed


def image_augmentation(config: RetrainConfig, mean: Sequence[float]) -> ImageAugmentation | None:
    """Return what changes single images of a training, or None if the configuration asks for nothing."""
    return ImageAugmentation(config, mean) if config.augment or config.random_erasing else None
