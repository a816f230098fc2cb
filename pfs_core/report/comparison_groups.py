"""Which runs of a comparison are seeds of each other, and what the runs are called."""

from collections.abc import Mapping, Sequence
from dataclasses import replace
from typing import Any

from pfs_core.errors import UserError
from pfs_core.report.results import RUNTIME_NAMES, Results


def grouped(runs: Sequence[Results]) -> tuple[str, dict[str, list[Results]]]:
    """What the runs differ in (``budget``, ``method`` or ``network``), and the runs by what they are called.

    Where the runs of one budget and method were chosen with several settings, the names say in which these differ;
    where runs were split or trained with several, the names of all runs do.

    Raises:
        UserError: two runs differ in nothing.
    """
    keys = [(results.search.method, str(results.structure.target_budget)) for results in runs]
    methods, budgets = {method for method, _ in keys}, {budget for _, budget in keys}
    kind = "budget" if len(methods) == 1 else "method" if len(budgets) == 1 else "network"
    choices = [_choice(results) for results in runs]
    trainings = [_training(results, "pruned") for results in runs]
    groups: dict[str, list[Results]] = {}
    for (method, budget), choice, training, results in zip(keys, choices, trainings, runs, strict=True):
        name = {"budget": budget, "method": method, "network": f"{method} {budget}"}[kind]
        alike = [other for other, key in zip(choices, keys, strict=True) if key == (method, budget)]
        parts = [name, *_differing(choice, alike), *_differing(training, trainings)]
        groups.setdefault(", ".join(parts), []).append(results)
    for name, group in groups.items():
        seeds = [results.pruned.seed for results in group]
        seed = max(seeds, key=seeds.count)
        same = [str(results.model_dir.parent) for results in group if results.pruned.seed == seed]
        if len(same) > 1:
            raise UserError(f"{len(same)} runs are of {name} and seed {seed}; give one of {', '.join(same)}")
    return kind, groups


def trained_alike(runs: Sequence[Results], network: str) -> dict[str, list[Results]]:
    """The runs by the settings of the split and of the training of ``network`` in which they differ, in words.

    Where they differ in none, all are under the empty text.
    """
    trainings = [_training(results, network) for results in runs]
    groups: dict[str, list[Results]] = {}
    for training, results in zip(trainings, runs, strict=True):
        groups.setdefault(", ".join(_differing(training, trainings)), []).append(results)
    return groups


def quoting_alike(runs: Sequence[Results]) -> list[Results]:
    """The runs, each quoting the first of the first run's measurements that all of them have.

    Raises:
        UserError: there is no such measurement.
    """
    first, *others = runs
    for way in first.latency.measurements:
        quoted = [results.latency.quoting(way) for results in runs]
        if all(quoted):
            return [replace(results, latency=latency) for results, latency in zip(runs, quoted, strict=True) if latency]
    lacking = next(results for results in others if not results.latency.quoting(first.quoted))
    raise UserError(
        f"latencies cannot be compared: {first.title} was measured in {_way(first)}, {lacking.title} in "
        f"{_way(lacking)}; benchmark them with the same latency settings"
    )


def _way(results: Results) -> str:
    quoted = results.quoted
    return f"{RUNTIME_NAMES[quoted.runtime]}, batch {quoted.batch}, {quoted.threads} thread(s)"


def _choice(results: Results) -> dict[str, Any]:
    """All settings that the widths of a pruned network follow from, but for the seed."""
    chosen_by, provenance = results.structure.chosen_by, results.structure.provenance
    extract = provenance.get("settings") or {key: chosen_by.get(key) for key in ("channel_multiple", "floor")}
    if asked := provenance.get("latency_model"):  # where a latency was asked for, whatever the settings left open
        extract = {**extract, "runtime": asked["runtime"], "threads": asked["threads"]}
    return _named(search=results.search.config.model_dump(mode="json"), extract=extract)


def _training(results: Results, network: str) -> dict[str, Any]:
    """All settings that the accuracy of a network of given widths follows from, but for the seed."""
    split, retrain = results.split.config, results.metrics[network].config
    return _named(split=split.model_dump(mode="json"), retrain=retrain.model_dump(mode="json"))


def _named(**stages: Mapping[str, Any]) -> dict[str, Any]:
    return {f"{stage}.{key}": value for stage, settings in stages.items() for key, value in settings.items()}


def _differing(own: Mapping[str, Any], others: Sequence[Mapping[str, Any]]) -> list[str]:
    """Those of ``own`` settings that have another value elsewhere, as users write them."""
    return [f"{key}={value}" for key, value in own.items() if any(other.get(key) != value for other in others)]
