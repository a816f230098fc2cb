"""Where a run says nothing of its search: the search chose nothing of its own, or the networks learned nothing."""

from pfs_core.report.results import Results
from pfs_core.structure import Structure

_MOSTLY = 0.6


def search_doubts(results: Results) -> list[str]:
    """Return a line for each reason why the run says nothing of its search."""
    return [*([] if results.search.method == "uniform" else _of_the_choice(results)), *_of_the_accuracies(results)]


def _of_the_choice(results: Results) -> list[str]:
    lines = []
    pruned, uniform = results.structures["pruned"], results.structures["uniform"]
    if pruned.widths == results.structures["dense"].widths:
        return ["The budget leaves the dense network whole, so there was nothing to choose: ask for less."]
    if pruned.widths == uniform.widths:
        lines.append(f"The search made no difference: its widths are those of the uniform network.{_longer(results)}")
    if (fixed := not_searched(pruned)) > _MOSTLY:
        left_streams = pruned.policy == "inner" and any(g.stream and g.resizable for g in pruned.graph().groups)
        more = ", or --set search.policy=all, which prunes residual streams too" if left_streams else ""
        lines.append(
            f"{fixed:.0%} of the MACs left are in layers that were not searched, so it had little to choose from: "
            f"try a larger budget{more}."
        )
    return lines


def _longer(results: Results) -> str:
    """How to search for longer, where the method has a setting for it."""
    known = type(results.search.config).model_fields
    unit = next((unit for unit in ("episodes", "epochs") if unit in known), None)
    return f" More {unit} of it may help: --set search.{unit}=N." if unit else ""


def _of_the_accuracies(results: Results) -> list[str]:
    chance = max(results.split.rows_per_class.get("test", [0])) / max(1, results.split.rows["test"])
    name, judged = ("dense", results.dense) if results.dense else ("pruned", results.pruned)
    if judged.test_accuracy_interval[0] > chance:
        return []
    compare = ", so accuracies do not compare" if results.dense else ""
    return [
        f"The {name} network has learned nothing (accuracy {judged.test_accuracy:.1%}, and {chance:.1%} by always "
        f"naming the most frequent class){compare}: train for longer, --set retrain.epochs=N."
    ]


def not_searched(structure: Structure) -> float:
    """Return the share of the MACs that would remain if every group that was searched had its fewest channels."""
    graph = structure.graph()
    widths = {group.name: group.per_gate if group.prunable else structure.widths[group.name] for group in graph.groups}
    return graph.cost(widths).macs / structure.cost.macs
