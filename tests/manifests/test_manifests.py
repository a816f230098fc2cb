"""The manifests are what Kubernetes takes, hold no password, and let pods do no more than they need."""

import json
import re
import shutil
import subprocess
from pathlib import Path

import kubernetes_validate
import pytest
import yaml
from kubeflow_trainer_api.models import TrainerV1alpha1ClusterTrainingRuntime
from pfs_pipelines.compiled import load_package
from pfs_pipelines.packages import PIPELINES, write_resources
from pfs_pipelines.parameters import run_parameters
from pfs_pipelines.pools import CONFIG

from pfs_core.runtime.environment import SECRETS
from pfs_core.trainjob import launch
from pfs_core.trainjob.manifest import GROUP, PLURAL
from tests.manifests.kustomize import build, containers, pods, same_form

MANIFESTS = Path(__file__).parents[2] / "manifests"
OVERLAYS = sorted(path.name for path in (MANIFESTS / "overlays").iterdir())
RUNTIME = yaml.safe_load((MANIFESTS / "trainer" / "runtime.yaml").read_text())
SECRET = re.compile(r"(?i)password|secret|token|access_key")


@pytest.fixture(scope="module")
def manifests(tmp_path_factory):
    """A copy with every ``secret.env`` filled in, as a user does."""
    folder = tmp_path_factory.mktemp("manifests") / "manifests"
    shutil.copytree(MANIFESTS, folder, ignore=shutil.ignore_patterns("secret.env"))
    for example in folder.rglob("secret.env.example"):
        example.with_name("secret.env").write_text(example.read_text().replace("=\n", "=filled-in\n"))
    return folder


@pytest.fixture(scope="module", params=OVERLAYS)
def overlay(request):
    return request.param


@pytest.fixture(scope="module")
def objects(manifests, overlay):
    return build(manifests / "overlays" / overlay)


@pytest.mark.skipif(not shutil.which("kubectl"), reason="kubectl is not installed")
def test_kubectl_builds_the_same(manifests, overlay, objects):
    command = ["kubectl", "kustomize", str(manifests / "overlays" / overlay)]
    built = subprocess.run(command, capture_output=True, text=True, check=True).stdout
    ours = [json.dumps(same_form(document), sort_keys=True) for document in objects]
    theirs = [json.dumps(document, sort_keys=True) for document in yaml.safe_load_all(built)]
    assert sorted(theirs) == sorted(ours)


def test_without_secrets_of_ones_own_nothing_is_built(overlay, tmp_path):
    shutil.copytree(MANIFESTS, tmp_path / "manifests", ignore=shutil.ignore_patterns("secret.env"))
    with pytest.raises(FileNotFoundError, match=r"secret\.env"):
        build(tmp_path / "manifests" / "overlays" / overlay)


@pytest.mark.parametrize("version", ["1.33", "1.35"])
def test_every_object_passes_the_schemas_of_kubernetes(objects, version):
    for document in objects:
        kubernetes_validate.validate(document, version, strict=True)


def test_everything_is_in_the_overlays_namespace(objects):
    namespaces = {document["metadata"]["namespace"] for document in objects}
    assert len(namespaces) == 1
    for document in objects:
        for subject in document.get("subjects", []):
            assert subject["namespace"] in namespaces


def check_restricted(pod):
    """The rules of the "restricted" pod security standard, Kubernetes 1.33."""
    assert not {"hostNetwork", "hostPID", "hostIPC"} & {key for key, value in pod.items() if value}
    context = pod["securityContext"]
    assert context["runAsNonRoot"] is True
    assert context.get("runAsUser") != 0
    assert context["seccompProfile"]["type"] in ("RuntimeDefault", "Localhost")
    assert not context.get("sysctls")
    allowed = {
        "configMap",
        "csi",
        "downwardAPI",
        "emptyDir",
        "ephemeral",
        "persistentVolumeClaim",
        "projected",
        "secret",
    }
    for volume in pod.get("volumes", []):
        assert set(volume) - {"name"} <= allowed, volume
    for container in (*pod.get("initContainers", []), *pod["containers"]):
        own = container["securityContext"]
        assert own["allowPrivilegeEscalation"] is False
        assert own["capabilities"] == {"drop": ["ALL"]}
        assert not {"privileged", "procMount", "runAsUser", "runAsNonRoot", "seccompProfile"} & set(own)
        assert not any("hostPort" in port for port in container.get("ports", []))


def test_pods_are_restricted(overlay, objects):
    assert bool(pods(objects)) == (overlay == "laptop")
    for pod in pods(objects):
        check_restricted(pod)
        assert pod["automountServiceAccountToken"] is False
        for container in (*pod.get("initContainers", []), *pod["containers"]):
            assert container["securityContext"]["readOnlyRootFilesystem"] is True
            assert set(container["resources"]) == {"requests", "limits"}


def test_the_training_runtime_is_restricted_and_trainers_own_model_takes_it_whole():
    (pod,) = pods(RUNTIME)
    check_restricted(pod)
    taken = TrainerV1alpha1ClusterTrainingRuntime.from_dict(RUNTIME).to_dict()
    assert json.loads(json.dumps(taken)) == RUNTIME
    (job,) = RUNTIME["spec"]["template"]["spec"]["replicatedJobs"]
    assert job["name"] == "node"  # what TrainJobs patch, and what the launcher looks at
    assert f"'{job['name']}'" in Path(launch.__file__).read_text().replace('"', "'")


