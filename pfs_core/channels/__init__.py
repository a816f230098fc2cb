"""Groups of channels that must stay equally wide: found by tracing a network, costed, resized and sliced.

>>> from pfs_core.models import build_model
>>> graph = trace(build_model("resnet20"), (3, 32, 32))
>>> graph.cost()
Cost(macs=40813184, params=272474)
>>> graph.cost({**graph.widths(), "layer1.0.conv1": 8}).macs
38453888
"""

from pfs_core.channels.elements import Axis, ChannelGroup, ChannelSlice, Cost
from pfs_core.channels.graph import ChannelGraph, Refuted
from pfs_core.channels.proof import refuted_groups
from pfs_core.channels.resizing import resize, slice_weights
from pfs_core.channels.tracing import trace

__all__ = [
    "Axis",
    "ChannelGraph",
    "ChannelGroup",
    "ChannelSlice",
    "Cost",
    "Refuted",
    "refuted_groups",
    "resize",
    "slice_weights",
    "trace",
]
