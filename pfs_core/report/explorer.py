"""The budget explorer of the report: the gates of the run cut at every budget, for a slider to choose from."""

from collections.abc import Mapping
from typing import Any

from pfs_core.channels import ChannelGraph
from pfs_core.report.reproduce import extract_command, retrain_command
from pfs_core.report.results import Results
from pfs_core.structure import unexpanded_graph
from pfs_core.structure.budget_cut import CostModel, closed_form
from pfs_core.structure.cut_rules import CutRules
from pfs_core.structure.every_budget import cut_at_every_percent

PLACE = "{budget}"
"""Stands for the budget in the commands."""


def explorer(results: Results) -> dict[str, Any]:
    """What the page's script draws from: a cut for every whole percent of every metric, made by the extraction's code.

    Returns:
        ``groups``, the prunable ones, with their ``dense`` widths and the ``widest``, which were searched over;
        ``metrics``, and in their order the unexpanded network's costs (``reference``) and those of every cut
        (``cuts``, with the widths of the groups); ``at``, of each metric the smallest percent that can be reached, and
        the positions in ``cuts`` of this percent and of each one above, without metrics in which none can; ``start``,
        the metric and percent of the run's own budget; ``commands``, in which ``PLACE`` stands for the budget.
    """
    graph = _graph(results)
    models = _cost_models(results, graph)
    groups = [group.name for group in graph.prunable()]
    chosen, expanded = results.structure.chosen_by, graph.expanded(results.spec.expand, results.spec.expand_stream)
    rules = CutRules(chosen["channel_multiple"], chosen["floor"], results.structure.block)
    cuts: dict[tuple[int, ...], list[float]] = {}
    at: dict[str, tuple[int, list[int]]] = {}
    for metric, model in models.items():
        found = cut_at_every_percent(graph, results.gates, expanded, metric, rules, model)
        for widths in found.values():
            cuts.setdefault(_kept(groups, widths), [_rounded(known.cost(widths)) for known in models.values()])
        places = {kept: place for place, kept in enumerate(cuts)}
        if found:
            at[metric] = min(found), [places[_kept(groups, widths)] for widths in found.values()]
    budget = results.structure.budget
    model = models[budget.metric]
    percent = round(100 * results.structure.target_budget.fraction(model.dense))
    return {
        "groups": groups,
        "dense": [graph.group(name).width for name in groups],
        "widest": [expanded[name] for name in groups],
        "metrics": list(models),
        "reference": [_rounded(model.dense) for model in models.values()],
        "cuts": [[costs, list(kept)] for kept, costs in cuts.items()],
        "at": at,
        "start": [budget.metric, max(percent, at[budget.metric][0])],
        "commands": [
            extract_command(results, PLACE, f"structures-{PLACE}"),
            retrain_command(results, "pruned", f"structures-{PLACE}", f"model-{PLACE}"),
        ],
    }


def _graph(results: Results) -> ChannelGraph:
    """The graph that the run was extracted with."""
    search = results.search
    return search.refuted.corrected(unexpanded_graph(search.model, search.config.policy, search.config.placement))


def _cost_models(results: Results, graph: ChannelGraph) -> dict[str, CostModel]:
    models = {metric: closed_form(graph, metric) for metric in ("macs", "params")}
    return {**models, **({"latency": results.latency_model.cost_model(graph)} if results.latency_model else {})}


def _kept(groups: list[str], widths: Mapping[str, int]) -> tuple[int, ...]:
    return tuple(widths[name] for name in groups)


def _rounded(cost: float) -> float:
    """Whole numbers as they are, milliseconds with four decimals."""
    return round(cost, 4)
