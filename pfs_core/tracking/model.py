"""A network in the registry: MLflow's safe ``pt2`` format, which loads without this package."""

import json
import re
import tempfile
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any

CARD, EXAMPLE = "README.md", "example_output.json"
NEWEST = "newest"
"""Alias of the last version of a registered network."""


def log_model(
    run: str, experiment: str, network: Any, example: Any, name: str, card: str, files: Sequence[str | Path]
) -> str:
    """Log a network as an output of a run and register it.

    Beside the network, ``extra_files/`` holds the card as ``README.md``, the network's output for the input example as
    ``example_output.json``, and ``files``.

    Args:
        run: the id of the run.
        experiment: the id of its experiment.
        network: an ``nn.Module``.
        example: a batch of inputs, an array [N, C, H, W].
        name: the name of the registered model.
        card: the model card, in Markdown.
        files: further files to store with the network.

    Returns:
        Its version.
    """
    import mlflow
    import torch
    from mlflow.models import Model, ModelSignature
    from mlflow.types import Schema, TensorSpec

    with torch.no_grad():
        output = network(torch.from_numpy(example)).numpy()
    signature = ModelSignature(
        inputs=Schema([TensorSpec(example.dtype, (-1, *example.shape[1:]))]),
        outputs=Schema([TensorSpec(output.dtype, (-1, *output.shape[1:]))]),
    )
    mlflow.set_experiment(experiment_id=experiment)  # where MLflow puts the model, whose run it asks about later
    with tempfile.TemporaryDirectory() as folder:
        beside = [Path(folder) / CARD, Path(folder) / EXAMPLE]
        beside[0].write_text(card, encoding="utf-8")
        beside[1].write_text(json.dumps(output.tolist()), encoding="utf-8")
        info = Model.log(
            artifact_path=None,
            name="model",
            flavor=mlflow.pytorch,
            run_id=run,
            registered_model_name=name,
            pytorch_model=network,
            input_example=example,
            signature=signature,
            serialization_format="pt2",
            pip_requirements=[f"torch=={torch.__version__.split('+')[0]}", "numpy"],
            extra_files=[str(path) for path in (*beside, *files)],
        )
    return str(info.registered_model_version)


def registered_by(runs: Iterable[str], name: str) -> str:
    """Return the last version of a network that one of some runs registered; empty if none did, or it is gone."""
    from mlflow import MlflowClient

    found = [version for run in runs for version in MlflowClient().search_model_versions(f"run_id = '{run}'")]
    versions = [int(version.version) for version in found if version.name == name and version.status == "READY"]
    return str(max(versions)) if versions else ""


def describe(name: str, version: str, card: str, tags: Mapping[str, Any]) -> None:
    """Give a registered version its description, of which MLflow keeps 5,000 characters, its tags and aliases.

    The aliases are ``newest`` and the budget among the tags, e.g. ``macs-0-5``.
    """
    from mlflow import MlflowClient

    client = MlflowClient()
    client.update_model_version(name, version, description=card[:5000])
    for key, value in tags.items():
        client.set_model_version_tag(name, version, f"pfs.{key}", str(value))
    for alias in (NEWEST, alias_of(str(tags.get("budget", "")))):
        if alias:
            move_alias(name, alias, version)


def move_alias(name: str, alias: str, version: str) -> None:
    """Move an alias of a registered model to a version, unless it is at a newer one."""
    from mlflow import MlflowClient

    client = MlflowClient()
    if int(version) >= int(client.get_registered_model(name).aliases.get(alias, 0)):
        client.set_registered_model_alias(name, alias, version)


def alias_of(budget: str) -> str:
    """Return the alias of the last version that was cut to a budget.

    >>> alias_of("macs=0.5")
    'macs-0-5'
    """
    return re.sub(r"\W+", "-", budget)
