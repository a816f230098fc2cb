"""Pipeline packages: the YAML that the Kubeflow UI and its API take."""

import hashlib
from collections.abc import Callable
from pathlib import Path
from typing import Any

import yaml
from kfp import compiler
from pfs_pipelines import compare, compress, compress_new_models, pareto
from pfs_pipelines.pools import Placement

import pfs_core
from pfs_core.config.recipes import RECIPES

PIPELINES: dict[str, Callable[[Placement], Any]] = {
    "compress": compress.define,
    "pareto": pareto.define,
    "compare": compare.define,
    "compress_new_models": compress_new_models.define,
}
CHOICES = {"recipe": ["", *RECIPES]}
"""Parameters that have no other values than these, for :func:`add_drop_downs`: Kubeflow then refuses all others."""


def compile_all(folder: Path, place: Placement = Placement(), drop_downs: bool = False) -> list[Path]:
    """Compile every pipeline into ``folder``; returns the files.

    Args:
        folder: made if it is not there.
        place: where steps run.
        drop_downs: offer ``CHOICES`` as drop-downs in the UI.
    """
    folder.mkdir(parents=True, exist_ok=True)
    return [compile_one(name, folder / f"{name}.yaml", place, drop_downs) for name in PIPELINES]


def compile_one(name: str, path: Path, place: Placement = Placement(), drop_downs: bool = False) -> Path:
    """Compile a pipeline into a file; the same pipeline gives the same bytes."""
    aside = path.with_name(f".{path.stem}.partial.yaml")
    compiler.Compiler().compile(PIPELINES[name](place), str(aside))
    lines = aside.read_text().splitlines(keepends=True)
    aside.write_text("".join(line for line in lines if not line.startswith("#")))  # comments come in any order
    if drop_downs:
        add_drop_downs(aside)
    aside.replace(path)
    return path


def package_version(data: bytes) -> str:
    """The version of pfs and a digest of the package: another image, or anything else that differs, has another one."""
    return f"{pfs_core.__version__}-{hashlib.sha256(data).hexdigest()[:12]}"


def write_resources(
    folder: Path, namespace: str, place: Placement = Placement(), drop_downs: bool = False
) -> list[Path]:
    """Write every pipeline as the Pipeline and PipelineVersion resources that Kubeflow takes from Kubernetes.

    Versions are named after their packages (:func:`package_version`): Kubeflow changes none that it has.

    Args:
        folder: made if it is not there.
        namespace: of the resources.
        place: where steps run.
        drop_downs: as for :func:`compile_all`.
    """
    folder.mkdir(parents=True, exist_ok=True)
    paths = []
    for name, define in PIPELINES.items():
        resource = name.replace("_", "-")
        path, aside = folder / f"{name}-resources.yaml", folder / f".{name}.partial.yaml"
        package = compile_one(name, aside, place, drop_downs).read_bytes()
        options = compiler.KubernetesManifestOptions(
            pipeline_name=resource,
            pipeline_version_name=f"{resource}-{package_version(package)}",
            namespace=namespace,
            include_pipeline_manifest=True,
        )
        compiler.Compiler().compile(
            define(place), str(aside), kubernetes_manifest_options=options, kubernetes_manifest_format=True
        )
        pipeline, version = yaml.safe_load_all(aside.read_text())
        version["spec"]["pipelineSpec"] = next(yaml.safe_load_all(package))
        aside.write_text(yaml.safe_dump_all([pipeline, version]))
        paths.append(aside.replace(path))
    return paths


def add_drop_downs(package: Path) -> None:
    """Name the values of ``CHOICES`` in a package: Kubeflow 2.16 and newer knows them, its compiler writes none yet.

    Older servers may refuse such a package.
    """
    documents = list(yaml.safe_load_all(package.read_text()))
    parameters = documents[0]["root"]["inputDefinitions"]["parameters"]
    for name, values in CHOICES.items():
        if name in parameters:
            parameters[name]["literals"] = values
    package.write_text(yaml.safe_dump_all(documents, sort_keys=True))
