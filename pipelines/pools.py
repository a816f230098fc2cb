"""Where steps run on a cluster: which nodes, how much of them, how often, and with what in their environment.

All that a run may choose is a pipeline parameter. Retries, timeouts and volumes are the package's: Kubeflow takes only
constants for them. Parameters that become resources are texts, since Kubeflow reads no others there.
"""

import functools
import inspect
from collections.abc import Callable
from dataclasses import dataclass, field, fields
from typing import Any

from kfp import dsl, kubernetes
from pfs_components.base import IMAGE

from pfs_core.runtime.environment import SECRETS, SERVERS

CONFIG = (*SERVERS, "PFS_CHECKPOINTS", "KFP_UI_URL")
"""Variables from the keys of that name in the ConfigMap, ``SECRETS`` from the secret; what is missing is left out."""
USER = 1000
"""Of the image."""
HOUR = 3600
RETRIES = 3
_SHARED_MEMORY = "8Gi"


def _parameter(default: Any, text: str) -> Any:
    return (
        field(default=default, metadata={"help": text})
        if isinstance(default, str)
        else field(default_factory=lambda: default, metadata={"help": text})
    )


@dataclass(frozen=True)
class Pools:
    """The nodes of a run: a pipeline that is made :func:`with_pools` has these as parameters."""

    gpu_type: str = _parameter("nvidia.com/gpu", "Resource of a GPU of the search and the retraining.")
    gpu_count: str = _parameter("1", "GPUs of a search, which uses one; 0 to search on CPUs.")
    gpu_count_retrain: str = _parameter(
        "1", "GPUs of a training, which uses one; 0 to train on CPUs, or with train_job, whose nodes have their own."
    )
    gpu_cpu: str = _parameter("4", "Cores of a step that trains.")
    gpu_memory: str = _parameter("16Gi", "Memory of a step that trains; 8Gi of it may be shared memory.")
    gpu_node_selector: dict = _parameter({}, "Labels of the nodes that train.")
    gpu_tolerations: list = _parameter(
        [{"key": "nvidia.com/gpu", "operator": "Exists", "effect": "NoSchedule"}], "For the taints of these nodes."
    )
    cpu_cores: str = _parameter("2", "Cores of a step that neither trains nor measures.")
    cpu_memory: str = _parameter("4Gi", "Memory of such a step.")
    cpu_node_selector: dict = _parameter({}, "Labels of their nodes.")
    cpu_tolerations: list = _parameter([], "For the taints of these nodes.")
    latency_cores: str = _parameter("2", "Cores of the step that measures: whole ones, that it has to itself.")
    latency_memory: str = _parameter("4Gi", "Memory of the step that measures.")
    latency_node_selector: dict = _parameter({}, "Labels of the nodes that the network is meant for.")
    latency_tolerations: list = _parameter([], "For the taints of these nodes.")
    config_map: str = _parameter("pfs-config", "ConfigMap with the addresses of MLflow and the object store.")
    secret: str = _parameter("pfs-secret", "Secret with the keys of MLflow and the object store.")


def with_pools(function: Callable) -> Callable:
    """``function`` with the fields of :class:`Pools` as parameters in place of its parameter ``pools``.

    Kubeflow reads signature and docstring, so both say so.
    """
    own = inspect.signature(function)
    kind = inspect.Parameter.POSITIONAL_OR_KEYWORD
    given = [p for p in own.parameters.values() if p.name != "pools"]
    added = [
        inspect.Parameter(f.name, kind, default=getattr(Pools(), f.name), annotation=f.type) for f in fields(Pools)
    ]
    signature = own.replace(parameters=given + added)

    @functools.wraps(function)
    def pipeline(*args: Any, **kwargs: Any) -> Any:
        values = dict(signature.bind(*args, **kwargs).arguments)
        pools = Pools(**{f.name: values.pop(f.name, getattr(Pools(), f.name)) for f in fields(Pools)})
        return function(**values, pools=pools)

    lines = [f"    {f.name}: {f.metadata['help']}" for f in fields(Pools)]
    pipeline.__doc__ = "\n".join([inspect.getdoc(function) or "", *lines])
    pipeline.__signature__ = signature  # type: ignore[attr-defined]
    return pipeline


def passed_on(pools: Pools) -> dict[str, Any]:
    """The arguments that hand ``pools`` to a pipeline within a pipeline."""
    return {f.name: getattr(pools, f.name) for f in fields(Pools)}


