"""The pipeline on this machine: ``kfp.local`` runs the same definition that is compiled for a cluster.

Run as ``python -m pipelines.local REQUEST.json`` in a process of its own, whose output is the full log; see
:mod:`pipelines.run` for what the user sees.
"""

import json
import signal
import sys
from pathlib import Path
from typing import Any

from pfs_core.errors import UserError
from pfs_core.files import read_json, write_json
from pfs_core.progress import say, user_errors


def check(arguments: dict[str, Any], root: Path) -> None:
    """Raise UserError for what is wrong with the pipeline's arguments before anything is started."""
    from pfs_core.data.source import check_dataset
    from pfs_core.extraction import FILES
    from pfs_core.models import build_model
    from pfs_core.recipes import default_recipe, recipe
    from pfs_core.spec import Budget, ModelSpec
    from pfs_core.steps import STAGES

    if "python3" in json.dumps([arguments, str(root)]):
        raise UserError("kfp's local runner rewrites the word python3 in settings and paths; use others without it")
    config = recipe(arguments["recipe"] or default_recipe(arguments["dataset"]))
    for stage in STAGES:
        config.stage(stage, arguments[f"{stage}_settings"])
    Budget.from_text(arguments["budget"])
    build_model(ModelSpec(name=arguments["model"], kwargs=arguments["model_settings"]))
    check_dataset(arguments["dataset"])
    for network in arguments["networks"]:
        if network not in FILES:
            raise UserError(f"unknown network {network!r} to train; known: {', '.join(FILES)}")


def run(arguments: dict[str, Any], root: Path, artifact_root: Path) -> None:
    """Run the pipeline below ``root`` and write ``root/outputs.json``: the folder of each result."""
    from kfp import local

    from pfs_core import tracking
    from pipelines.compress import define

    parent = tracking.open_pipeline(arguments, artifact_root)
    succeeded = False
    try:
        local.init(local.SubprocessRunner(use_venv=False), pipeline_root=str(root))
        task = define(parallelism=1)(**arguments)  # one training at a time has the cores to itself
        outputs = {name: artifact.path for name, artifact in task.outputs.items()}
        for metrics in sorted(root.rglob("metrics.json")):
            outputs[f"model-{read_json(metrics)['network']}"] = str(metrics.parent)
        write_json(root / "outputs.json", outputs)
        succeeded = True
    finally:
        tracking.close_pipeline(parent, succeeded)


def main() -> None:
    """Read the request, check it and run it; SIGTERM ends it with its runs in MLflow closed."""
    signal.signal(signal.SIGTERM, lambda number, frame: sys.exit(128 + number))
    request = read_json(sys.argv[1])
    with user_errors():
        check(request["arguments"], Path(request["root"]))
        arguments = request["arguments"]
        say("compress {model} on {dataset} to {budget}, recipe {recipe}, seed {seed}".format_map(arguments))
        say(f"full log: {request['log']}")
    run(request["arguments"], Path(request["root"]), Path(request["artifact_root"]))


if __name__ == "__main__":
    main()
