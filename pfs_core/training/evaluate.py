"""Predictions of a network for all images of a set, and their accuracy."""

from collections.abc import Callable

import torch
from torch import Tensor, nn

from pfs_core.data.images import Images
from pfs_core.runtime.distributed import ALONE, Ranks

Forward = Callable[[Tensor], Tensor]
"""A function from images, uint8 [N, C, H, W], to logits, float32 [N, classes]."""

_READ = 500
"""How many images are read at once."""
_PIXELS = _READ * 64 * 64
"""The most pixels that go through a network at once."""


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
    predictions, size = torch.zeros_like(images.labels), evaluation_batch(images.shape)
    batches = (batch for some in images.in_order(_READ) for batch in some.split(size))
    # The parts are views, which the loop fills.
    for part, batch in zip(own_batches(predictions, images), batches, strict=True):
        part.copy_(forward(batch).argmax(1))
    model.train(training)
    return ranks.sum(predictions)  # every other process has left 0 where this one predicted


def evaluation_batch(shape: tuple[int, int, int]) -> int:
    """Return how many images [C, H, W] are evaluated at once: fewer, the larger they are.

    >>> evaluation_batch((3, 32, 32)), evaluation_batch((3, 224, 224))
    (500, 40)
    """
    return max(1, min(_READ, _PIXELS // (shape[1] * shape[2])))


def own_batches(values: Tensor, images: Images) -> list[Tensor]:
    """Return the parts of ``values``, [N] for all images, that are of the batches which this process predicts."""
    size, own = evaluation_batch(images.shape), values.split(_READ)[images.rank :: images.world]
    return [part for some in own for part in some.split(size)]


def accuracy(predictions: Tensor, labels: Tensor) -> float:
    """Return the fraction of predictions that are right.

    >>> accuracy(torch.tensor([1, 2, 0, 3]), torch.tensor([1, 2, 0, 0]))
    0.75
    """
    return (predictions == labels).double().mean().item()
