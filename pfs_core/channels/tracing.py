"""From a model to its channel graph.

The model is exported as one graph of ATen operators (:mod:`pfs_core.channels.export`), and one pass over them in
forward order (:mod:`pfs_core.channels.interpret`) finds out which channel groups the tensors consist of. What each
operator does to groups is in :mod:`pfs_core.channels.handlers`. An operator without a handler freezes the groups that
pass through it, and the ``reason`` of a group says so.
"""

import contextlib

import torch
from torch import nn

from pfs_core.channels.branches import with_branches
from pfs_core.channels.export import count_macs, export, named, run_without_values, without_weights
from pfs_core.channels.graph import ChannelGraph
from pfs_core.channels.interpret import interpret
from pfs_core.channels.passed_sizes import passed_sizes
from pfs_core.channels.tracer import BATCH, ChannelTracer, Placement, Policy


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
        model: any CNN that ``torch.export`` can export. It is not changed, and nothing is computed on real tensors.
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
    model = without_weights(model).eval()
    one = next(filter(torch.is_floating_point, model.parameters()), torch.empty(0))
    images = torch.empty(BATCH, *input_shape, device=one.device, dtype=one.dtype)
    with _processing(model, input_shape):
        macs = count_macs(model, images[:1])
    passed = passed_sizes(model, images)
    tracer = ChannelTracer(model, placement, getattr(model, "stream_layers", ()), passed)
    exported = export(model, images)
    interpret(tracer, exported)
    if unread := {name for name, _ in model.named_parameters()} - tracer.read_tensors():
        # Auxiliary heads, which the network uses only in training. They read channels too, so they have to be resized
        # with them, but an image that is classified does not pass through them: their MACs do not count.
        with _processing(model.train(), input_shape):
            run_without_values(model, images)
        in_training = export(model, images)
        if unread & in_training.read_tensors():
            interpret(tracer, in_training, counts_macs=False)
    params = sum(p.numel() for p in model.parameters())
    graph = tracer.build_graph(input_shape, policy, macs, params, getattr(model, "widen_stream", False))
    return with_branches(graph, model, exported)


def _processing(model: nn.Module, input_shape: tuple[int, int, int]) -> contextlib.AbstractContextManager[None]:
    """Name an error that the model raises by the images that it does not take."""
    mode = " in training mode" if model.training else ""
    return named(f"{type(model).__name__} cannot process {'x'.join(map(str, input_shape))} images{mode}")
