"""Predictions of a network for all images of a set, and their accuracy."""

from collections.abc import Callable

import torch
from torch import Tensor, nn

from pfs_core.data.images import Images
from pfs_core.runtime.distributed import ALONE, Ranks

Forward = Callable[[Tensor], Tensor]
"""A function from images, uint8 [N, C, H, W], to logits, float32 [N, classes]."""

_BATCH = 500


@torch.no_grad()
def predict(model: nn.Module, forward: Forward, images: Images, ranks: Ranks = ALONE) -> Tensor:
    """Predict the labels of all images, with ``model`` in evaluation mode and back in its own mode afterwards.

    Several processes share the images, and each gets all predictions.

    Args:
        model: the network that ``forward`` computes with.
        forward: computes the logits of a batch.
        images: the images, of which this process reads its share.
        ranks: the processes that predict together.

    Returns:
        int64 [N], in the order of ``images.labels``.
    """
    # BatchNorm's statistics are of the images that a process has trained on. All must predict with the same ones.
    ranks.sync_buffers(model.buffers())
    training = model.training
    model.eval()
    predictions = torch.zeros_like(images.labels)
    # The batches are views, which the loop fills.
    for part, batch in zip(own_batches(predictions, ranks), images.in_order(_BATCH), strict=True):
        part.copy_(forward(batch).argmax(1))
    model.train(training)
    return ranks.sum(predictions)  # every other process has left 0 where this one predicted


def own_batches(values: Tensor, ranks: Ranks = ALONE) -> list[Tensor]:
    """Return the parts of ``values``, [N] for all images, that are of the batches which this process predicts."""
    return list(values.split(_BATCH)[ranks.rank :: ranks.world])


def accuracy(predictions: Tensor, labels: Tensor) -> float:
    """Return the fraction of predictions that are right.

    >>> accuracy(torch.tensor([1, 2, 0, 3]), torch.tensor([1, 2, 0, 0]))
    0.75
    """
    return (predictions == labels).double().mean().item()
