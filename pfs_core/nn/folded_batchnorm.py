"""BatchNorm over a few channels, at the speed of BatchNorm over many.

torch's CPU kernels for BatchNorm go through a channels_last tensor pixel by pixel, in vectors of 16 channels. Where the
channels do not fill the vectors, most of the time goes into the remainder: 20 channels need two vectors, of which the
second is a quarter full, so 128x20x32x32 takes 6.8 ms forward and backward where 2.2 ms are possible (two threads of an
AMD EPYC, torch 2.15; ``docs/performance.md``).

But in channels_last f neighbouring pixels of C channels lie in memory like one pixel of f*C channels. This module
computes BatchNorm on that *folded* tensor, with the smallest f that fills whole vectors (f = 4 for 20 channels). Each
channel then has f statistics, which are combined into one; the passes over the pixels are still torch's own kernels.
"""

import math
from collections.abc import Sequence
from typing import Any, Self

import torch
from torch import Tensor, nn

from pfs_core.nn.replacing import with_replaced

VECTOR = 16
"""Number of channels that the kernel handles at once."""

_statistics = torch.batch_norm_update_stats
_normalised = torch.ops.aten.native_batch_norm
_backward = torch.ops.aten.native_batch_norm_backward


def fold_norms(model: nn.Module) -> nn.Module:
    """Return a copy of ``model`` whose BatchNorm2d layers fold pixels where that is faster.

    Parameters and buffers are shared with ``model``, and the names in the ``state_dict`` are the same. Subclasses of
    BatchNorm2d, and layers without affine parameters, running statistics or a momentum, stay what they are.

    >>> model = nn.Sequential(nn.Conv2d(3, 20, 3), nn.BatchNorm2d(20))
    >>> folded = fold_norms(model)
    >>> type(folded[1]).__name__, folded[1].weight is model[1].weight
    ('FoldedBatchNorm2d', True)
    """
    return with_replaced(model, _folding)


def _folding(module: nn.Module) -> nn.Module | None:
    """Return what replaces a module, if anything."""
    # Subclasses may compute something else, so the type is compared exactly.
    if type(module) is nn.BatchNorm2d and module.affine and module.track_running_stats and module.momentum:
        return FoldedBatchNorm2d.sharing(module)
    return None


class FoldedBatchNorm2d(nn.BatchNorm2d):
    """A BatchNorm2d that folds a channels_last batch on the CPU whose channels do not fill whole vectors.

    Everything else (evaluation, GPUs, other memory formats, multiples of 16 channels) is left to torch.
    """

    @classmethod
    def sharing(cls, norm: nn.BatchNorm2d) -> Self:
        """Return a folding BatchNorm with the very parameters and buffers of ``norm``."""
        new = cls(norm.num_features, norm.eps, norm.momentum, device="meta")
        new.weight, new.bias = norm.weight, norm.bias
        new.running_mean, new.running_var = norm.running_mean, norm.running_var
        new.num_batches_tracked = norm.num_batches_tracked
        return new.train(norm.training)

    def forward(self, input: Tensor) -> Tensor:
        """Normalise [N, C, H, W] over N, H and W, and update the running statistics."""
        if not (self.training and _folds(input)):
            return super().forward(input)
        out, mean, variance = _FoldedBatchNorm.apply(input, self.weight, self.bias, self.eps)
        with torch.no_grad():
            count = input.numel() // input.shape[1]
            assert self.momentum is not None
            assert self.running_mean is not None
            assert self.running_var is not None
            assert self.num_batches_tracked is not None
            self.running_mean.lerp_(mean.to(self.running_mean.dtype), self.momentum)
            # As torch does it: normalise by the biased variance, but keep the unbiased one for evaluation.
            self.running_var.lerp_((variance * (count / (count - 1))).to(self.running_var.dtype), self.momentum)
            self.num_batches_tracked.add_(1)
        value: Tensor = out
        return value


def _pixels(x: Tensor) -> int:
    """Return the smallest number of neighbouring pixels whose channels together fill whole vectors."""
    return VECTOR // math.gcd(x.shape[1], VECTOR)


def _folds(x: Tensor) -> bool:
    """Return whether a batch can be folded, and whether that is any faster."""
    pixels = _pixels(x)
    fits = pixels > 1 and x.numel() // x.shape[1] % pixels == 0
    return fits and x.device.type == "cpu" and x.is_contiguous(memory_format=torch.channels_last)


