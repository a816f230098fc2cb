"""The input of every method: the network at its expanded widths, its channel graph and the images."""

from collections.abc import Callable
from dataclasses import dataclass, replace
from typing import Any, TypeVar

import torch
from torch import nn

from pfs_core.channels import ChannelGraph, Refuted, resize, trace
from pfs_core.config.spec import Budget, ModelSpec
from pfs_core.data import ImageSplit
from pfs_core.methods.config import MethodConfig
from pfs_core.models import build_model, is_users_own
from pfs_core.models.outputs import check_built_again, check_network
from pfs_core.models.sources import known_by
from pfs_core.runtime.device import resolve_precision, reuse_memory
from pfs_core.runtime.progress import Record, ignore
from pfs_core.structure.budget_cut import check_reachable
from pfs_core.structure.proved import refuted_once
from pfs_core.training.checkpoints import Checkpoints

C = TypeVar("C", bound=MethodConfig)

ADVICE = "a lower search.lr or search.precision=fp32"
"""What may help where what a method learns is no longer finite."""


@dataclass(frozen=True)
class SearchContext:
    """A network before any channel is chosen, and everything a method needs to choose.

    Attributes:
        spec: the network, with the classes and input shape of the images and the expansion of the configuration.
        model: the network at its expanded widths, freshly initialised, on the device of the images.
        graph: the channel graph of the unexpanded network.
        refuted: what the graph said of the network and does not hold; ``graph`` is without it.
        widths: the width of every group of ``model``.
        budget: the budget of the structure; a latency budget is replaced by the same fraction of the MACs, since the
            latency of a structure is only known once extraction has measured this machine.
        data: the images.
        config: the settings of the method.
        seed: the seed of every random choice of the method.
        record: called with every row of the history as soon as it is known.
        checkpoints: the checkpoints of the search, open while the method runs.
    """

    spec: ModelSpec
    model: nn.Module
    graph: ChannelGraph
    refuted: Refuted
    widths: dict[str, int]
    budget: Budget
    data: ImageSplit
    config: MethodConfig
    seed: int
    record: Record
    checkpoints: Checkpoints

    def config_as(self, kind: type[C]) -> C:
        """Return the settings, typed as the configuration of one method."""
        assert isinstance(self.config, kind)
        return self.config

    def drawn(self, seed: int) -> "SearchContext":
        """Return the same with the weights that :func:`search_context` draws by another seed."""
        torch.manual_seed(seed)
        model = resize(build_model(self.spec), self.graph, self.widths).to(self.data.device)
        return replace(self, model=model, seed=seed)


def search_context(
    spec: ModelSpec,
    data: ImageSplit,
    budget: Budget,
    config: MethodConfig,
    seed: int,
    open_checkpoints: Callable[[dict[str, Any]], Checkpoints],
    record: Record = ignore,
) -> SearchContext:
    """Build the network of ``spec`` for the images, with weights drawn by ``seed``.

    Args:
        spec: the network; its classes, input shape and expansion are taken from the images and the configuration.
        data: the images.
        budget: the budget that the user asked for.
        config: the settings of the method.
        seed: the seed of the search.
        open_checkpoints: creates the checkpoints from their key, which holds everything that the result depends on.
        record: called with every row of the history.

    Raises:
        UserError: the network cannot process the images, or the budget cannot be reached.
    """
    spec = spec.updated(
        {
            "num_classes": data.num_classes,
            "input_shape": data.input_shape,
            "expand": config.expand,
            "expand_stream": config.expand_stream,
        },
        "model",
    )
    torch.manual_seed(seed)
    model = build_model(spec)
    check_network(model, spec)
    if is_users_own(spec.name):
        check_built_again(model, spec)
    traced = trace(model, spec.input_shape, config.policy, config.placement)
    # Where the official placement masks channels is not where they can be removed, so that the proof would fail there.
    removable = traced if config.placement == "last" else trace(model, spec.input_shape, config.policy)
    refuted = refuted_once(model, removable)
    graph = refuted.corrected(traced)
    widths = graph.expanded(spec.expand, spec.expand_stream)
    check_reachable(graph, widths, budget)
    model = resize(model, graph, widths).to(data.device)
    if data.device.type == "cpu":
        reuse_memory()
    key = {
        "step": "search",
        "model": spec.model_dump(mode="json"),
        "recipe": config.checkpoint_key(),
        "budget": str(budget),
        "seed": seed,
        "split": data.info.digest,
        "device": data.device.type,
        "precision": resolve_precision(config.precision, data.device),
        "network": known_by(spec, model),
    }
    return SearchContext(
        spec, model, graph, refuted, widths, budget.in_macs, data, config, seed, record, open_checkpoints(key)
    )
