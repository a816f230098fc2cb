"""Predictions of a network over a whole set."""

from collections.abc import Callable

import torch
from torch import Tensor, nn

from pfs_core.data.images import Images
from pfs_core.runtime.distributed import ALONE, Ranks

Forward = Callable[[Tensor], Tensor]
"""uint8 images [N, C, H, W] to float32 logits [N, classes]."""

_BATCH = 500


@torch.no_grad()
def predict(model: nn.Module, forward: Forward, images: Images, ranks: Ranks = ALONE) -> Tensor:
    """Predicted labels, int64 [N], with ``model`` in evaluation mode (and back in its mode afterwards).

    Several processes share the images; all of them get all predictions, by the statistics of the first one.
    """
    ranks.sync_buffers(model.buffers())
    training = model.training
    model.eval()
    predictions = torch.zeros_like(images.labels)
    for mine, batch in zip(predictions.split(_BATCH)[ranks.rank :: ranks.world], images.in_order(_BATCH), strict=True):
        mine.copy_(forward(batch).argmax(1))
    model.train(training)
    return ranks.sum(predictions)


def accuracy(predictions: Tensor, labels: Tensor) -> float:
    """Fraction of predictions that are right."""
    return (predictions == labels).double().mean().item()
