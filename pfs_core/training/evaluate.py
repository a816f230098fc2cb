"""Predictions of a network over a whole set."""

from collections.abc import Callable

import torch
from torch import Tensor, nn

from pfs_core.data.images import Images

Forward = Callable[[Tensor], Tensor]
"""uint8 images [N, C, H, W] to float32 logits [N, classes]."""

_BATCH = 500


@torch.no_grad()
def predict(model: nn.Module, forward: Forward, images: Images) -> Tensor:
    """Predicted labels, int64 [N], with ``model`` in evaluation mode (and back in its mode afterwards)."""
    training = model.training
    model.eval()
    predictions = torch.cat([forward(batch).argmax(1) for batch in images.in_order(_BATCH)])
    model.train(training)
    return predictions


def accuracy(predictions: Tensor, labels: Tensor) -> float:
    """Fraction of predictions that are right."""
    return (predictions == labels).double().mean().item()