def _folded(x: Tensor, pixels: int) -> Tensor:
    """Return [N, C, H, W] as [1, pixels * C, N * H * W / pixels, 1]: a view, both of them channels_last."""
    channels = pixels * x.shape[1]
    rows = x.numel() // channels
    return x.as_strided((1, channels, rows, 1), (x.numel(), 1, channels, channels))


def _unfolded(x: Tensor, like: Tensor) -> Tensor:
    """Return the memory of ``x`` in the shape and strides of ``like``."""
    # It must not be a view of x to autograd: the ReLU that follows usually works in place, which autograd forbids on a
    # view that a custom function returns.
    return x.new_empty(0).set_(x.untyped_storage(), 0, like.shape, like.stride())


def _repeated(parts: Sequence[Tensor], pixels: int) -> tuple[Tensor, ...]:
    """Return each [C] repeated to [pixels * C]."""
    return torch.cat([part for part in parts for _ in range(pixels)]).view(len(parts), -1).unbind()


class _FoldedBatchNorm(torch.autograd.Function):
    """BatchNorm of a batch that folds: x, weight [C], bias [C], eps to the normalised x, mean [C], biased variance [C].

    torch's kernel in *evaluation* mode multiplies each channel by a number and adds another, in one pass and in float32
    inside. Every pass over the pixels here, except the one for the statistics, is such a call.
    """

    @staticmethod
    def forward(ctx: Any, x: Tensor, weight: Tensor, bias: Tensor, eps: float) -> tuple[Tensor, Tensor, Tensor]:
        pixels, channels = _pixels(x), x.shape[1]
        folded = _folded(x, pixels)
        # The kernel returns statistics in the dtype of the running ones that it is given, and images in bf16 need them
        # in float32. It does not use the values, and with momentum 0 it leaves them as they are.
        unused = weight.new_zeros(pixels * channels)
        means, variances = _statistics(folded, unused, unused, 0.0)
        # The law of total variance: the f statistics of a channel are over equally many pixels, so its variance is the
        # mean of their variances plus the variance of their means.
        between, mean = torch.var_mean(means.view(pixels, channels), 0, correction=0)
        variance = variances.view(pixels, channels).mean(0).add_(between)
        whole = _repeated((weight, bias, mean, variance), pixels)
        out = _normalised(folded, *whole, False, 0.0, eps)[0]
        ctx.save_for_backward(x, weight, variance, whole[0], whole[2], whole[3])
        ctx.eps = eps
        ctx.mark_non_differentiable(mean, variance)
        return _unfolded(out, x), mean, variance

    @staticmethod
    def backward(ctx: Any, grad: Tensor, *_: Any) -> tuple[Tensor | None, Tensor, Tensor, None]:
        """Return the gradients for x, weight and bias; the formulas are those of Ioffe and Szegedy (2015).

        With n values per channel, xhat the normalised x and deviation = sqrt(variance + eps), they are
        ``weight / deviation * (grad - sum(grad) / n - xhat * sum(grad * xhat) / n)`` for x, ``sum(grad * xhat)`` for
        the weight and ``sum(grad)`` for the bias.
        """
        x, weight, variance, whole_weight, mean, whole_variance = ctx.saved_tensors
        pixels, channels, count = _pixels(x), x.shape[1], x.numel() // x.shape[1]
        folded, grads = _folded(x, pixels), _folded(grad.contiguous(memory_format=torch.channels_last), pixels)
        output_mask = [ctx.needs_input_grad[0], True, True]  # which gradients to compute
        # In evaluation mode the kernel takes the statistics as constants: it returns weight / deviation * grad, the
        # first term for x, and both sums.
        out, weights, biases = _backward(
            grads, folded, whole_weight, mean, whole_variance, None, None, False, ctx.eps, output_mask
        )
        grad_weight, grad_bias = weights.view(pixels, channels).sum(0), biases.view(pixels, channels).sum(0)
        if not ctx.needs_input_grad[0]:
            return None, grad_weight, grad_bias, None
        # The other two terms are linear in xhat, so that one more pass in evaluation mode computes them together.
        factor = torch.rsqrt(variance + ctx.eps).mul_(weight).div_(-count)
        scale, shift = _repeated((factor * grad_weight, factor * grad_bias), pixels)
        out += _normalised(folded, scale, shift, mean, whole_variance, False, 0.0, ctx.eps)[0]
        return _unfolded(out, x), grad_weight, grad_bias, None
