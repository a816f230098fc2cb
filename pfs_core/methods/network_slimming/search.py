"""Network Slimming (Liu et al. 2017, "Learning Efficient Convolutional Networks through Network Slimming").

A network is trained with an L1 penalty on the scales of the BatchNorms behind its channels; then all scales are sorted
together and the smallest are cut. As everywhere in this project only prunable groups lose channels.
"""

from collections.abc import Callable, Mapping
from functools import partial
from typing import Any

import torch
from torch import Tensor, nn

from pfs_core.channels import ChannelGraph, slice_weights
from pfs_core.config.spec import Budget
from pfs_core.errors import UserError
from pfs_core.methods.context import SearchContext
from pfs_core.methods.network_slimming.config import NetworkSlimmingConfig
from pfs_core.methods.result import MethodResult
from pfs_core.runtime.cost import stage_cost
from pfs_core.runtime.progress import Record, say
from pfs_core.structure.budget_cut import prune_to_budget
from pfs_core.structure.inherited_weights import Trained
from pfs_core.training.checkpoints import CheckpointStage
from pfs_core.training.fit import fit

ADVICE = "a lower search.lr or search.precision=fp32"


def run(context: SearchContext) -> MethodResult:
    """Train and cut ``config.rounds`` times; the gates are the scales of the last round, and 0 where cut before.

    Raises:
        UserError: a prunable group has no BatchNorm behind its channels, or the training diverged.
    """
    config, data = context.config_as(NetworkSlimmingConfig), context.data
    seed, record, checkpoints = context.seed, context.record, context.checkpoints
    model, graph = context.model, context.graph.with_widths(context.widths)
    check_scales(model, graph)
    start_scales(model, graph, config.initial_scale)
    left = {group.name: torch.arange(group.gate_count) for group in graph.prunable()}
    state = checkpoints.load()
    number, history, images, validated = 1, [], 0, 0
    if state:
        number, before = state["number"], state["before"]
        history, images, validated = before["history"], before["images"], before["validated"]
        if number > 1:
            model, graph, left = _sliced(model, graph, left, before["left"])
            model.load_state_dict(before["weights"])
    for each in range(number, config.rounds + 1):
        before = {"history": history, "images": images, "validated": validated}
        before |= {"left": left, "weights": model.state_dict()} if each > 1 else {}
        stage = CheckpointStage(checkpoints, each, before, state["stage"] if state and each == number else None)
        offset = (each - 1) * config.epochs
        for row in history if each == number else ():
            record(row)
        fitted = fit(
            model,
            f"search network_slimming {each}/{config.rounds}",
            data,
            config.as_training(),
            config.epochs,
            seed + each - 1,
            partial(_record_from, record, offset),
            stage,
            before_step=penalty(model, graph, config.sparsity),
            advice=ADVICE,
        )
        model.load_state_dict(fitted.last)
        history = history + [{**row, "epoch": row["epoch"] + offset} for row in fitted.history]
        images, validated = images + fitted.images, validated + fitted.validated
        gates = _scattered(scales(model, graph), left, context)
        if each < config.rounds:
            fraction = context.budget.fraction(getattr(context.graph.cost(), context.budget.metric))
            goal = Budget(metric=context.budget.metric, target=fraction ** (each / config.rounds))
            widths, _ = prune_to_budget(context.graph, gates, goal, context.widths)
            model, graph, left = _sliced(model, graph, left, _largest(gates, widths, context.graph))
            say(f"search network_slimming {each}/{config.rounds} is cut to {goal}")
    spent = {"search": stage_cost(data.device, checkpoints.elapsed(), images + validated, images)}
    gates = {name: scores.clamp(min=0) for name, scores in gates.items()}
    facts = {"validation_accuracy": history[-1]["val_accuracy"], "epochs": len(history)}
    return MethodResult(gates, history, spent, facts, Trained(fitted.last, left))


def _record_from(record: Record, offset: int, row: Mapping[str, Any]) -> None:
    record({**row, "epoch": row["epoch"] + offset})


