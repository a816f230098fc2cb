"""The compiled packages are what a Kubeflow API server accepts, and every field of them speaks for itself."""

import inspect
import re
import shutil
from pathlib import Path

import pfs_components
import pytest
import yaml
from google.protobuf import json_format
from kfp import components as kfp_components
from kfp.kubernetes import kubernetes_executor_config_pb2
from kfp.pipeline_spec import pipeline_spec_pb2
from pfs_pipelines.local import run
from pfs_pipelines.packages import (
    CHOICES,
    PIPELINES,
    FormOptions,
    compile_all,
    compile_one,
    set_form,
    write_resources,
)
from pfs_pipelines.parameters import pool_values
from pfs_pipelines.pools import CONFIG, RETRIES, USER, Placement

from pfs_core.errors import UserError
from pfs_core.runtime.environment import SECRETS, in_a_pod

PLAIN = FormOptions()
LAPTOP = Path(__file__).parents[2] / "manifests" / "overlays" / "laptop" / "pools.yaml"
GOLDEN = Path(__file__).parent / "golden"
TRAINS = {"search-gates", "retrain", "retrain-2"}
MEASURES = {"benchmark-latency", "extract-structure", "extract-structure-2"}
KINDS = {
    pipeline_spec_pb2.ParameterType.STRING: "string_value",
    pipeline_spec_pb2.ParameterType.NUMBER_INTEGER: "number_value",
    pipeline_spec_pb2.ParameterType.NUMBER_DOUBLE: "number_value",
    pipeline_spec_pb2.ParameterType.BOOLEAN: "bool_value",
    pipeline_spec_pb2.ParameterType.LIST: "list_value",
    pipeline_spec_pb2.ParameterType.STRUCT: "struct_value",
}
RUN_TIME = re.compile(r"^\{\{\$\.inputs\.parameters\['pipelinechannel--(\w+)'\]\}\}$")


@pytest.fixture(scope="module", params=list(PIPELINES))
def package(request, tmp_path_factory):
    """A compiled package that mounts a volume."""
    folder = tmp_path_factory.mktemp("packages")
    return compile_one(request.param, folder / f"{request.param}.yaml", Placement(data_volume="pfs-data"))


@pytest.fixture(scope="module")
def documents(package):
    return list(yaml.safe_load_all(package.read_text()))


@pytest.fixture(scope="module")
def spec(documents):
    """The package, parsed as strictly as the API server does: an unknown field raises."""
    return json_format.ParseDict(documents[0], pipeline_spec_pb2.PipelineSpec())


@pytest.fixture(scope="module")
def containers(spec):
    """The container of each executor."""
    executors = json_format.MessageToDict(spec.deployment_spec)["executors"]
    return {name.removeprefix("exec-"): executor["container"] for name, executor in executors.items()}


@pytest.fixture(scope="module")
def platform(documents):
    """What each executor asks of Kubernetes, parsed strictly."""
    found = json_format.ParseDict(documents[1], pipeline_spec_pb2.PlatformSpec())
    executors = found.platforms["kubernetes"].deployment_spec.executors
    config = kubernetes_executor_config_pb2.KubernetesExecutorConfig
    return {
        name.removeprefix("exec-"): json_format.ParseDict(json_format.MessageToDict(executor), config())
        for name, executor in executors.items()
    }


@pytest.fixture(scope="module")
def tasks(spec):
    """Every task of the package, by name, whatever group it is in."""
    found = dict(spec.root.dag.tasks)
    for component in spec.components.values():
        found |= dict(component.dag.tasks)
    return found


@pytest.mark.parametrize("name", list(PIPELINES))
def test_packages_are_the_reviewed_ones(name, tmp_path, monkeypatch):
    """`pfs compile -o tests/pipelines/golden` writes them anew; the difference belongs in the review."""
    assert compile_one(name, tmp_path / "package.yaml").read_text() == (GOLDEN / f"{name}.yaml").read_text()


def test_package_loads_as_a_component(package):
    assert kfp_components.load_component_from_file(str(package)).name == package.stem.replace("_", "-")


def test_every_step_runs_in_the_tagged_image(containers):
    images = {container["image"] for container in containers.values()}
    assert len(images) == 1
    name, tag = images.pop().rsplit(":", 1)
    assert "python" in name
    assert tag != "latest"


def test_every_input_is_described_and_has_a_default_of_its_type(spec):
    for name, parameter in spec.root.input_definitions.parameters.items():
        assert parameter.description, name
        assert parameter.default_value.WhichOneof("kind") == KINDS[parameter.parameter_type], name


