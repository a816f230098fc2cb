"""Where steps run on a cluster: on which nodes, with what resources, retries and environment variables.

Everything that a run may choose is a pipeline parameter. Retries, timeouts and volumes are fixed when a package is
compiled, since Kubeflow accepts only constants for them. Parameters for resources are texts, since Kubeflow accepts no
other type there.
"""

import functools
import inspect
import re
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field, fields
from typing import Any

from kfp import dsl, kubernetes
from pfs_components.base import IMAGE

from pfs_core.runtime.environment import SECRETS, SERVERS, in_a_pod

CONFIG = (*SERVERS, "PFS_CHECKPOINTS", "KFP_UI_URL")
"""Keys of the ConfigMap that become environment variables, as ``SECRETS`` are those of the Secret; their names are
those of the keys, MLflow's with ``PFS_`` in front. A variable whose key is missing is not set."""
USER = 1000
"""Id of the user and the group in the image."""
HOUR = 3600
RETRIES = 3
"""How often a step that trains is tried again."""
_TRAINING_HOURS = 168
LONGEST_HOURS = _TRAINING_HOURS * (RETRIES + 1) + 1
"""The longest that a step may take, with all of its tries and the waits between them."""
_SHARED_MEMORY = "8Gi"


def _parameter(default: Any, text: str) -> Any:
    """Return a field with a help text; dataclasses take mutable defaults from a factory only."""
    if isinstance(default, str):
        return field(default=default, metadata={"help": text})
    return field(default_factory=lambda: default, metadata={"help": text})


@dataclass(frozen=True)
class Pools:
    """The nodes and resources of the steps of a run, which :func:`with_form` makes parameters of a pipeline.

    Steps that search or train run on GPU nodes, steps that measure on latency nodes, and all others on CPU nodes.
    """

    gpu_type: str = _parameter("nvidia.com/gpu", "Name of the GPU resource for the search and the retraining.")
    gpu_count: str = _parameter("1", "GPUs of a search, which uses one; 0 to search on CPUs.")
    gpu_count_retrain: str = _parameter(
        "1", "GPUs of a training, which uses one; 0 to train on CPUs, or with train_job, whose nodes have their own."
    )
    gpu_cpu: str = _parameter("4", "Cores of a step that trains.")
    gpu_memory: str = _parameter("16Gi", "Memory of a step that trains; 8Gi of it may be shared memory.")
    gpu_node_selector: dict[str, Any] = _parameter({}, "Labels of the nodes for steps that train.")
    gpu_tolerations: list[Any] = _parameter(
        [{"key": "nvidia.com/gpu", "operator": "Exists", "effect": "NoSchedule"}],
        "Tolerations for the taints of the nodes for steps that train.",
    )
    cpu_cores: str = _parameter("2", "Cores of a step that neither trains nor measures.")
    cpu_memory: str = _parameter("4Gi", "Memory of a step that neither trains nor measures.")
    cpu_node_selector: dict[str, Any] = _parameter({}, "Labels of the nodes for steps that neither train nor measure.")
    cpu_tolerations: list[Any] = _parameter(
        [], "Tolerations for the taints of the nodes for steps that neither train nor measure."
    )
    latency_cores: str = _parameter("2", "Cores of the step that measures: a whole number, which it has to itself.")
    latency_memory: str = _parameter("4Gi", "Memory of the step that measures.")
    latency_node_selector: dict[str, Any] = _parameter(
        {}, "Labels of the nodes for the step that measures, of the kind that the network is meant for."
    )
    latency_tolerations: list[Any] = _parameter(
        [], "Tolerations for the taints of the nodes for the step that measures."
    )
    config_map: str = _parameter("pfs-config", "ConfigMap with the addresses of MLflow and the object store.")
    secret: str = _parameter("pfs-secret", "Secret with the keys of MLflow and the object store.")


_POOLS = frozenset(f.name for f in fields(Pools))


def form_name(name: str) -> str:
    """Return what a parameter is called in the run form.

    The form sorts by name. So what everybody chooses comes first, then settings, then where the steps run.

    >>> form_name("budget"), form_name("search_settings"), form_name("gpu_count")
    ('budget', 'settings_search', 'where_gpu_count')
    """
    if name.endswith("_settings"):
        return f"settings_{name.removesuffix('_settings')}"
    return f"where_{name}" if name in _POOLS else name


def for_form(arguments: Mapping[str, Any]) -> dict[str, Any]:
    """Return arguments by their names in the run form."""
    return {form_name(name): value for name, value in arguments.items()}


def with_form(function: Callable[..., Any]) -> Callable[..., Any]:
    """Give the parameters of a pipeline the names of the run form, and its ``pools`` one for each field.

    Kubeflow reads the parameters of a pipeline from the signature and the docstring of its function, so both are
    changed.
    """
    own = inspect.signature(function)
    kind = inspect.Parameter.POSITIONAL_OR_KEYWORD
    names = {form_name(parameter.name): parameter.name for parameter in own.parameters.values()}
    parameters = [p.replace(name=form_name(p.name)) for p in own.parameters.values() if p.name != "pools"]
    for f in fields(Pools):
        parameters.append(
            inspect.Parameter(form_name(f.name), kind, default=getattr(Pools(), f.name), annotation=f.type)
        )
    signature = own.replace(parameters=parameters)

    @functools.wraps(function)
    def pipeline(*args: Any, **kwargs: Any) -> Any:
        values = dict(signature.bind(*args, **kwargs).arguments)
        given = {f.name: values.pop(form_name(f.name), getattr(Pools(), f.name)) for f in fields(Pools)}
        return function(**{names[name]: value for name, value in values.items()}, pools=Pools(**given))

    text = re.sub(
        r"(?m)^(    )(\w+)(?=:)", lambda found: found[1] + form_name(found[2]), inspect.getdoc(function) or ""
    )
    lines = [f"    {form_name(f.name)}: {f.metadata['help']}" for f in fields(Pools)]
    pipeline.__doc__ = "\n".join([text, *lines])
    pipeline.__signature__ = signature  # type: ignore[attr-defined]
    return pipeline


