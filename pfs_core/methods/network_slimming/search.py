"""Network Slimming (Liu et al. 2017, "Learning Efficient Convolutional Networks through Network Slimming").

A network is trained with an L1 penalty on the scales of the norms behind its channels; then all scales are sorted
together and the channels of the smallest ones are cut. As with every method here, only prunable groups lose channels.
"""

import logging
from collections.abc import Callable, Mapping
from functools import partial
from typing import Any, NamedTuple

import torch
from torch import Tensor, nn

from pfs_core.channels import ChannelGraph, slice_weights
from pfs_core.channels.elements import ChannelSlice
from pfs_core.config.seed import part_seed
from pfs_core.config.spec import Budget
from pfs_core.errors import UserError
from pfs_core.methods.context import ADVICE, SearchContext
from pfs_core.methods.network_slimming.config import NetworkSlimmingConfig
from pfs_core.methods.result import MethodResult
from pfs_core.runtime.cost import stage_cost
from pfs_core.runtime.progress import Record
from pfs_core.structure.budget_cut import prune_to_budget
from pfs_core.structure.inherited_weights import Trained
from pfs_core.training.checkpoints import CheckpointStage
from pfs_core.training.fit import fit

logger = logging.getLogger(__package__)


def run(context: SearchContext) -> MethodResult:
    """Train and cut ``config.rounds`` times.

    Returns:
        The scales of the last round as gates, which are 0 for channels that were cut in an earlier round.

    Raises:
        UserError: a prunable group has no norm with trained scales behind its channels, or the training diverged.
    """
    config, data = context.config_as(NetworkSlimmingConfig), context.data
    seed, record, checkpoints = context.seed, context.record, context.checkpoints
    model, graph = context.model, context.graph.with_widths(context.widths)
    check_scales(model, graph)
    start_scales(model, graph, config.initial_scale)
    remaining = {group.name: torch.arange(group.gate_count) for group in graph.prunable()}
    state = checkpoints.load()
    first, history, images, validated = 1, [], 0, 0
    if state:
        first, before = state["number"], state["before"]
        history, images, validated = before["history"], before["images"], before["validated"]
        if first > 1:
            model, graph, remaining = _select(model, graph, remaining, before["left"])
            model.load_state_dict(before["weights"])
        for row in history:
            record(row)
    for number in range(first, config.rounds + 1):
        before = {"history": history, "images": images, "validated": validated}
        if number > 1:
            before |= {"left": remaining, "weights": model.state_dict()}
        stage = CheckpointStage(checkpoints, number, before, state["stage"] if state and number == first else None)
        offset = (number - 1) * config.epochs
        fitted = fit(
            model,
            f"search network_slimming {number}/{config.rounds}",
            data,
            config.as_training(),
            config.epochs,
            part_seed(seed, config.rounds, number),
            partial(_record_from, record, offset),
            stage,
            before_step=penalty(model, graph, config.sparsity),
            advice=ADVICE,
        )
        model.load_state_dict(fitted.last)
        history = history + [{**row, "epoch": row["epoch"] + offset} for row in fitted.history]
        images, validated = images + fitted.images, validated + fitted.validated
        gates = _as_gates(scales(model, graph), remaining, context)
        if number < config.rounds:
            fraction = context.budget.fraction(getattr(context.graph.cost(), context.budget.metric))
            goal = Budget(metric=context.budget.metric, target=fraction ** (number / config.rounds))
            widths, _ = prune_to_budget(context.graph, gates, goal, context.widths)
            model, graph, remaining = _select(model, graph, remaining, _largest(gates, widths, context.graph))
            logger.info(f"search network_slimming {number}/{config.rounds} is cut to {goal}")
    cost = {"search": stage_cost(data.device, checkpoints.elapsed(), images + validated, images)}
    gates = {name: scores.clamp(min=0) for name, scores in gates.items()}
    facts = {"validation_accuracy": history[-1]["val_accuracy"], "epochs": len(history)}
    return MethodResult(gates, history, cost, facts, Trained(fitted.last, remaining))


def _record_from(record: Record, offset: int, row: Mapping[str, Any]) -> None:
    """Record a row of a round, with its epoch counted from the first round on."""
    record({**row, "epoch": row["epoch"] + offset})


def check_scales(model: nn.Module, graph: ChannelGraph) -> None:
    """Raise UserError unless every prunable group is gated by norms with scales that are trained."""
    all_penalised = _penalised(model, graph)
    groups_with_scales = {penalised.channels.group for penalised in all_penalised}
    for group in graph.prunable():
        if group.name not in groups_with_scales:
            raise UserError(
                "network_slimming cuts by the scales of BatchNorms or GroupNorms, and none follows the channels of "
                f"{group.name!r}; choose another search.method"
            )
    # Beside a scale that is trained, one that is frozen still keeps its channel from going.
    for penalised in all_penalised:
        if not penalised.scales.requires_grad:
            raise UserError(
                "network_slimming learns the scales of norms, and one behind the channels of "
                f"{penalised.channels.group!r} is frozen (requires_grad is False); choose another search.method"
            )