def test_every_server_is_called_by_those_who_need_it_only(overlay, objects):
    policies = [document for document in objects if document["kind"] == "NetworkPolicy"]
    servers = {d["metadata"]["name"]: d["spec"] for d in objects if d["kind"] == "Service"}
    assert bool(servers) == (overlay == "laptop")
    for name, service in servers.items():
        (policy,) = (p["spec"] for p in policies if p["spec"]["podSelector"] == {"matchLabels": service["selector"]})
        (rule,) = policy["ingress"]
        assert all(caller["podSelector"]["matchLabels"] for caller in rule["from"]), name
        assert [port["port"] for port in rule["ports"]] == [port["port"] for port in service["ports"]], name


@pytest.mark.parametrize("keys", [{}, {"AWS_ACCESS_KEY_ID": "me"}, {"AWS_SECRET_ACCESS_KEY": "hidden"}])
def test_the_object_store_does_not_start_without_keys(keys):
    store = MANIFESTS / "overlays" / "laptop" / "object-store.yaml"
    (container,) = containers(list(yaml.safe_load_all(store.read_text())))
    environment = {"AWS_ACCESS_KEY_ID": "", "AWS_SECRET_ACCESS_KEY": "", **keys}
    command = [*container["command"], *container["args"]]
    environment["PATH"] = "/usr/bin:/bin"
    done = subprocess.run(command, env=environment, capture_output=True, text=True, check=False)
    assert done.returncode != 0
    assert "is empty in secret.env" in done.stderr
    assert "entrypoint" not in done.stderr


def test_defaults_for_containers_are_not_for_a_namespace_that_others_use(overlay, objects):
    assert any(document["kind"] == "LimitRange" for document in objects) == (overlay == "cloud-gpu")


def test_the_pipelines_for_gitops_are_those_that_compile_writes(manifests):
    write_resources(manifests / "pipelines", "team-a")
    built = build(manifests / "pipelines")
    assert [document["kind"] for document in built] == ["Pipeline", "PipelineVersion"] * len(PIPELINES)


def test_images_have_tags(objects):
    images = [container["image"] for container in containers([*objects, RUNTIME])]
    assert images
    for image in images:
        name, _, tag = image.rpartition(":")
        assert name, image
        assert tag not in ("", "latest"), image


def test_no_password_is_in_the_repository():
    for path in MANIFESTS.rglob("*"):
        if path.is_file() and path.name != "secret.env":
            for line in path.read_text().splitlines():
                key, _, value = line.partition("=")
                assert not (path.suffix in (".env", ".example") and SECRET.search(key) and value), (path, line)
            if path.suffix == ".yaml":
                assert "kind: Secret" not in path.read_text()


def test_secrets_reach_containers_by_reference_only(objects):
    for container in containers(objects):
        for variable in container.get("env", []):
            if SECRET.search(variable["name"]):
                assert "secretKeyRef" in variable["valueFrom"], variable
            elif "value" in variable and SECRET.search(variable["value"]):
                assert re.search(r":\$\(\w+\)@", variable["value"]), variable


def test_the_templates_hold_what_steps_read_and_nothing_else(manifests, overlay, objects):
    found = {document["metadata"]["name"]: document for document in objects}
    assert set(found["pfs-config"]["data"]) <= set(CONFIG)
    servers = {"POSTGRES_PASSWORD"} if overlay == "laptop" else set()
    assert set(found["pfs-secret"]["stringData"]) <= {*SECRETS, *servers}
    assert {"MLFLOW_TRACKING_URI", "PFS_CHECKPOINTS", "KFP_UI_URL"} <= set(found["pfs-config"]["data"])


def test_references_within_an_overlay_hold(objects):
    found = {
        document["metadata"]["name"]: document for document in objects if document["kind"] in ("ConfigMap", "Secret")
    }
    for container in containers(objects):
        for variable in container.get("env", []):
            source = variable.get("valueFrom", {})
            for reference, key in ((source.get("configMapKeyRef"), "data"), (source.get("secretKeyRef"), "stringData")):
                if reference:
                    assert reference["key"] in found[reference["name"]][key]


def test_the_role_is_what_the_launcher_calls():
    """The verbs that its messages name are those that it needs."""
    role = yaml.safe_load((MANIFESTS / "components" / "trainjobs" / "role.yaml").read_text())
    granted = {
        f"{verb} {resource}" for rule in role["rules"] for resource in rule["resources"] for verb in rule["verbs"]
    }
    called = set(
        re.findall(r'"((?:create|get|delete|list|watch|patch|update) [a-z/]+)"', Path(launch.__file__).read_text())
    )
    assert granted == called
    assert {rule["apiGroups"][0] for rule in role["rules"] if PLURAL in rule["resources"]} == {GROUP}


@pytest.mark.parametrize("name", list(PIPELINES))
def test_the_example_parameters_are_the_pipelines(name):
    file = MANIFESTS / "overlays" / "cloud-gpu" / "params.yaml"
    assert run_parameters(load_package(name).parameters, [], file) == yaml.safe_load(file.read_text())