def passed_on(pools: Pools) -> dict[str, Any]:
    """Return the arguments that pass ``pools`` on to a nested pipeline."""
    return for_form({f.name: getattr(pools, f.name) for f in fields(Pools)})


@dataclass(frozen=True)
class Placement:
    """Assigns the steps of a pipeline to the nodes of its :class:`Pools`.

    Attributes:
        local: whether the pipeline is for ``pfs run`` on this machine, where nothing is assigned and a step that fails
            is not tried again.
        data_volume: a volume claim that steps mount at ``/data``, for downloaded datasets and for measurements that
            latency budgets need once per machine; empty for none.
    """

    local: bool = False
    data_volume: str = ""

    @property
    def parallelism(self) -> int:
        """How many trainings run at the same time; 0 for no limit. Locally, each has all cores to itself."""
        return 1 if self.local else 0

    def search(self, task: dsl.PipelineTask, pools: Pools, hours: int) -> dsl.PipelineTask:
        """Assign a step that searches to the GPU nodes; ``hours`` is its timeout."""
        return self._gpu(task, pools, pools.gpu_count, hours)

    def retrain(self, task: dsl.PipelineTask, pools: Pools) -> dsl.PipelineTask:
        """Assign a step that trains a network to the GPU nodes, with a timeout of a week."""
        return self._gpu(task, pools, pools.gpu_count_retrain, hours=_TRAINING_HOURS)

    def _gpu(self, task: dsl.PipelineTask, pools: Pools, count: Any, hours: int) -> dsl.PipelineTask:
        """Assign a step to the GPU nodes. It is tried again when it fails, for example because its node is taken away.

        The next try resumes from the checkpoint of the one before.
        """
        if not self.local:
            _resources(task, pools.gpu_cpu, pools.gpu_memory)
            task.register_pipeline_channels([pools.gpu_type, count])  # see _resources
            task.set_accelerator_type(pools.gpu_type).set_accelerator_limit(count)
            kubernetes.empty_dir_mount(task, "shared-memory", "/dev/shm", medium="Memory", size_limit=_SHARED_MEMORY)  # noqa: S108
            _nodes(task, pools.gpu_node_selector, pools.gpu_tolerations)
            # This duration is counted from the first start, so it must cover all tries and the waits between them.
            max_seconds = (hours * (RETRIES + 1) + 1) * HOUR
            task.set_retry(RETRIES, backoff_duration="60s", backoff_factor=2, backoff_max_duration=f"{max_seconds}s")
            self._surroundings(task, pools, hours)
        return task

    def cpu(self, task: dsl.PipelineTask, pools: Pools, hours: int = 6) -> dsl.PipelineTask:
        """Assign a step to the CPU nodes; ``hours`` is its timeout."""
        if not self.local:
            _resources(task, pools.cpu_cores, pools.cpu_memory)
            _nodes(task, pools.cpu_node_selector, pools.cpu_tolerations)
            self._surroundings(task, pools, hours)
        return task

    def latency(self, task: dsl.PipelineTask, pools: Pools, cached: bool = False) -> dsl.PipelineTask:
        """Assign a step that measures to the latency nodes.

        Args:
            task: the step.
            pools: the nodes.
            cached: whether Kubeflow may take its result from an earlier run, instead of measuring anew.
        """
        if not cached:
            task.set_caching_options(False)
        if not self.local:
            _resources(task, pools.latency_cores, pools.latency_memory)
            _nodes(task, pools.latency_node_selector, pools.latency_tolerations)
            self._surroundings(task, pools, hours=2)
        return task

    def _surroundings(self, task: dsl.PipelineTask, pools: Pools, hours: int) -> None:
        """Set timeout, user, environment variables and volume of a step."""
        kubernetes.set_timeout(task, hours * HOUR)
        kubernetes.set_security_context(task, run_as_user=USER, run_as_group=USER, run_as_non_root=True)
        kubernetes.use_config_map_as_env(task, pools.config_map, {key: in_a_pod(key) for key in CONFIG}, optional=True)
        kubernetes.use_secret_as_env(task, pools.secret, {key: in_a_pod(key) for key in SECRETS}, optional=True)
        kubernetes.use_field_path_as_env(task, "KFP_RUN_ID", "metadata.labels['pipeline/runid']")
        task.set_env_variable("PFS_IMAGE", IMAGE)  # becomes a tag of the run in MLflow
        if self.data_volume:
            kubernetes.mount_pvc(task, self.data_volume, "/data")
            task.set_env_variable("PFS_DATA", "/data").set_env_variable("PFS_CACHE", "/data/.pfs")


def _resources(task: dsl.PipelineTask, cores: Any, memory: Any) -> None:
    """Request the resources of a step, with limits equal to the requests: it gets what it was promised, and no more."""
    # kfp passes a parameter on to the loop that a step is in only if it is registered as an input of the step.
    task.register_pipeline_channels([cores, memory])
    task.set_cpu_request(cores).set_cpu_limit(cores).set_memory_request(memory).set_memory_limit(memory)


def _nodes(task: dsl.PipelineTask, selector: Any, tolerations: Any) -> None:
    """Restrict a step to the nodes with some labels, and tolerate their taints."""
    kubernetes.add_node_selector_json(task, selector)
    kubernetes.add_toleration_json(task, tolerations)
