"""Compiles pipelines into packages, the YAML files that the Kubeflow UI and its API accept."""

import hashlib
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import yaml
from kfp import compiler
from pfs_pipelines import compare, compress, compress_new_models, pareto
from pfs_pipelines.pools import Placement

import pfs_core
from pfs_core.config.recipes import RECIPES
from pfs_core.storage.whole_file import whole_file

PIPELINES: dict[str, Callable[[Placement], Any]] = {
    "compress": compress.define,
    "pareto": pareto.define,
    "compare": compare.define,
    "compress_new_models": compress_new_models.define,
}
"""Functions that define the pipelines, by name."""
CHOICES = {"recipe": ["", *RECIPES]}
"""Values of the parameters for which :func:`set_form` adds a drop-down; Kubeflow then refuses all others."""


@dataclass(frozen=True)
class FormOptions:
    """What the run form of a package offers."""

    drop_downs: bool = False
    """Whether to offer ``CHOICES`` as drop-downs; Kubeflow 2.16 and newer shows them."""
    defaults: Mapping[str, Any] = field(default_factory=dict)
    """Values of parameters in place of their own defaults, as far as a pipeline has them."""


def compile_all(folder: Path, place: Placement = Placement(), form: FormOptions = FormOptions()) -> list[Path]:
    """Compile all pipelines into a folder.

    Args:
        folder: the folder, which is created if it does not exist.
        place: where the steps run.
        form: what the run form offers.

    Returns:
        The files.
    """
    folder.mkdir(parents=True, exist_ok=True)
    return [compile_one(name, folder / f"{name}.yaml", place, form) for name in PIPELINES]


def compile_one(name: str, path: Path, place: Placement = Placement(), form: FormOptions = FormOptions()) -> Path:
    """Compile a pipeline into a file; the same pipeline gives the same bytes.

    Args:
        name: the name of the pipeline in ``PIPELINES``.
        path: the file, which is replaced at once when the package is complete.
        place: where the steps run.
        form: what the run form offers.

    Returns:
        ``path``.
    """
    with whole_file(path) as partial:
        compiler.Compiler().compile(PIPELINES[name](place), str(partial))
        lines = partial.read_text().splitlines(keepends=True)
        # kfp writes comments, in an order that differs from one compilation to the next.
        partial.write_text("".join(line for line in lines if not line.startswith("#")))
        if form != FormOptions():
            set_form(partial, form)
    return path


def package_version(data: bytes) -> str:
    """Return the name of a version of a pipeline: the version of pfs and a digest of the package.

    Whatever differs in two packages, such as the image, gives them different names.
    """
    return f"{pfs_core.__version__}-{hashlib.sha256(data).hexdigest()[:12]}"


def write_resources(
    folder: Path, namespace: str, place: Placement = Placement(), form: FormOptions = FormOptions()
) -> list[Path]:
    """Write all pipelines as the Pipeline and PipelineVersion resources with which Kubernetes declares them.

    A version is named after its package (:func:`package_version`), since Kubeflow never changes an existing version.

    Args:
        folder: the folder, which is created if it does not exist.
        namespace: the namespace of the resources.
        place: where the steps run.
        form: what the run form offers.

    Returns:
        The files.
    """
    folder.mkdir(parents=True, exist_ok=True)
    paths = []
    for name, define in PIPELINES.items():
        resource = name.replace("_", "-")
        path = folder / f"{name}-resources.yaml"
        with whole_file(path) as partial:
            package = compile_one(name, partial, place, form).read_bytes()
            options = compiler.KubernetesManifestOptions(
                pipeline_name=resource,
                pipeline_version_name=f"{resource}-{package_version(package)}",
                namespace=namespace,
                include_pipeline_manifest=True,
            )
            compiler.Compiler().compile(
                define(place), str(partial), kubernetes_manifest_options=options, kubernetes_manifest_format=True
            )
            pipeline, version = yaml.safe_load_all(partial.read_text())
            version["spec"]["pipelineSpec"] = next(yaml.safe_load_all(package))
            partial.write_text(yaml.safe_dump_all([pipeline, version]))
        paths.append(path)
    return paths


def set_form(package: Path, form: FormOptions) -> None:
    """Change what the run form of a package offers, in place.

    Kubeflow's compiler cannot write drop-downs yet. Servers before 2.16 may refuse such a package.
    """
    documents = list(yaml.safe_load_all(package.read_text()))
    parameters = documents[0]["root"]["inputDefinitions"]["parameters"]
    for name, values in CHOICES.items() if form.drop_downs else ():
        if name in parameters:
            parameters[name]["literals"] = values
    for name, value in form.defaults.items():
        if name in parameters:
            parameters[name]["defaultValue"] = value
    package.write_text(yaml.safe_dump_all(documents, sort_keys=True))
