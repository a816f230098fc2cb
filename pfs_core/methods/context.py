"""What every way of choosing a structure starts from: the network, widened, and its channel graph."""

from typing import Any, NamedTuple

import torch
from torch import nn

from pfs_core.channels import ChannelGraph, resize, trace
from pfs_core.config.recipes import ChannelsRecipe
from pfs_core.config.spec import Budget, ModelSpec
from pfs_core.data import ImageSplit
from pfs_core.models import build_model
from pfs_core.runtime.device import reuse_memory
from pfs_core.structure.budget_cut import check_reachable


class Start(NamedTuple):
    """A network before any channel is chosen.

    Attributes:
        spec: as the data and the recipe have it.
        model: at the expanded widths, freshly initialised, on the device of the data.
        graph: the channel graph of the unexpanded network.
        widths: the width of every group of ``model``.
        budget: what the structure will be cut to, in MACs where it is one of latency.
    """

    spec: ModelSpec
    model: nn.Module
    graph: ChannelGraph
    widths: dict[str, int]
    budget: Budget

    def key(self, data: ImageSplit, budget: Budget, recipe: ChannelsRecipe, seed: int) -> dict[str, Any]:
        """What a search from here follows from, ``budget`` being the one that was asked for: its checkpoints' key."""
        return {
            "step": "search",
            "model": self.spec.model_dump(mode="json"),
            "recipe": recipe.model_dump(mode="json"),
            "budget": str(budget),
            "seed": seed,
            "split": data.info["fingerprint"],
            "device": data.device.type,
        }


def start(spec: ModelSpec, data: ImageSplit, budget: Budget, recipe: ChannelsRecipe, seed: int) -> Start:
    """Build the network of ``spec`` for the images of ``data``, with weights drawn by ``seed``.

    Raises:
        UserError: the network cannot process the images, or the budget cannot be reached.
    """
    spec = spec.updated(
        {
            "num_classes": data.num_classes,
            "input_shape": data.input_shape,
            "expand": recipe.expand,
            "expand_stream": recipe.expand_stream,
        },
        "model",
    )
    torch.manual_seed(seed)
    model = build_model(spec)
    graph = trace(model, spec.input_shape, recipe.policy, recipe.placement)
    widths = graph.expanded(spec.expand, spec.expand_stream)
    budget = budget.in_macs
    check_reachable(graph, widths, budget)
    model = resize(model, graph, widths).to(data.device)
    if data.device.type == "cpu":
        reuse_memory()
    return Start(spec, model, graph, widths, budget)
