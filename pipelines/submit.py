"""``pfs submit``: upload a package as a version of its pipeline, and start a run of it."""

import tempfile
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import kfp_server_api
from pfs_pipelines.client import Client, ConflictError, equals, quiet
from pfs_pipelines.compiled import Package


@dataclass(frozen=True)
class Uploaded:
    """A version of a pipeline; ``new`` if it was not there before."""

    pipeline_id: str
    version_id: str
    version: str
    new: bool


def upload(client: Client, package: Package) -> Uploaded:
    """The version of the pipeline that is this package; pipeline and version are created if they are missing."""
    pipeline_id = _pipeline_id(client, package.name)
    if not pipeline_id:
        pipeline = kfp_server_api.V2beta1Pipeline(
            name=package.name,
            display_name=package.name,
            description=package.description or None,
            namespace=client.namespace or None,
        )
        try:
            made = client.pipelines.pipeline_service_create_pipeline(pipeline)
            pipeline_id = client.has(made, "pipeline_id").pipeline_id
        except ConflictError:  # somebody else has created it since we looked
            pipeline_id = _pipeline_id(client, package.name)
            if not pipeline_id:
                raise
    if found := _version_id(client, pipeline_id, package.version):
        return Uploaded(pipeline_id, found, package.version, new=False)
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / f"{package.name}.yaml"
        path.write_bytes(package.data)
        try:
            with quiet():
                made = client.upload_pipeline_version(str(path), package.version, pipeline_id=pipeline_id)
        except ConflictError:
            found = _version_id(client, pipeline_id, package.version)
            if not found:
                raise
            return Uploaded(pipeline_id, found, package.version, new=False)
    version_id = client.has(made, "pipeline_version_id").pipeline_version_id
    return Uploaded(pipeline_id, version_id, package.version, new=True)


def _pipeline_id(client: Client, name: str) -> str:
    """The id of the pipeline of this name, which is unique in a namespace; empty if there is none."""
    answer = client.list_pipelines(filter=equals("name", name), namespace=client.namespace or None)
    found = [pipeline for pipeline in answer.pipelines or [] if name in (pipeline.name, pipeline.display_name)]
    return client.has(found[0], "pipeline_id").pipeline_id if found else ""


def _version_id(client: Client, pipeline_id: str, version: str) -> str:
    answer = client.list_pipeline_versions(pipeline_id, filter=equals("name", version))
    found = [entry for entry in answer.pipeline_versions or [] if version in (entry.name, entry.display_name)]
    return client.has(found[0], "pipeline_version_id").pipeline_version_id if found else ""


def experiment_id(client: Client, name: str) -> str:
    """The id of the experiment of this name, which is created if it is missing."""
    with quiet():
        experiment = client.create_experiment(name, namespace=client.namespace or None)
    text: str = client.has(experiment, "experiment_id").experiment_id
    return text


def start(
    client: Client, version: Uploaded, experiment: str, name: str, parameters: dict[str, Any], service_account: str = ""
) -> str:
    """Start a run of a version in an experiment (its id); returns the run's id.

    Its pods have Kubeflow's own service account where none is named.
    """
    with quiet():
        run = client.run_pipeline(
            experiment,
            name,
            params=parameters,
            pipeline_id=version.pipeline_id,
            version_id=version.version_id,
            service_account=service_account or None,
        )
    text: str = client.has(run, "run_id").run_id
    return text


def start_uncached(
    client: Client, package: Package, experiment: str, name: str, parameters: dict[str, Any], service_account: str = ""
) -> str:
    """Start a run of a package itself, with the cache off: the package of an uploaded version cannot be changed."""
    with tempfile.TemporaryDirectory() as folder, quiet():
        path = Path(folder) / "package.yaml"
        path.write_bytes(package.uncached())
        run = client.run_pipeline(
            experiment,
            name,
            params=parameters,
            pipeline_package_path=str(path),
            service_account=service_account or None,
        )
    text: str = client.has(run, "run_id").run_id
    return text
