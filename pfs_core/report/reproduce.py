"""The commands that make a run again, step by step, from what its folders say."""

import json
import shlex
from collections.abc import Mapping
from typing import Any

from pfs_core.config.recipes import default_recipe, recipe
from pfs_core.config.spec import Config
from pfs_core.methods.registry import method_config
from pfs_core.report.results import Results


def commands(results: Results) -> list[str]:
    """One line per step; settings are named where they are not the default ones of the dataset."""
    split, search = results.split, results.search
    pruned = results.structure
    defaults = recipe(default_recipe(split.dataset))
    usual = defaults.model_dump(mode="json")
    usual["search"] = method_config(defaults, {"method": search.method}).model_dump(mode="json")
    model = [f"--set=model.{key}={_text(value)}" for key, value in results.spec.kwargs.items()]
    method = [f"--method={search.method}"] if search.method != "pfs" else []
    extract = {key: pruned.chosen_by[key] for key in ("channel_multiple", "floor")} | {"blocks": pruned.block}
    if model_of := pruned.provenance.get("latency_model"):
        extract |= {key: model_of[key] for key in ("runtime", "threads")}
    lines = [
        ["pfs", "split", split.dataset, "split", *_seed(split.seed), *_changes("split", split.config, usual)],
        [
            *("pfs", "search", "--model", results.spec.name, "--split", "split", "--budget", search.budget),
            *("gates", *_seed(search.seed), *model, *method, *_changes("search", search.config, usual)),
        ],
        [
            "pfs",
            "extract",
            "--gates",
            "gates",
            "--budget",
            str(pruned.target_budget),
            "structures",
            *_changes("extract", extract, usual),
        ],
    ]
    for name, trained in results.metrics.items():
        file = f"structures/{'structure' if name == 'pruned' else name}.json"
        lines.append(
            [
                *("pfs", "retrain", "--structure", file, "--split", "split", f"model-{name}"),
                *(*_seed(trained.seed), *_changes("retrain", trained.config, usual)),
            ]
        )
    measured = [name for name in results.latency.models if name in ("pruned", "uniform")]
    files = [f"--structure=structures/{'structure' if name == 'pruned' else name}.json" for name in measured]
    latency = _changes("latency", results.latency.config, usual)
    lines.append(["pfs", "benchmark", *files, "latency", *_seed(results.latency.seed), *latency])
    lines.append(["pfs", "report", ".", "report"])
    return [shlex.join(line) for line in lines]


def _changes(stage: str, settings: Config | Mapping[str, Any], usual: Mapping[str, Any]) -> list[str]:
    given = settings.model_dump(mode="json") if isinstance(settings, Config) else settings
    return [f"--set={stage}.{k}={_text(v)}" for k, v in given.items() if k in usual[stage] and v != usual[stage][k]]


def _seed(seed: int) -> list[str]:
    return [f"--seed={seed}"] if seed else []


def _text(value: Any) -> str:
    return value if isinstance(value, str) else json.dumps(value, separators=(",", ":"))