def test_no_input_at_any_depth_may_be_missing_without_a_default(spec):
    for component in (spec.root, *spec.components.values()):
        for name, parameter in component.input_definitions.parameters.items():
            filled_in = parameter.parameter_type == pipeline_spec_pb2.ParameterType.TASK_FINAL_STATUS
            if parameter.is_optional and not filled_in:
                assert parameter.default_value.WhichOneof("kind") == KINDS[parameter.parameter_type], name
        assert not [name for name, artifact in component.input_definitions.artifacts.items() if artifact.is_optional]


def test_every_component_describes_all_it_takes(spec):
    for component in spec.components.values():
        if component.executor_label:
            for name, artifact in component.input_definitions.artifacts.items():
                assert artifact.description, name
            for name, parameter in component.input_definitions.parameters.items():
                if parameter.parameter_type != pipeline_spec_pb2.ParameterType.TASK_FINAL_STATUS:
                    assert parameter.description, name


def test_every_task_has_a_name_for_people(tasks):
    for name, task in tasks.items():
        assert task.task_info.name[0].isupper(), name
        assert "-" not in task.task_info.name, name


def test_environment_holds_constants_only(containers):
    for name, container in containers.items():
        for variable in container.get("env", []):
            assert "{{" not in variable["value"], (name, variable)
            assert variable["name"] not in SECRETS


def test_every_step_gets_what_it_reads_from_the_group_that_it_is_in(spec):
    """The driver refuses a task whose input its group does not have."""
    for name, component in (("root", spec.root), *spec.components.items()):
        for step, task in component.dag.tasks.items():
            for given in task.inputs.parameters.values():
                if given.component_input_parameter:
                    assert given.component_input_parameter in component.input_definitions.parameters, (name, step)
            for given in task.inputs.artifacts.values():
                if given.component_input_artifact:
                    assert given.component_input_artifact in component.input_definitions.artifacts, (name, step)


def test_every_step_has_the_parameters_of_its_resources(spec, tasks, containers):
    """The driver puts the inputs of the task in their place."""
    for task in tasks.values():
        executor = spec.components[task.component_ref.name].executor_label.removeprefix("exec-")
        if executor:
            for name in re.findall(r"parameters\['([\w-]+)'\]", str(containers[executor]["resources"])):
                assert name in task.inputs.parameters, (executor, name)


def test_resources_are_text_parameters_and_requests_equal_limits(spec, containers):
    for name, container in containers.items():
        resources = dict(container["resources"])
        accelerator = resources.pop("accelerator", {})
        assert bool(accelerator) == (name in TRAINS)
        assert resources["resourceCpuRequest"] == resources["resourceCpuLimit"]
        assert resources["resourceMemoryRequest"] == resources["resourceMemoryLimit"]
        for value in (*resources.values(), *accelerator.values()):
            parameter = RUN_TIME.match(value)[1]
            kind = spec.root.input_definitions.parameters[parameter].parameter_type
            assert kind == pipeline_spec_pb2.ParameterType.STRING, parameter
        pool = RUN_TIME.match(resources["resourceCpuLimit"])[1].split("_")[1]
        assert pool == ("gpu" if name in TRAINS else "latency" if name in MEASURES else "cpu")


def test_every_step_has_a_timeout_its_surroundings_and_its_pool(platform, containers):
    assert set(platform) == set(containers)
    for name, config in platform.items():
        assert config.active_deadline_seconds > 0
        for keys, group in ((CONFIG, config.config_map_as_env), (SECRETS, config.secret_as_env)):
            found = {
                pair.config_map_key if keys is CONFIG else pair.secret_key: pair.env_var for pair in group[0].key_to_env
            }
            assert found == {key: in_a_pod(key) for key in keys}
        assert config.config_map_as_env[0].optional
        assert config.secret_as_env[0].optional
        assert config.field_path_as_env[0].field_path == "metadata.labels['pipeline/runid']"
        assert config.pvc_mount[0].mount_path == "/data"
        assert bool(config.empty_dir_mounts) == (name in TRAINS)
        pool = "gpu" if name in TRAINS else "latency" if name in MEASURES else "cpu"
        assert config.node_selector.node_selector_json.component_input_parameter.endswith(f"{pool}_node_selector")
        assert config.tolerations[0].toleration_json.component_input_parameter.endswith(f"{pool}_tolerations")


def test_steps_that_train_are_tried_again_with_growing_waits(tasks):
    for name, task in tasks.items():
        assert task.retry_policy.max_retry_count == (RETRIES if name in TRAINS else 0), name
    assert tasks["retrain"].retry_policy.backoff_factor > 1


