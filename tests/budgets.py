"""ResNet-20 for 8x8 images, its graph, and gates and budgets to cut it by."""

from functools import cache

import torch
from hypothesis import strategies as st

from pfs_core.config.spec import Budget, ModelSpec
from pfs_core.config.stages import ExtractConfig
from pfs_core.structure import unexpanded_graph

SPEC = ModelSpec(name="resnet20", input_shape=(1, 8, 8), expand=1.25)
PAPERS_CUT = ExtractConfig(blocks=1, runtime="onnxruntime", threads=1)
"""The cut to any width, for which no runtime is measured."""


@cache
def graph(policy="inner"):
    """The graph of the unexpanded network."""
    return unexpanded_graph(SPEC, policy)


def random_gates(seed, levels=None, policy="inner", spec=SPEC):
    """Gates in [0, 1] for every prunable group; with ``levels``, of so many values only, so that many are equal."""
    random = torch.Generator().manual_seed(seed)
    traced = graph(policy)
    expanded = traced.expanded(spec.expand)
    gates = {group.name: torch.rand(expanded[group.name], generator=random) for group in traced.prunable()}
    if levels:
        gates = {name: (values * levels).floor() / max(1, levels - 1) for name, values in gates.items()}
    return gates


seeds = st.integers(0, 1000)
levels = st.sampled_from([None, 1, 2, 5, 50])
policies = st.sampled_from(["inner", "all"])
fractions = st.builds(Budget, metric=st.sampled_from(["macs", "params"]), target=st.floats(0.3, 1.0))
counts = st.builds(Budget, metric=st.just("macs"), target=st.integers(800_000, 2_500_000)) | st.builds(
    Budget, metric=st.just("params"), target=st.integers(90_000, 270_000)
)
budgets = fractions | counts


def cost_of(widths, budget, policy="inner"):
    """What ``widths`` cost in the budget's metric, and what they may."""
    metric = budget.metric
    return getattr(graph(policy).cost(widths), metric), budget.limit(getattr(graph(policy).cost(), metric))
