"""BatchNorm over a few channels, at the speed of BatchNorm over many.

torch's channels_last kernels go through a tensor a pixel at a time, in vectors of 16 channels; with 20 channels most of
the time goes into the rest of the vector. But f neighbouring pixels of C channels lie in memory like one pixel of f*C
channels. So statistics are taken of the folded tensor, with f the smallest number that fills the vectors, and the f
shares of each channel are put together; the passes over the pixels are torch's own kernels.
"""

import copy
import math
from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor, nn

VECTOR = 16
"""Channels that a kernel handles at once."""

_statistics = torch.batch_norm_update_stats
_normalised = torch.ops.aten.native_batch_norm
_backward = torch.ops.aten.native_batch_norm_backward


def fold_norms(model: nn.Module) -> nn.Module:
    """A copy of ``model`` whose BatchNorm2d fold pixels where that is faster; parameters and buffers are shared."""
    shared = {id(tensor): tensor for tensor in (*model.parameters(), *model.buffers())}
    out = copy.deepcopy(model, shared)
    for module in list(out.modules()):
        for name, child in module.named_children():
            if type(child) is nn.BatchNorm2d and child.affine and child.track_running_stats and child.momentum:
                folded = FoldedBatchNorm2d.__new__(FoldedBatchNorm2d)
                folded.__dict__.update(child.__dict__)
                setattr(module, name, folded)
    return out


class FoldedBatchNorm2d(nn.BatchNorm2d):
    """BatchNorm2d, computed by folding where a channels_last batch on the CPU has channels that fill no vectors."""

    def forward(self, input: Tensor) -> Tensor:
        """[N, C, H, W] normalised over N, H and W."""
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
            self.running_var.lerp_((variance * (count / (count - 1))).to(self.running_var.dtype), self.momentum)
            self.num_batches_tracked.add_(1)
        return out


def _pixels(x: Tensor) -> int:
    """Neighbouring pixels that together fill vectors."""
    return VECTOR // math.gcd(x.shape[1], VECTOR)


def _folds(x: Tensor) -> bool:
    """Whether folding is possible and of use."""
    pixels = _pixels(x)
    fits = pixels > 1 and x.numel() // x.shape[1] % pixels == 0
    return fits and x.device.type == "cpu" and x.is_contiguous(memory_format=torch.channels_last)


def _folded(x: Tensor, pixels: int) -> Tensor:
    """[N, C, H, W] as [1, pixels * C, N * H * W / pixels, 1], both channels_last, of the same memory."""
    channels = pixels * x.shape[1]
    rows = x.numel() // channels
    return x.as_strided((1, channels, rows, 1), (x.numel(), 1, channels, channels))


def _unfolded(x: Tensor, like: Tensor) -> Tensor:
    """The same memory in the shape of ``like``; no view of ``x``, so that it may be changed in place."""
    return x.new_empty(0).set_(x.untyped_storage(), 0, like.shape, like.stride())


def _repeated(parts: Sequence[Tensor], pixels: int) -> tuple[Tensor, ...]:
    """Each [C] as [pixels * C]."""
    return torch.cat([part for part in parts for _ in range(pixels)]).view(len(parts), -1).unbind()


class _FoldedBatchNorm(torch.autograd.Function):
    """(x, weight [C], bias [C], eps) to the normalised x, its mean [C] and its biased variance [C].

    In a kernel's evaluation mode each channel of a tensor is multiplied by a number and moved by another, in one pass
    and in float32 inside: that is what all passes here but those for the statistics are.
    """

    @staticmethod
    def forward(ctx: Any, x: Tensor, weight: Tensor, bias: Tensor, eps: float) -> tuple[Tensor, Tensor, Tensor]:
        pixels, channels = _pixels(x), x.shape[1]
        folded = _folded(x, pixels)
        unused = weight.new_zeros(pixels * channels)  # given so that the statistics come in its precision
        means, variances = (each.view(pixels, channels) for each in _statistics(folded, unused, unused, 0.0))
        between, mean = torch.var_mean(means, 0, correction=0)
        variance = variances.mean(0).add_(between)
        whole = _repeated((weight, bias, mean, variance), pixels)
        out = _normalised(folded, *whole, False, 0.0, eps)[0]
        ctx.save_for_backward(x, weight, variance, whole[0], whole[2], whole[3])
        ctx.eps = eps
        ctx.mark_non_differentiable(mean, variance)
        return _unfolded(out, x), mean, variance

    @staticmethod
    def backward(ctx: Any, grad: Tensor, *_: Any) -> tuple[Tensor | None, Tensor, Tensor, None]:
        """The gradients of Ioffe and Szegedy (2015), with xhat the normalised x.

        They are weight / deviation * (grad - mean(grad) - xhat * mean(grad * xhat)) for x, sum(grad * xhat) for the
        weight and sum(grad) for the bias. The kernel gives both sums and the first term.
        """
        x, weight, variance, whole_weight, mean, whole_variance = ctx.saved_tensors
        pixels, channels, count = _pixels(x), x.shape[1], x.numel() // x.shape[1]
        folded, grads = _folded(x, pixels), _folded(grad.contiguous(memory_format=torch.channels_last), pixels)
        asked = [ctx.needs_input_grad[0], True, True]
        out, *sums = _backward(grads, folded, whole_weight, mean, whole_variance, None, None, False, ctx.eps, asked)
        grad_weight, grad_bias = (each.view(pixels, channels).sum(0) for each in sums)
        if not ctx.needs_input_grad[0]:
            return None, grad_weight, grad_bias, None
        factor = torch.rsqrt(variance + ctx.eps).mul_(weight).div_(-count)
        scale, shift = _repeated((factor * grad_weight, factor * grad_bias), pixels)
        out += _normalised(folded, scale, shift, mean, whole_variance, False, 0.0, ctx.eps)[0]
        return _unfolded(out, x), grad_weight, grad_bias, None
