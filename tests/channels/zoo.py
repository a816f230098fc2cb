"""Networks of the zoo on the meta device, where nothing is computed, and their graphs."""

from functools import cache

import torch
from hypothesis import strategies as st

from pfs_core.channels import trace
from pfs_core.models import build_model

INPUT = (3, 32, 32)
ZOO = ("resnet20", "resnet56", "vgg16")
"""Networks for 3x32x32 images."""


@cache
def network(name):
    """A network on the meta device."""
    with torch.device("meta"):
        return build_model(name, input_shape=INPUT, num_classes=10)


@cache
def graph(name, policy="inner"):
    """Its channel graph."""
    return trace(network(name), INPUT, policy)


def widths_of(traced):
    """Any widths of a graph: resizable groups from the smallest to one and a half times what they have."""
    return st.fixed_dictionaries(
        {
            g.name: st.integers(1, g.gate_count * 3 // 2).map(lambda n, g=g: n * g.per_gate)
            if g.resizable
            else st.just(g.width)
            for g in traced.groups
        }
    )


def scaled(traced, factor):
    """Widths with every resizable group times a factor, rounded to what it allows."""
    return {
        g.name: max(1, round(g.gate_count * factor)) * g.per_gate if g.resizable else g.width for g in traced.groups
    }
