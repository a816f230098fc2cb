"""From a model to its channel graph, by torch.fx.

The model is traced symbolically, shapes are propagated on meta tensors, and one pass over the operations in forward
order (:mod:`pfs_core.channels.interpret`) finds out which channel groups the tensors consist of. What each operation
does to groups is in :mod:`pfs_core.channels.handlers`. An operation without a handler freezes the groups that pass
through it, and the ``reason`` of a group says so.
"""

import contextlib
import copy
import traceback
from collections.abc import Iterator
from pathlib import Path

import torch
from torch import fx, nn
from torch.fx.passes.shape_prop import ShapeProp
from torch.utils.flop_counter import FlopCounterMode

from pfs_core.channels.graph import ChannelGraph
from pfs_core.channels.handlers.layers import LAYERS
from pfs_core.channels.interpret import interpret
from pfs_core.channels.tracer import BATCH, ChannelTracer, Placement, Policy
from pfs_core.errors import UserError


def trace(
    model: nn.Module,
    input_shape: tuple[int, int, int],
    policy: Policy = "inner",
    placement: Placement = "last",
) -> ChannelGraph:
    """Trace ``model`` and return its channel graph.

    A network can declare two things about itself by attributes: ``stream_layers``, patterns (``re.fullmatch``) of
    layers whose outputs are a residual stream although nothing is added to them, and ``widen_stream``, whether an
    expansion widens its residual stream.

    Args:
        model: any CNN that torch.fx can trace. It is not changed, and no forward pass is computed on real tensors.
        input_shape: channels, height and width of one image.
        policy: ``inner`` does not prune groups that are joined by an addition (residual streams); ``all`` prunes them
            too, with one gate vector shared by every layer that writes the stream.
        placement: ``last`` gates a group at the last BatchNorm before its channels are mixed; ``official`` at the
            first one, as the paper's released code does. Behind a depthwise convolution a masked channel is then not
            like an absent one.

    Raises:
        UserError: the model cannot be traced, or cannot process such an image.

    >>> from torch import nn
    >>> layers = [nn.Conv2d(3, 8, 3, bias=False), nn.BatchNorm2d(8), nn.ReLU(), nn.Flatten(), nn.Linear(8 * 36, 10)]
    >>> for group in trace(nn.Sequential(*layers), (3, 8, 8)).groups:
    ...     print(group.name, group.width, group.gates, group.reason or "prunable")
    input 3 () the network's input
    0 8 ('1',) prunable
    4 10 () the network's output
    """
    with _named(f"{type(model).__name__} cannot be copied"):
        on_meta = _on_meta(model).eval()
    dtype = next((p.dtype for p in model.parameters()), torch.float32)
    images = torch.empty(BATCH, *input_shape, device="meta", dtype=dtype)
    flops = FlopCounterMode(display=False)
    tracer = ChannelTracer(placement, getattr(model, "stream_layers", ()))
    traced = _symbolic(on_meta)
    with flops:
        _run(on_meta, images[:1])
    called = interpret(tracer, _with_shapes(traced, images))
    layers = {name for name, module in on_meta.named_modules() if type(module) in LAYERS}
    if not layers <= called:
        # Auxiliary heads, which the network uses only in training. They read channels too, so they have to be resized
        # with them, but an image that is classified does not pass through them: their MACs do not count.
        _run(on_meta.train(), images)
        interpret(tracer, _with_shapes(_symbolic(on_meta), images), counts_macs=False)
    macs = flops.get_total_flops() // 2
    params = sum(p.numel() for p in on_meta.parameters())
    return tracer.build_graph(input_shape, policy, macs, params, getattr(model, "widen_stream", False))


def _on_meta(model: nn.Module) -> nn.Module:
    """Return a copy of ``model`` whose tensors have shapes but no values."""
    # The tensors enter the copy through deepcopy's memo, so that the weights are never copied.
    tensors = [*model.parameters(), *model.buffers()]
    memo = {id(t): torch.empty_like(t, device="meta").requires_grad_(t.requires_grad) for t in tensors}
    memo |= {id(p): nn.Parameter(memo[id(p)].detach(), p.requires_grad) for p in model.parameters()}
    return copy.deepcopy(model, memo).to("meta")


def _run(model: nn.Module, images: torch.Tensor) -> None:
    """Run the model once; UserError if it does not take such images."""
    shape = "x".join(map(str, images.shape[1:]))
    mode = " in training mode" if model.training else ""
    with _named(f"{type(model).__name__} cannot process {shape} images{mode}"):
        model(images)


def _symbolic(model: nn.Module) -> fx.GraphModule:
    with _named(f"{type(model).__name__} cannot be traced"):
        return fx.symbolic_trace(model)


def _with_shapes(traced: fx.GraphModule, images: torch.Tensor) -> fx.GraphModule:
    """Return ``traced`` with the shape of every tensor in the metadata of its node."""
    with _named(f"the trace of {traced._get_name()} cannot be run"):
        ShapeProp(traced).propagate(images)
    return traced


@contextlib.contextmanager
def _named(what: str) -> Iterator[None]:
    """Turn any error that a user's model raises into one line that says where it was raised."""
    try:
        yield
    except UserError:
        raise
    except Exception as e:
        reason = (str(e).strip() or type(e).__name__).splitlines()[0]
        raise UserError(f"{what}: {reason}{_place(e)}") from None


def _place(error: Exception) -> str:
    """Return the line of the user's own code that raised an error: the innermost one outside PyTorch and pfs."""
    ours = (Path(torch.__file__).parent, Path(__file__).parent)
    for frame in reversed(traceback.extract_tb(error.__traceback__)):
        path = Path(frame.filename)
        if path.parent == Path(copy.__file__).parent:
            continue
        if path.is_file() and not any(path.is_relative_to(folder) for folder in ours):
            return f" ({path.name}, line {frame.lineno}: {frame.line})"
    return ""
