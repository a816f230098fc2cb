"""The commands that make a run again, step by step, from what its folders say."""

import contextlib
import json
import shlex
from collections.abc import Mapping
from typing import Any

from pfs_core.config.overrides import parse_value
from pfs_core.config.recipes import default_recipe, recipe
from pfs_core.config.spec import Config
from pfs_core.errors import UserError
from pfs_core.methods.registry import method_config
from pfs_core.report.results import Results


def commands(results: Results) -> list[str]:
    """One line per step; settings are named where they are not the default ones of the dataset."""
    split, search, usual = results.split, results.search, _usual(results)
    model = [f"--set=model.{key}={_text(value)}" for key, value in results.spec.kwargs.items()]
    method = [f"--method={search.method}"] if search.method != "pfs" else []
    measured = [name for name in results.latency.models if name in ("pruned", "uniform")]
    files = [f"--structure={_file('structures', name)}" for name in measured]
    latency = _changes("latency", results.latency.config, usual)
    split_line = ["pfs", "split", split.dataset, "split", *_seed(split.seed), *_changes("split", split.config, usual)]
    search_line = [
        *("pfs", "search", "--model", results.spec.name, "--split", "split", "--budget", search.budget),
        *("gates", *_seed(search.seed), *model, *method, *_changes("search", search.config, usual)),
    ]
    return [
        shlex.join(split_line),
        shlex.join(search_line),
        extract_command(results, str(results.structure.target_budget), "structures"),
        *(retrain_command(results, name, "structures", f"model-{name}") for name in results.metrics),
        shlex.join(["pfs", "benchmark", *files, "latency", *_seed(results.latency.seed), *latency]),
        "pfs report . report",
    ]


def extract_command(results: Results, budget: str, out: str) -> str:
    """The command that cuts the gates of the run at a budget as the run did."""
    pruned = results.structure
    settings = {key: pruned.chosen_by[key] for key in ("channel_multiple", "floor")} | {"blocks": pruned.block}
    if model_of := pruned.provenance.get("latency_model"):
        settings |= {key: model_of[key] for key in ("runtime", "threads")}
    changes = _changes("extract", settings, _usual(results))
    return " ".join(["pfs extract --gates gates --budget", budget, out, *map(shlex.quote, changes)])


def retrain_command(results: Results, network: str, structures: str, out: str) -> str:
    """The command that trains a network of a ``structures`` folder as the run trained the one of this name."""
    trained = results.metrics[network]
    options = [*_seed(trained.seed), *_changes("retrain", trained.config, _usual(results))]
    return " ".join(
        ["pfs retrain --structure", _file(structures, network), "--split split", out, *map(shlex.quote, options)]
    )


def _usual(results: Results) -> dict[str, Any]:
    """The default settings of every stage for the dataset and the method of the run."""
    defaults = recipe(default_recipe(results.split.dataset))
    usual = defaults.model_dump(mode="json")
    usual["search"] = method_config(defaults, {"method": results.search.method}).model_dump(mode="json")
    return usual


def _file(structures: str, network: str) -> str:
    return f"{structures}/{'structure' if network == 'pruned' else network}.json"


def _changes(stage: str, settings: Config | Mapping[str, Any], usual: Mapping[str, Any]) -> list[str]:
    given = settings.model_dump(mode="json") if isinstance(settings, Config) else settings
    return [f"--set={stage}.{k}={_text(v)}" for k, v in given.items() if k in usual[stage] and v != usual[stage][k]]


def _seed(seed: int) -> list[str]:
    return [f"--seed={seed}"] if seed else []


def _text(value: Any) -> str:
    """Return a value as ``--set`` reads it; a text is in quotes where it would be read as something else."""
    with contextlib.suppress(UserError):
        if isinstance(value, str) and parse_value(value) == value:
            return value
    return json.dumps(value, separators=(",", ":"))
