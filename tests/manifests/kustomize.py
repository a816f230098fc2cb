"""What kustomize makes of a folder, for the features that the manifests use; any other is refused.

``kubectl kustomize`` is what users run; a test compares the two where it is installed.
"""

import copy
from pathlib import Path

import yaml

FEATURES = {
    "apiVersion", "kind", "namespace", "resources", "components", "configMapGenerator", "secretGenerator",
    "generatorOptions", "images", "patches",
}  # fmt: skip
CLUSTER_WIDE = {"Namespace", "ClusterRole", "ClusterRoleBinding", "ClusterTrainingRuntime"}


def build(folder: Path) -> list[dict]:
    """The objects of an overlay; FileNotFoundError if a file that it names is missing."""
    values = yaml.safe_load((folder / "kustomization.yaml").read_text())
    assert set(values) <= FEATURES, set(values) - FEATURES
    objects = []
    for name in (*values.get("resources", []), *values.get("components", [])):
        path = folder / name
        if path.is_dir():
            objects += build(path)
        else:
            objects += [document for document in yaml.safe_load_all(path.read_text()) if document]
    for patch in values.get("patches", []):
        change = yaml.safe_load((folder / patch["path"]).read_text())
        (target,) = (
            o for o in objects if (o["kind"], o["metadata"]["name"]) == (change["kind"], change["metadata"]["name"])
        )
        merge(target, change)
    for kind, generator in (("ConfigMap", "configMapGenerator"), ("Secret", "secretGenerator")):
        objects += [generated(kind, entry, folder) for entry in values.get(generator, [])]
    if values.get("configMapGenerator") or values.get("secretGenerator"):
        assert values["generatorOptions"] == {"disableNameSuffixHash": True}
    for document in objects:
        if "namespace" in values and document["kind"] not in CLUSTER_WIDE:
            document["metadata"]["namespace"] = values["namespace"]
        for image in values.get("images", []):
            rename(document, image)
    return objects


def merge(document, change):
    """Put the values of a patch in the place of those of the object; lists whole."""
    for key, value in change.items():
        if isinstance(value, dict) and isinstance(document.get(key), dict):
            merge(document[key], value)
        else:
            document[key] = value


def generated(kind, entry, folder):
    """A ConfigMap or Secret of the files with a line ``KEY=VALUE`` a key."""
    assert set(entry) == {"name", "envs"}
    data = {}
    for name in entry["envs"]:
        lines = [line for line in (folder / name).read_text().splitlines() if line and not line.startswith("#")]
        data |= dict(line.split("=", 1) for line in lines)
    document = {"apiVersion": "v1", "kind": kind, "metadata": {"name": entry["name"]}}
    return document | ({"data": data} if kind == "ConfigMap" else {"type": "Opaque", "stringData": data})


def rename(document, image):
    """Give containers of this image its new name and tag."""
    for container in containers(document):
        if container["image"] == image["name"]:
            container["image"] = f"{image['newName']}:{image['newTag']}"


def pods(document) -> list[dict]:
    """Every pod template's spec in an object, at any depth."""
    found = []
    if isinstance(document, dict):
        spec = document.get("spec")
        if isinstance(spec, dict) and "containers" in spec:
            found.append(spec)
        for value in document.values():
            found += pods(value)
    elif isinstance(document, list):
        for value in document:
            found += pods(value)
    return found


def containers(document) -> list[dict]:
    """Every container in an object."""
    return [c for pod in pods(document) for c in (*pod.get("initContainers", []), *pod["containers"])]


def same_form(document):
    """A generated Secret as kustomize writes it."""
    import base64

    document = copy.deepcopy(document)
    if "stringData" in document:
        text = document.pop("stringData")
        document["data"] = {key: base64.b64encode(value.encode()).decode() for key, value in text.items()}
    return document