def test_all_tries_fit_into_the_time_for_retries(tasks, spec, platform):
    """Kubeflow counts it from the first start on, and ends what is still running then."""
    for name in TRAINS & set(tasks):
        policy = tasks[name].retry_policy
        timeout = platform[spec.components[tasks[name].component_ref.name].executor_label.removeprefix("exec-")]
        waits = sum(policy.backoff_duration.seconds * policy.backoff_factor**i for i in range(RETRIES))
        needed = timeout.active_deadline_seconds * (RETRIES + 1) + waits
        assert policy.backoff_max_duration.seconds >= needed, name


def test_a_claim_lasts_longer_than_every_step_of_its_model(tmp_path):
    path = compile_one("compress_new_models", tmp_path / "package.yaml")
    pipeline, platform = yaml.safe_load_all(path.read_text())
    steps = platform["platforms"]["kubernetes"]["deploymentSpec"]["executors"]
    seconds = sum(int(step["activeDeadlineSeconds"]) for step in steps.values())
    hours = pipeline["root"]["inputDefinitions"]["parameters"]["claim_hours"]["defaultValue"]
    assert hours * 3600 > seconds


def test_every_step_is_the_images_user_and_never_root(platform):
    for name, config in platform.items():
        assert config.security_context.run_as_non_root is True, name
        assert config.security_context.run_as_user == USER, name


def test_what_must_happen_in_every_run_is_never_cached(spec, tasks):
    never = {"benchmark-latency", "check-request", "close-run", "find-requests", "finish-request", "plan-comparison"}
    for name, task in tasks.items():
        if spec.components[task.component_ref.name].executor_label:
            assert task.caching_options.enable_cache == (name not in never), name


def test_the_run_is_closed_whatever_happens(spec):
    task = spec.root.dag.tasks["close-run"]
    assert task.trigger_policy.strategy == task.trigger_policy.ALL_UPSTREAM_TASKS_COMPLETED


def test_the_split_is_cached_by_the_datasets_fingerprint_and_nothing_by_the_run(documents, tasks):
    assert tasks["split-data"].inputs.parameters["fingerprint"].task_output_parameter.producer_task == "check-request"
    assert "pipeline_job" not in str(documents[0])


def test_resources_for_gitops_are_the_packages(tmp_path):
    for path, package in zip(write_resources(tmp_path, "team-a"), compile_all(tmp_path), strict=True):
        pipeline, version = yaml.safe_load_all(path.read_text())
        assert [pipeline["kind"], version["kind"]] == ["Pipeline", "PipelineVersion"]
        assert version["spec"]["pipelineName"] == pipeline["metadata"]["name"]
        assert {pipeline["metadata"]["namespace"], version["metadata"]["namespace"]} == {"team-a"}
        spec, platform = yaml.safe_load_all(package.read_text())
        assert (version["spec"]["pipelineSpec"], version["spec"]["platformSpec"]) == (spec, platform)


def test_another_package_is_another_version_for_gitops(tmp_path, monkeypatch):
    monkeypatch.setattr("pfs_pipelines.packages.PIPELINES", {"compress": PIPELINES["compress"]})
    named = []
    for place, form in ((Placement(), PLAIN), (Placement(), PLAIN), (Placement(data_volume="x"), FormOptions(True))):
        paths = write_resources(tmp_path, "team-a", place, form)
        versions = [list(yaml.safe_load_all(path.read_text()))[1] for path in paths]
        named.append([version["metadata"]["name"] for version in versions])
    assert named[0] == named[1]
    assert not set(named[0]) & set(named[2])
    parameters = versions[0]["spec"]["pipelineSpec"]["root"]["inputDefinitions"]["parameters"]
    assert parameters["recipe"]["literals"] == CHOICES["recipe"]
    assert len(list(tmp_path.iterdir())) == len(paths)  # nothing else is left there


def test_the_form_begins_with_what_everybody_chooses_and_ends_with_the_pools(spec):
    """Kubeflow sorts it by name."""
    names = sorted(spec.root.input_definitions.parameters)
    kinds = ["where" if n.startswith("where_") else "settings" if n.startswith("settings_") else "own" for n in names]
    late = {"split_seed", "train_job"}  # what few choose
    assert [kind for name, kind in zip(names, kinds, strict=True) if name not in late] == sorted(
        (kind for name, kind in zip(names, kinds, strict=True) if name not in late),
        key=["own", "settings", "where"].index,
    )
    assert kinds.count("where") == 17


