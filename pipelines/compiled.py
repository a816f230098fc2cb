"""A compiled pipeline as a thing to look at before it is sent."""

import tempfile
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import yaml
from google.protobuf import json_format
from kfp.pipeline_spec import pipeline_spec_pb2
from pfs_pipelines.packages import PIPELINES, compile_one, package_version
from pfs_pipelines.pools import Placement

from pfs_core.errors import UserError, did_you_mean, one_line


@dataclass(frozen=True)
class Package:
    """A compiled pipeline.

    Attributes:
        data: the bytes of the file.
        documents: the same, parsed: the pipeline, and what it asks of its platform, if anything.
    """

    data: bytes
    documents: list[dict[str, Any]]

    @property
    def name(self) -> str:
        """What the pipeline is called."""
        return self.documents[0]["pipelineInfo"]["name"]

    @property
    def description(self) -> str:
        """Of the pipeline, in Markdown; may be empty."""
        return self.documents[0]["pipelineInfo"].get("description", "")

    @property
    def version(self) -> str:
        """What it is called among the pipeline's versions (:func:`pfs_pipelines.packages.package_version`)."""
        return package_version(self.data)

    @property
    def parameters(self) -> dict[str, dict[str, Any]]:
        """The pipeline's parameters by name, as ``inputDefinitions`` has them."""
        return self.documents[0]["root"].get("inputDefinitions", {}).get("parameters", {})

    @property
    def tasks(self) -> set[str]:
        """The names of its tasks, at all depths."""
        return {name for name, _ in _tasks(self.documents[0])}

    def uncached(self) -> bytes:
        """The package with the cache off for every task, at all depths."""
        documents = list(yaml.safe_load_all(self.data))
        for _, task in _tasks(documents[0]):
            task["cachingOptions"] = {}
        return yaml.safe_dump_all(documents, sort_keys=False).encode()


def _tasks(spec: dict[str, Any]) -> Iterator[tuple[str, dict[str, Any]]]:
    for component in (spec["root"], *spec.get("components", {}).values()):
        yield from component.get("dag", {}).get("tasks", {}).items()


def load_package(pipeline: str, place: Placement = Placement(), drop_downs: bool = False) -> Package:
    """One of :data:`PIPELINES`, compiled now (see :func:`pfs_pipelines.packages.compile_one`), or a package file.

    Raises:
        UserError: there is no such pipeline or file, or the file is not a compiled pipeline.
    """
    if pipeline in PIPELINES:
        with tempfile.TemporaryDirectory() as folder:
            return parse_package(
                compile_one(pipeline, Path(folder) / "package.yaml", place, drop_downs).read_bytes(), pipeline
            )
    if Path(pipeline).suffix not in (".yaml", ".yml"):
        hint = did_you_mean(pipeline, PIPELINES)
        raise UserError(f"no pipeline {pipeline!r}{hint}; known: {', '.join(PIPELINES)}, or a compiled .yaml file")
    try:
        data = Path(pipeline).read_bytes()
    except OSError as e:
        raise UserError(f"{pipeline} cannot be read: {e.strerror}") from None
    return parse_package(data, pipeline)


def parse_package(data: bytes, source: str) -> Package:
    """The package that a file holds; a pipeline as strict as the API server wants it.

    Raises:
        UserError: it is none; ``source`` is what the message calls it.
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