def check_scales(model: nn.Module, graph: ChannelGraph) -> None:
    """Raise UserError unless every prunable group has a BatchNorm with scales among its gates."""
    found = {group for group, _, _ in _pieces(model, graph)}
    for group in graph.prunable():
        if group.name not in found:
            raise UserError(
                f"network_slimming cuts by the scales of BatchNorms, and none follows the channels of {group.name!r}; "
                "choose another search.method"
            )


def _pieces(model: nn.Module, graph: ChannelGraph) -> list[tuple[str, nn.Parameter, slice]]:
    """``(group, scales, which of them)`` for each stretch of BatchNorm scales that gates a prunable group."""
    groups = {group.name: group for group in graph.prunable()}
    widths, found = graph.widths(), []
    for axis in graph.axes:
        scale = getattr(model.get_submodule(axis.module), "weight", None) if axis.role == "norm" else None
        first = 0
        for name, repeat in axis.segments:
            last = first + widths[name] * repeat
            if scale is not None and name in groups and axis.module in groups[name].gates:
                found.append((name, scale, slice(first, last)))
            first = last
    return found


@torch.no_grad()
def start_scales(model: nn.Module, graph: ChannelGraph, value: float) -> None:
    """Set all penalised scales to ``value``."""
    for _, scale, part in _pieces(model, graph):
        scale[part] = value


def penalty(model: nn.Module, graph: ChannelGraph, sparsity: float) -> Callable[[], None]:
    """What adds ``sparsity * sign(scale)`` to the gradient of each penalised scale."""
    pieces = _pieces(model, graph)

    @torch.no_grad()
    def add() -> None:
        for _, scale, part in pieces:
            assert scale.grad is not None
            scale.grad[part] += sparsity * scale[part].sign()

    return add


@torch.no_grad()
def scales(model: nn.Module, graph: ChannelGraph) -> dict[str, Tensor]:
    """The size of the scales of each prunable group, float32 [gates]: the mean over all that belong to a gate."""
    found: dict[str, list[Tensor]] = {group.name: [] for group in graph.prunable()}
    for name, scale, part in _pieces(model, graph):
        group = graph.group(name)
        sizes = scale[part].abs().float().cpu().view(group.width, -1).mean(1)
        found[name].append(sizes.view(group.blocks, group.gate_count).mean(0))
    return {name: torch.stack(parts).mean(0) for name, parts in found.items()}


def _scattered(scores: Mapping[str, Tensor], left: Mapping[str, Tensor], context: SearchContext) -> dict[str, Tensor]:
    """Scores of the channels that are left, in [0, 1], among those that are cut, with -1."""
    largest = max(float(part.max()) for part in scores.values()) or 1.0
    gates = {}
    for group in context.graph.prunable():
        gates[group.name] = torch.full((context.widths[group.name] // group.blocks,), -1.0)
        gates[group.name][left[group.name]] = scores[group.name] / largest
    return gates


def _largest(gates: Mapping[str, Tensor], widths: Mapping[str, int], graph: ChannelGraph) -> dict[str, Tensor]:
    """Sorted positions of the gates that a cut to ``widths`` keeps."""
    counts = {group.name: widths[group.name] // group.blocks for group in graph.prunable()}
    return {
        name: gates[name].argsort(descending=True, stable=True)[:count].sort().values for name, count in counts.items()
    }


def _sliced(
    model: nn.Module, graph: ChannelGraph, left: Mapping[str, Tensor], wanted: Mapping[str, Tensor]
) -> tuple[nn.Module, ChannelGraph, dict[str, Tensor]]:
    """The network, its graph and the positions left, once only the ``wanted`` positions are."""
    places = {name: torch.searchsorted(left[name], positions) for name, positions in wanted.items()}
    widths = {name: len(part) * graph.group(name).blocks for name, part in wanted.items()}
    return slice_weights(model, graph, places), graph.with_widths(graph.widths() | widths), dict(wanted)
