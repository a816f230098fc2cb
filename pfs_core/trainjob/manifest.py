"""The TrainJob of a retraining (trainer.kubeflow.org/v1alpha1, Kubeflow Trainer 2.2 or newer)."""

import os
from typing import Any
from urllib.parse import urlsplit

from pydantic import Field, ValidationInfo, field_validator

from pfs_core.config.quantities import CORES, MEMORY
from pfs_core.config.spec import Config
from pfs_core.errors import UserError
from pfs_core.runtime.environment import MLFLOW_LOGIN, SECRETS, SERVERS, mlflow_is_ours
from pfs_core.runtime.supervise import RESTARTS
from pfs_core.storage.digests import json_digest

GROUP, VERSION, PLURAL = "trainer.kubeflow.org", "v1alpha1", "trainjobs"
MANAGER = "pfs.kubeflow.org/launcher"
SETTINGS = "pfs.kubeflow.org/settings"
"""The annotation with a digest of the settings: the name says what is trained, and not where."""
PASSED_ON = (*SERVERS, "KFP_RUN_ID", "PFS_CHECKPOINT_SECONDS")
"""Variables of the launcher that the nodes get too; ``SECRETS`` come from the secret, those that it has."""


class TrainJob(Config):
    """Where and on how many nodes to retrain."""

    nodes: int = Field(default=1, ge=1)
    processes: int = Field(default=1, ge=1)
    """Processes per node, one per GPU."""
    shared: str = Field(min_length=1)
    """A folder or ``s3://`` prefix that every node reaches, for the inputs, the checkpoints and the model."""
    image: str = Field(min_length=1)
    runtime: str = "torch-distributed"
    """The ClusterTrainingRuntime."""
    namespace: str = ""
    """Empty for the launcher's namespace."""
    gpu: str = "nvidia.com/gpu"
    """The resource of which each process gets one; empty for CPU nodes."""
    cpu: str = "4"
    memory: str = "16Gi"
    """CPU and memory of a node as Kubernetes writes them, such as 16 and 64Gi; empty for no request, so that the
    namespace's defaults hold, if it has any."""
    secret: str = ""
    """The secret with the keys of the object store."""
    node_selector: dict[str, str] = Field(default={})
    tolerations: list[dict[str, Any]] = Field(default=[])

    @field_validator("cpu", "memory")
    @classmethod
    def _quantity(cls, value: str, info: ValidationInfo) -> str:
        pattern, wanted = CORES if info.field_name == "cpu" else MEMORY
        if value and not pattern.fullmatch(value):
            raise ValueError(f"must be {wanted}")
        return value


def manifest(job: TrainJob, name: str, address: str, run_id: str = "") -> dict[str, Any]:
    """The TrainJob as Kubernetes takes it.

    Args:
        job: see :class:`TrainJob`.
        name: the name of the TrainJob.
        address: the address of its inputs.
        run_id: the MLflow run that the training is recorded in; empty for a new one.

    Raises:
        UserError: MLflow's address contains a login, which everybody who sees the TrainJob could read.
    """
    if "@" in urlsplit(os.environ.get("MLFLOW_TRACKING_URI", "")).netloc:
        raise UserError(
            "MLFLOW_TRACKING_URI holds a login, which TrainJobs would show; put it into the secret as "
            "MLFLOW_TRACKING_USERNAME and MLFLOW_TRACKING_PASSWORD"
        )
    env: list[dict[str, Any]] = [{"name": key, "value": os.environ[key]} for key in PASSED_ON if os.environ.get(key)]
    if run_id:
        env.append({"name": "MLFLOW_RUN_ID", "value": run_id})
    if job.secret:
        # Our login goes to no other server, such as that of Kubeflow's MLflow plugin.
        for key in (key for key in SECRETS if key not in MLFLOW_LOGIN or mlflow_is_ours()):
            reference = {"name": job.secret, "key": key, "optional": True}
            env.append({"name": key, "valueFrom": {"secretKeyRef": reference}})
    resources = {key: value for key, value in (("cpu", job.cpu), ("memory", job.memory)) if value}
    resources |= {job.gpu: str(job.processes)} if job.gpu else {}
    trainer: dict[str, Any] = {
        "image": job.image,
        "command": ["torchrun", f"--max-restarts={RESTARTS}", "-m", "pfs_core.steps.node", address],
        "numNodes": job.nodes,
        "numProcPerNode": job.processes,
        "env": env,
    }
    if resources:
        trainer["resourcesPerNode"] = {"limits": resources, "requests": resources}
    spec: dict[str, Any] = {
        "runtimeRef": {"name": job.runtime, "kind": "ClusterTrainingRuntime", "apiGroup": GROUP},
        "trainer": trainer,
    }
    placement = (("nodeSelector", job.node_selector), ("tolerations", job.tolerations))
    if pods := {key: value for key, value in placement if value}:
        replicated = [{"name": "node", "template": {"spec": {"template": {"spec": pods}}}}]
        template = {"template": {"spec": {"replicatedJobs": replicated}}}
        spec["runtimePatches"] = [{"manager": MANAGER, "trainingRuntimeSpec": template}]
    return {
        "apiVersion": f"{GROUP}/{VERSION}",
        "kind": "TrainJob",
        "metadata": {
            "name": name,
            "labels": {"app.kubernetes.io/part-of": "pfs"},
            "annotations": {SETTINGS: json_digest(job.model_dump(mode="json"), 16)},
        },
        "spec": spec,
    }
