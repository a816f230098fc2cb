"""The compiled package is what a Kubeflow API server accepts, and every field of it speaks for itself."""

import inspect

import pytest
import yaml
from google.protobuf import json_format
from kfp import components as kfp_components
from kfp.pipeline_spec import pipeline_spec_pb2

import components
from pipelines.compress import define
from pipelines.local import run
from pipelines.packages import compile_all


@pytest.fixture(scope="module")
def package(tmp_path_factory):
    return compile_all(tmp_path_factory.mktemp("packages"))[0]


@pytest.fixture(scope="module")
def spec(package):
    """The package, parsed as strictly as the API server does: an unknown field raises."""
    return json_format.ParseDict(yaml.safe_load(package.read_text()), pipeline_spec_pb2.PipelineSpec())


def test_package_loads_as_a_component(package):
    assert kfp_components.load_component_from_file(str(package)).name == "compress"


def test_package_is_the_same_every_time(package, tmp_path):
    assert compile_all(tmp_path)[0].read_bytes() == package.read_bytes()


def test_every_step_runs_in_the_tagged_image(spec):
    executors = json_format.MessageToDict(spec.deployment_spec)["executors"]
    images = {executor["container"]["image"] for executor in executors.values()}
    assert len(executors) == 6
    assert len(images) == 1
    name, tag = images.pop().rsplit(":", 1)
    assert "python" in name
    assert tag != "latest"


def test_every_input_is_described_and_has_a_default(spec):
    for name, parameter in spec.root.input_definitions.parameters.items():
        assert parameter.description, name
        assert parameter.HasField("default_value"), name


def test_every_component_describes_all_it_takes(spec):
    for component in spec.components.values():
        if component.executor_label:
            for name, artifact in component.input_definitions.artifacts.items():
                assert artifact.description, name
            for name, parameter in component.input_definitions.parameters.items():
                assert parameter.description, name


def test_latency_is_never_cached_and_the_rest_is(spec):
    tasks = dict(spec.root.dag.tasks)
    assert not tasks["benchmark-latency"].caching_options.enable_cache
    assert tasks["search-gates"].caching_options.enable_cache


def test_components_import_only_the_library():
    for name in components.__all__:
        source = inspect.getsource(getattr(components, name).python_func)
        imported = [line.split()[1] for line in source.splitlines() if line.strip().startswith(("from ", "import "))]
        assert imported, name
        assert all(module.split(".")[0] in {"pfs_core", "shutil", "pathlib"} for module in imported), name


def test_the_local_runner_runs_this_definition():
    assert "define(parallelism=1)" in inspect.getsource(run)
    assert set(define().pipeline_spec.root.dag.tasks) == set(define(parallelism=1).pipeline_spec.root.dag.tasks)