class _Penalised(NamedTuple):
    """Scales of a norm that gate channels of one prunable group: ``scales[place]``."""

    channels: ChannelSlice
    scales: nn.Parameter
    place: slice


def _penalised(model: nn.Module, graph: ChannelGraph) -> list[_Penalised]:
    """Return all scales that the penalty acts on. A group has several entries where several norms gate it."""
    groups = {group.name: group for group in graph.prunable()}
    widths = graph.widths()
    penalised = []
    for axis in graph.axes:
        if axis.role != "norm" or axis.module in graph.gated_by_output():
            continue
        weight = getattr(model.get_submodule(axis.module), "weight", None)
        if weight is None:
            continue
        for part, place in axis.slices(widths):
            if part.group in groups and axis.module in groups[part.group].gates:
                penalised.append(_Penalised(part, weight, place))
    return penalised


@torch.no_grad()
def start_scales(model: nn.Module, graph: ChannelGraph, value: float) -> None:
    """Set all penalised scales to ``value``."""
    for _, weight, place in _penalised(model, graph):
        weight[place] = value


def penalty(model: nn.Module, graph: ChannelGraph, sparsity: float) -> Callable[[], None]:
    """Return a function that adds the gradient of ``sparsity * |scale|`` to that of each penalised scale.

    It is to be called between the backward pass and the optimiser step.
    """
    penalised = _penalised(model, graph)

    @torch.no_grad()
    def add_gradients() -> None:
        for _, weight, place in penalised:
            if weight.grad is not None:  # as that of a residual branch which this step left out
                weight.grad[place] += sparsity * weight[place].sign()

    return add_gradients


@torch.no_grad()
def scales(model: nn.Module, graph: ChannelGraph) -> dict[str, Tensor]:
    """Return the absolute scale of each gate, as a mean over all scales that belong to it.

    Returns:
        ``{group: float32 [gates]}`` for each prunable group.
    """
    by_group: dict[str, list[Tensor]] = {group.name: [] for group in graph.prunable()}
    for channels, weight, place in _penalised(model, graph):
        group = graph.group(channels.group)
        by_block = weight[place].abs().float().cpu().view(-1, group.gate_count, group.unit * channels.repeat)
        by_group[group.name].append(by_block.mean((0, 2)))
    return {name: torch.stack(norms).mean(0) for name, norms in by_group.items()}


def _as_gates(
    scores: Mapping[str, Tensor], remaining: Mapping[str, Tensor], context: SearchContext
) -> dict[str, Tensor]:
    """Return gates for all channels of the expanded network: the scores, divided by the largest one.

    Args:
        scores: the score of each remaining channel.
        remaining: the positions of the remaining channels in the expanded network.
        context: what the method started from.
    """
    largest = max(float(part.max()) for part in scores.values()) or 1.0
    gates = {}
    for group in context.graph.prunable():
        # Channels that were cut before get -1: the next cut sorts them behind all others, even those with a scale of 0.
        gates[group.name] = torch.full((context.widths[group.name] // group.per_gate,), -1.0)
        gates[group.name][remaining[group.name]] = scores[group.name] / largest
    return gates


def _largest(gates: Mapping[str, Tensor], widths: Mapping[str, int], graph: ChannelGraph) -> dict[str, Tensor]:
    """Return the sorted positions of the gates that a cut to ``widths`` keeps."""
    positions = {}
    for group in graph.prunable():
        count = widths[group.name] // group.per_gate
        positions[group.name] = gates[group.name].argsort(descending=True, stable=True)[:count].sort().values
    return positions


def _select(
    model: nn.Module, graph: ChannelGraph, remaining: Mapping[str, Tensor], selected: Mapping[str, Tensor]
) -> tuple[nn.Module, ChannelGraph, dict[str, Tensor]]:
    """Cut all channels but the selected ones.

    Args:
        model: the network.
        graph: the channel graph of the network.
        remaining: sorted positions of its channels in the expanded network, ``{group: int64 [n]}``.
        selected: those of the positions to keep.

    Returns:
        The smaller network, its channel graph, and the positions that remain.
    """
    indices = {name: torch.searchsorted(remaining[name], positions) for name, positions in selected.items()}
    widths = {name: len(part) * graph.group(name).per_gate for name, part in selected.items()}
    return slice_weights(model, graph, indices), graph.with_widths(graph.widths() | widths), dict(selected)