def test_a_file_of_pools_makes_the_defaults_of_the_form(tmp_path):
    values = pool_values(LAPTOP)
    path = copied("compress", tmp_path, FormOptions(defaults=values))
    parsed = json_format.ParseDict(next(yaml.safe_load_all(path.read_text())), pipeline_spec_pb2.PipelineSpec())
    definitions = parsed.root.input_definitions.parameters
    found = {name: json_format.MessageToDict(definitions[name])["defaultValue"] for name in values}
    assert found == values
    assert definitions["where_gpu_count"].default_value.string_value == "0"
    assert definitions["where_cpu_memory"].default_value.string_value == "4Gi"


@pytest.mark.parametrize(
    ("content", "said"),
    [("where_gpu_counts: '1'", "where_gpu_counts"), ("where_gpu_count: 0", "where_gpu_count must be text"),
     ("budget: macs=0.5", "budget"), ("- a", "must hold an object"),
     ("where_latency_cores: '0.5'", "a whole number of cores")],
)  # fmt: skip
def test_a_file_of_pools_is_checked(tmp_path, content, said):
    path = tmp_path / "pools.yaml"
    path.write_text(content)
    with pytest.raises(UserError, match=said):
        pool_values(path)


def copied(name, folder, form):
    """A package whose form is changed."""
    path = folder / f"{name}.yaml"
    shutil.copy(GOLDEN / path.name, path)
    set_form(path, form)
    return path


def test_drop_downs_are_an_option(tmp_path):
    for pipeline in PIPELINES:
        path = copied(pipeline, tmp_path, FormOptions(drop_downs=True))
        parameters = next(yaml.safe_load_all(path.read_text()))["root"]["inputDefinitions"]["parameters"]
        offered = {name: parameter["literals"] for name, parameter in parameters.items() if "literals" in parameter}
        assert offered == {name: values for name, values in CHOICES.items() if name in parameters}
        parsed = json_format.ParseDict(
            next(yaml.safe_load_all(path.read_text())), pipeline_spec_pb2.PipelineSpec()
        ).root.input_definitions.parameters
        for name in CHOICES:
            if name in parsed:
                default = parsed[name].default_value.string_value
                assert default in [value.string_value for value in parsed[name].literals], name


def test_components_import_only_the_library():
    for name in pfs_components.__all__:
        source = inspect.getsource(getattr(pfs_components, name).python_func)
        imported = [line.split()[1] for line in source.splitlines() if line.strip().startswith(("from ", "import "))]
        assert imported, name
        assert all(module.split(".")[0] in {"pfs_core", "shutil", "pathlib"} for module in imported), name


def test_the_local_runner_runs_this_definition():
    assert "define(Placement(local=True))" in inspect.getsource(run)
    for define in PIPELINES.values():
        here, there = (define(Placement(local=local)).pipeline_spec for local in (True, False))
        assert set(here.components) == set(there.components)


PLUGIN = {  # what Kubeflow's MLflow plugin adds to the container of a step where it injects variables
    "MLFLOW_RUN_ID": "value",
    "MLFLOW_TRACKING_URI": "value",
    "MLFLOW_EXPERIMENT_ID": "value",
    "MLFLOW_WORKSPACE": "value",
    "MLFLOW_TRACKING_AUTH": "value",
    "MLFLOW_TRACKING_TOKEN": "valueFrom",
    "MLFLOW_TRACKING_USERNAME": "valueFrom",
    "MLFLOW_TRACKING_PASSWORD": "valueFrom",
}


def variables(config, container):
    """The variables of a step's container as the driver sets them: ``{name: value or valueFrom}``."""
    pairs = [pair for group in (*config.config_map_as_env, *config.secret_as_env) for pair in group.key_to_env]
    names = [pair.env_var for pair in pairs] + [field.name for field in config.field_path_as_env]
    constants = [variable["name"] for variable in container.get("env", [])]
    found = {**dict.fromkeys(names, "valueFrom"), **dict.fromkeys(constants, "value")}
    assert len(found) == len(names) + len(constants), "a variable is set twice"
    return found


def merged(ours, added):
    """A patch of the pod that merges variables by name; refused as Kubernetes refuses it, or where a value is lost."""
    for name in ours.keys() & added.keys():
        raise AssertionError(f"{name}: may not be specified when value is not empty, or one replaces the other")
    return {**ours, **added}


@pytest.mark.parametrize("added", [{}, PLUGIN], ids=["off or not injecting", "injecting"])
def test_pods_are_accepted_with_kubeflows_mlflow_plugin(platform, containers, added):
    for name, config in platform.items():
        assert added.items() <= merged(variables(config, containers[name]), added).items()


def test_the_model_of_the_plugin_refuses_what_a_live_one_refused():
    with pytest.raises(AssertionError, match="MLFLOW_TRACKING_URI"):
        merged({"MLFLOW_TRACKING_URI": "valueFrom"}, PLUGIN)