@dataclass(frozen=True)
class Placement:
    """Puts steps on pools.

    Attributes:
        local: for this machine, which has no pools; a step that fails is not tried again.
        data_volume: a claim that steps mount at ``/data``, for downloaded datasets and what latency budgets measure
            once a machine; empty for none.
    """

    local: bool = False
    data_volume: str = ""

    @property
    def parallelism(self) -> int:
        """How many trainings run at once (0: all): here one has the cores to itself."""
        return 1 if self.local else 0

    def search(self, task: dsl.PipelineTask, pools: Pools, hours: int) -> dsl.PipelineTask:
        """A step that searches, on the GPU nodes."""
        return self._gpu(task, pools, pools.gpu_count, hours)

    def retrain(self, task: dsl.PipelineTask, pools: Pools) -> dsl.PipelineTask:
        """A step that trains a network, on the GPU nodes."""
        return self._gpu(task, pools, pools.gpu_count_retrain, hours=168)

    def _gpu(self, task: dsl.PipelineTask, pools: Pools, count: Any, hours: int) -> dsl.PipelineTask:
        """A step on the GPU nodes, tried again where its node goes away: it resumes from its checkpoint."""
        if not self.local:
            _resources(task, pools.gpu_cpu, pools.gpu_memory)
            task.register_pipeline_channels([pools.gpu_type, count])  # as in _resources
            task.set_accelerator_type(pools.gpu_type).set_accelerator_limit(count)
            kubernetes.empty_dir_mount(task, "shared-memory", "/dev/shm", medium="Memory", size_limit=_SHARED_MEMORY)  # noqa: S108
            _nodes(task, pools.gpu_node_selector, pools.gpu_tolerations)
            within = (hours * (RETRIES + 1) + 1) * HOUR  # from the first start on, for all tries and the waits
            task.set_retry(RETRIES, backoff_duration="60s", backoff_factor=2, backoff_max_duration=f"{within}s")
            self._surroundings(task, pools, hours)
        return task

    def cpu(self, task: dsl.PipelineTask, pools: Pools, hours: int = 6) -> dsl.PipelineTask:
        """A step on the CPU nodes."""
        if not self.local:
            _resources(task, pools.cpu_cores, pools.cpu_memory)
            _nodes(task, pools.cpu_node_selector, pools.cpu_tolerations)
            self._surroundings(task, pools, hours)
        return task

    def latency(self, task: dsl.PipelineTask, pools: Pools, hours: int = 2, cached: bool = False) -> dsl.PipelineTask:
        """A step that measures: on whole cores, and anew in every run unless ``cached``."""
        if not cached:
            task.set_caching_options(False)
        if not self.local:
            _resources(task, pools.latency_cores, pools.latency_memory)
            _nodes(task, pools.latency_node_selector, pools.latency_tolerations)
            self._surroundings(task, pools, hours)
        return task

    def _surroundings(self, task: dsl.PipelineTask, pools: Pools, hours: int) -> None:
        kubernetes.set_timeout(task, hours * HOUR)
        kubernetes.set_security_context(task, run_as_user=USER, run_as_group=USER, run_as_non_root=True)
        kubernetes.use_config_map_as_env(task, pools.config_map, {key: key for key in CONFIG}, optional=True)
        kubernetes.use_secret_as_env(task, pools.secret, {key: key for key in SECRETS}, optional=True)
        kubernetes.use_field_path_as_env(task, "KFP_RUN_ID", "metadata.labels['pipeline/runid']")
        task.set_env_variable("PFS_IMAGE", IMAGE)  # a tag of its run in MLflow
        if self.data_volume:
            kubernetes.mount_pvc(task, self.data_volume, "/data")
            task.set_env_variable("PFS_DATA", "/data").set_env_variable("PFS_CACHE", "/data/.pfs")


def _resources(task: dsl.PipelineTask, cores: Any, memory: Any) -> None:
    """Requests equal to limits: what a step was promised is what it gets.

    kfp hands a parameter down to the group that a step is in only if it knows it as an input of the step.
    """
    task.register_pipeline_channels([cores, memory])
    task.set_cpu_request(cores).set_cpu_limit(cores).set_memory_request(memory).set_memory_limit(memory)


def _nodes(task: dsl.PipelineTask, selector: Any, tolerations: Any) -> None:
    kubernetes.add_node_selector_json(task, selector)
    kubernetes.add_toleration_json(task, tolerations)
