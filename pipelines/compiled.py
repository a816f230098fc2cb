"""Compiled pipelines, which are checked before they are sent to a server."""

import tempfile
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import yaml
from google.protobuf import json_format
from kfp.pipeline_spec import pipeline_spec_pb2
from pfs_pipelines.packages import PIPELINES, FormOptions, compile_one, package_version
from pfs_pipelines.pools import Placement

from pfs_core.errors import UserError, did_you_mean, one_line


@dataclass(frozen=True)
class Package:
    """A compiled pipeline.

    Attributes:
        data: the bytes of the file.
        documents: the parsed YAML documents of the file: the pipeline, and its platform spec if it has one.
    """

    data: bytes
    documents: list[dict[str, Any]]

    @property
    def name(self) -> str:
        """Name of the pipeline."""
        text: str = self.documents[0]["pipelineInfo"]["name"]
        return text

    @property
    def description(self) -> str:
        """Description of the pipeline in Markdown, which may be empty."""
        text: str = self.documents[0]["pipelineInfo"].get("description", "")
        return text

    @property
    def version(self) -> str:
        """Name of the package among the versions of its pipeline (:func:`~pfs_pipelines.packages.package_version`)."""
        return package_version(self.data)

    @property
    def parameters(self) -> dict[str, dict[str, Any]]:
        """Parameters of the pipeline by name, as its ``inputDefinitions`` have them."""
        result: dict[str, dict[str, Any]] = self.documents[0]["root"].get("inputDefinitions", {}).get("parameters", {})
        return result

    @property
    def tasks(self) -> set[str]:
        """Names of the tasks of the pipeline and of the pipelines within it."""
        return {name for name, _ in _tasks(self.documents[0])}

    def uncached(self) -> bytes:
        """Return the package with caching disabled for every task, also within nested pipelines."""
        documents = list(yaml.safe_load_all(self.data))
        for _, task in _tasks(documents[0]):
            task["cachingOptions"] = {}
        return yaml.safe_dump_all(documents, sort_keys=False).encode()


def _tasks(spec: dict[str, Any]) -> Iterator[tuple[str, dict[str, Any]]]:
    """Yield name and spec of the tasks of a pipeline and of the pipelines within it."""
    for component in (spec["root"], *spec.get("components", {}).values()):
        yield from component.get("dag", {}).get("tasks", {}).items()


def load_package(pipeline: str, place: Placement = Placement(), form: FormOptions = FormOptions()) -> Package:
    """Compile a pipeline of this project, or read a package file.

    Args:
        pipeline: one of :data:`~pfs_pipelines.packages.PIPELINES`, or the path of a ``.yaml`` file.
        place: where the steps of a pipeline of this project run.
        form: what its run form offers.

    Raises:
        UserError: there is no such pipeline or file, or the file is not a compiled pipeline.
    """
    if pipeline in PIPELINES:
        with tempfile.TemporaryDirectory() as folder:
            return parse_package(
                compile_one(pipeline, Path(folder) / "package.yaml", place, form).read_bytes(), pipeline
            )
    if Path(pipeline).suffix not in (".yaml", ".yml"):
        hint = did_you_mean(pipeline, PIPELINES)
        raise UserError(f"no pipeline {pipeline!r}{hint}; known: {', '.join(PIPELINES)}, or a compiled .yaml file")
    if form != FormOptions():
        raise UserError(f"--pools and --drop-downs are for pfs compile and for {', '.join(PIPELINES)}; give --params")
    if place != Placement():
        raise UserError(
            f"--data-volume is for {', '.join(PIPELINES)}; {pipeline} has the one that it was compiled with"
        )
    try:
        data = Path(pipeline).read_bytes()
    except OSError as e:
        raise UserError(f"{pipeline} cannot be read: {e.strerror}") from None
    return parse_package(data, pipeline)


def parse_package(data: bytes, source: str) -> Package:
    """Parse a package as strictly as the API server does, so that mistakes show before anything is sent.

    Args:
        data: the content of a package file.
        source: what messages call the file.

    Raises:
        UserError: it is not a compiled pipeline.
    """
    wrong = f"{source} is not a compiled pipeline; pfs compile or kfp dsl compile makes one"
    try:
        documents = [document for document in yaml.safe_load_all(data) if document]
        pipeline = json_format.ParseDict(documents[0], pipeline_spec_pb2.PipelineSpec())
    except (UnicodeDecodeError, yaml.YAMLError):
        raise UserError(f"{wrong} (it is not YAML)") from None
    except (json_format.ParseError, IndexError, AttributeError, TypeError, ValueError) as e:
        raise UserError(f"{wrong} ({one_line(e)})") from None
    if not pipeline.pipeline_info.name or not pipeline.HasField("root"):
        raise UserError(f"{wrong} (it has no name or no root)")
    return Package(data, documents)
