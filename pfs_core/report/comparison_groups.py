"""Which runs of a comparison are seeds of each other, and what the runs are called."""

from collections.abc import Sequence
from dataclasses import replace
from typing import Any

from pfs_core.errors import UserError
from pfs_core.report.results import RUNTIME_NAMES, Results


def grouped(runs: Sequence[Results]) -> tuple[str, dict[str, list[Results]]]:
    """What the runs differ in (``budget``, ``method`` or ``network``), and the runs by what they are called.

    Where runs of one budget and method were made with several settings, the names say in which these differ.

    Raises:
        UserError: two runs differ in nothing.
    """
    keys = [(results.search.method, str(results.structure.target_budget)) for results in runs]
    methods, budgets = {method for method, _ in keys}, {budget for _, budget in keys}
    kind = "budget" if len(methods) == 1 else "method" if len(budgets) == 1 else "network"
    groups: dict[str, list[Results]] = {}
    for (method, budget), results in zip(keys, runs, strict=True):
        name = {"budget": budget, "method": method, "network": f"{method} {budget}"}[kind]
        alike = [_settings(other) for other, key in zip(runs, keys, strict=True) if key == (method, budget)]
        own = _settings(results)
        differing = [setting for setting in own if any(other.get(setting) != own[setting] for other in alike)]
        groups.setdefault(", ".join([name, *(f"{s}={own[s]}" for s in differing)]), []).append(results)
    for name, group in groups.items():
        seeds = [results.pruned.seed for results in group]
        if len(set(seeds)) < len(seeds):
            raise UserError(f"two runs are of {name} and seed {max(seeds, key=seeds.count)}; give one of them")
    return kind, groups


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


def _settings(results: Results) -> dict[str, Any]:
    """All settings that a pruned network and its accuracy follow from, but for the seed."""
    chosen_by, provenance = results.structure.chosen_by, results.structure.provenance
    extract = provenance.get("settings") or {key: chosen_by.get(key) for key in ("channel_multiple", "floor")}
    if asked := provenance.get("latency_model"):  # where a latency was asked for, whatever the settings left open
        extract = {**extract, "runtime": asked["runtime"], "threads": asked["threads"]}
    stages = {
        "search": results.search.config.model_dump(mode="json"),
        "retrain": results.pruned.config.model_dump(mode="json"),
        "extract": extract,
    }
    return {f"{stage}.{key}": value for stage, settings in stages.items() for key, value in settings.items()}
