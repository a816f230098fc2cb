"""Mixup and CutMix of batches, as torchvision has them."""

from typing import Any

import torch
from torch import Tensor

from pfs_core.config.stages import RetrainConfig
from pfs_core.runtime.seeded import seeded


class Mixing:
    """Mixes each image of a batch with the one before it in the batch, the first with the last.

    Args:
        config: ``mixup`` and ``cutmix`` are the alphas; if both are set, a batch gets either with probability 1/2.
        classes: the number of classes.
    """

    def __init__(self, config: RetrainConfig, classes: int) -> None:
        self._ways: list[Any] = []
        if config.mixup or config.cutmix:
            from torchvision.transforms import v2  # here, as it is slow to import and few trainings need it

            self._ways += [v2.MixUp(alpha=config.mixup, num_classes=classes)] if config.mixup else []
            self._ways += [v2.CutMix(alpha=config.cutmix, num_classes=classes)] if config.cutmix else []

    def __call__(self, images: Tensor, labels: Tensor, *key: int) -> tuple[Tensor, Tensor]:
        """Mix a batch.

        Args:
            images: uint8 [n, C, H, W].
            labels: int64 [n].
            key: numbers that the mixture follows from: the seed of the training, the step and the rank.

        Returns:
            Images, float32 [n, C, H, W] in units of 0-255, and probabilities of the classes, float32 [n, classes];
            the very same images and labels if nothing is to be mixed.
        """
        if not self._ways:
            return images, labels
        with seeded(*key):
            way = self._ways[int(torch.randint(len(self._ways), ()))]
            mixed: tuple[Tensor, Tensor] = way(images.float(), labels)
        return mixed
