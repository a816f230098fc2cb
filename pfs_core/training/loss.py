"""The loss of a training."""

import torch
import torch.nn.functional as F
from torch import Tensor

from pfs_core.config.stages import RetrainConfig
from pfs_core.data.balance import balanced_weights


def class_weights(config: RetrainConfig, labels: Tensor, classes: int) -> Tensor | None:
    """Return the weights of the classes, float32 [classes] on the device of ``labels``; None if all weigh the same.

    Args:
        config: see :class:`RetrainConfig`.
        labels: int64 [N], of all images that are trained on.
        classes: the number of classes.
    """
    if config.class_weights is None:
        return None
    weights = balanced_weights(labels.cpu().numpy(), classes)
    return torch.tensor(weights, dtype=torch.float32, device=labels.device)


def mean_loss(logits: Tensor, target: Tensor, config: RetrainConfig, weights: Tensor | None) -> Tensor:
    """Return the mean over the images of their cross-entropy, times the weight of their class.

    Args:
        logits: float32 [n, classes].
        target: labels, int64 [n], or probabilities of the classes, float32 [n, classes].
        config: ``label_smoothing`` is of labels and of probabilities alike.
        weights: float32 [classes]; None if all weigh the same.
    """
    smoothing = config.label_smoothing
    if weights is None:
        return F.cross_entropy(logits, target, label_smoothing=smoothing)
    # Torch's own mean divides by the weights of the batch's labels, which differ between micro-batches and processes.
    total = F.cross_entropy(logits, target, weights, label_smoothing=smoothing, reduction="sum")
    return total / len(target)


def hits(logits: Tensor, target: Tensor) -> Tensor:
    """Count the images whose class gets the largest logit; of a mixed image it is the class with the larger share."""
    labels = target if target.ndim == 1 else target.argmax(1)
    return (logits.argmax(1) == labels).sum()
