"""What the steps of a run are doing, from the nodes of its workflow as Argo writes them.

A task of Kubeflow is several nodes: ``NAME-driver`` prepares it, ``NAME`` holds what it does, and within that an
``executor`` runs the step in a pod. Where the controller tries things again, each of them is a node of the type *Retry*
above its tries ``NAME(0)``, ``NAME(1)``. A loop is a task whose rounds are called ``iteration-iterations(0:0)``. What
came from the cache has an executor of the type *Skipped*.
"""

import base64
import gzip
import json
import re
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime
from typing import Any, NamedTuple

Node = Mapping[str, Any]
Spec = Mapping[str, Any]

EXECUTOR, DRIVER = "executor", "-driver"
_TRY = re.compile(r"\(\d+\)$")
_ROUND = re.compile(r"^iteration-iterations\((\d+):\d+\)")
_SCAFFOLDING = ("iteration-iterations", "iteration-item", "iteration", "root", "entrypoint")


class Pod(NamedTuple):
    """A pod of a step."""

    node: str
    """The id of its node in the workflow."""
    name: str
    """What Kubernetes calls it."""


@dataclass(frozen=True)
class Step:
    """What a step of a run is doing."""

    path: tuple[str, ...]
    """The names of the tasks that it is in, with the rounds of loops, and its own name."""
    title: str
    """What people call it, with the item of the loop that it is in, e.g. ``Retrain from scratch (dense)``."""
    state: str
    """``waiting``, ``running``, ``again`` (it failed and is tried again), ``done``, ``cached`` or ``failed``."""
    reason: str
    """Why its pod waits, or why its last try failed; empty where the workflow does not say."""
    seconds: float | None
    """From the start of its first pod to the end of its last one; None while it runs."""
    pods: tuple[Pod, ...]
    """Its pods, the latest last, whose logs can be read."""
    ended: str = ""
    """When its last pod ended, as the workflow writes times; empty while it runs."""
    driver: bool = False
    """Whether it is Kubeflow's own preparation that waits or failed, and not the step."""


def steps(status: Mapping[str, Any], spec: Spec, parameters: Mapping[str, Any]) -> list[Step]:
    """Return the steps of a run, in the order in which they started.

    Args:
        status: ``status`` of the workflow.
        spec: the pipeline's specification, which names the steps.
        parameters: the parameters of the run, which name the items of loops.
    """
    nodes = _nodes(status)
    found: dict[tuple[str, ...], list[Node]] = {}
    for node in sorted(nodes.values(), key=lambda node: (node.get("startedAt") or "~", node["id"])):
        name = plain(node["displayName"])
        if name == EXECUTOR or (name.endswith(DRIVER) and node["type"] == "Pod"):
            found.setdefault(_path(node, nodes), []).append(node)
    result = []
    for path, group in found.items():
        executors = [node for node in group if plain(node["displayName"]) == EXECUTOR]
        own = executors or group
        if not executors and not _matters(own[-1]):
            continue
        if step := _step(path, own, bool(executors), _again(own[-1], nodes), title(path, spec, parameters)):
            result.append(step)
    return result


def _nodes(status: Mapping[str, Any]) -> dict[str, Node]:
    """Return the nodes by id, with all that is read of them; a large workflow has them packed.

    Argo leaves out what is empty, such as the phase of a node that it has only just added.
    """
    nodes: Mapping[str, Node] = status.get("nodes") or {}
    if packed := status.get("compressedNodes"):
        nodes = json.loads(gzip.decompress(base64.b64decode(packed)))
    given = {key: {name: value for name, value in node.items() if value is not None} for key, node in nodes.items()}
    return {
        key: {"id": key, "displayName": node.get("name", key), "type": "", "phase": "", "startedAt": "", **node}
        for key, node in given.items()
    }


def _matters(driver: Node) -> bool:
    """Whether a driver says something: it failed, or waits for a reason."""
    return driver["phase"] in ("Failed", "Error") or (driver["phase"] == "Pending" and bool(driver.get("message")))


def plain(name: str) -> str:
    """Return a node's name without the number of its try.

    >>> plain("search-gates(1)")
    'search-gates'
    """
    return _TRY.sub("", name)


def _above(node: Node, nodes: Mapping[str, Node]) -> Iterator[Node]:
    """Yield the nodes that a node is in, the nearest first."""
    while node := nodes.get(node.get("boundaryID") or "", {}):
        yield node


def _path(node: Node, nodes: Mapping[str, Node]) -> tuple[str, ...]:
    """Return the tasks that an executor or a driver is in, the outermost first; rounds of loops are numbers."""
    names = []
    if (own := plain(node["displayName"])) != EXECUTOR:
        names.append(own.removesuffix(DRIVER))
    for above in _above(node, nodes):
        name = above["displayName"]
        if found := _ROUND.match(name):
            names.append(found[1])
        elif (task := plain(name)) not in _SCAFFOLDING and not task.endswith(".onExit") and above.get("boundaryID"):
            names.append(task)
    return tuple(reversed(names))


def _again(node: Node, nodes: Mapping[str, Node]) -> bool:
    """Whether something around a node that failed goes on, so that it will be tried again."""
    waiting = [other for other in nodes.values() if other["type"] == "Retry" and other["phase"] == "Running"]
    tried = {(plain(above["displayName"]), above.get("boundaryID")) for above in [node, *_above(node, nodes)]}
    return any((other["displayName"], other.get("boundaryID")) in tried for other in waiting if _is_step(other))


def _is_step(node: Node) -> bool:
    """Whether a node is a step, or within one, and not a pipeline or a loop, which go on after a failure too."""
    template = node.get("templateName") or ""
    return node["displayName"] == EXECUTOR or "executor" in template or template.endswith(DRIVER)


def _step(path: tuple[str, ...], group: Sequence[Node], own: bool, again: bool, text: str) -> Step | None:
    pods = [node for node in group if node["type"] == "Pod"]
    last = pods[-1] if pods else group[-1]
    phase, reason = last["phase"], " ".join(last.get("message", "").split())
    if phase == "Omitted":
        return None
    if phase == "Skipped":
        state, reason = "cached", ""
    elif phase in ("Failed", "Error"):
        state = "again" if again else "failed"
    else:
        state = {"Pending": "waiting", "": "waiting", "Succeeded": "done"}.get(phase, "running")
        reason = reason if state == "waiting" else ""
    ended = _seconds(pods[0]["startedAt"], last.get("finishedAt")) if pods and state in ("done", "failed") else None
    names = tuple(Pod(node["id"], pod_name(node)) for node in pods)
    return Step(path, text, state, reason, ended, names, last.get("finishedAt") or "", not own)


def pod_name(node: Node) -> str:
    """Return the name of a node's pod, which Argo makes of the node's id and of its template.

    >>> pod_name({"id": "compress-hlhgd-4118817222", "templateName": "system-container-impl"})
    'compress-hlhgd-system-container-impl-4118817222'
    """
    workflow, _, number = node["id"].rpartition("-")
    return "-".join([workflow, node.get("templateName") or "", number])


def _seconds(start: str, end: str | None) -> float | None:
    if not start or not end:
        return None
    return (datetime.fromisoformat(end) - datetime.fromisoformat(start)).total_seconds()


def title(path: Sequence[str], spec: Spec, parameters: Mapping[str, Any]) -> str:
    """Return what people call a step: its title in the package, and the items of the loops that it is in.

    Args:
        path: as in :class:`Step`.
        spec: the pipeline's specification.
        parameters: the parameters of the run.
    """
    known = {name: definition.get("defaultValue") for name, definition in _definitions(spec).items()} | dict(parameters)
    values: dict[str, Any] = known
    component: Mapping[str, Any] = spec.get("root", {})
    text, items, loop = path[-1] if path else "the run", [], None
    for name in path:
        if name.isdigit() and loop is not None:
            items.append(_text(loop, int(name)))
            loop = None
            continue
        task = component.get("dag", {}).get("tasks", {}).get(name)
        if task is None:
            continue
        text = task.get("taskInfo", {}).get("name") or name
        values = {key: _value(given, values) for key, given in task.get("inputs", {}).get("parameters", {}).items()}
        if iterator := task.get("parameterIterator"):
            loop = _items(iterator["items"], values)
        component = spec.get("components", {}).get(task.get("componentRef", {}).get("name", ""), {})
    return f"{text} ({', '.join(items)})" if items else text


def step_titles(spec: Spec) -> dict[str, str]:
    """Return what people call the steps of a pipeline and of the pipelines within it, by the names of their tasks."""
    components = spec.get("components", {})
    return {
        name: task.get("taskInfo", {}).get("name") or name
        for component in (spec.get("root", {}), *components.values())
        for name, task in component.get("dag", {}).get("tasks", {}).items()
        if "executorLabel" in components.get(task.get("componentRef", {}).get("name", ""), {})
    }


def _definitions(spec: Spec) -> Mapping[str, Mapping[str, Any]]:
    found: Mapping[str, Mapping[str, Any]] = spec.get("root", {}).get("inputDefinitions", {}).get("parameters", {})
    return found


def _value(given: Mapping[str, Any], values: Mapping[str, Any]) -> Any:
    """Return the value of a task's input, or None where another task makes it."""
    if "componentInputParameter" in given:
        return values.get(given["componentInputParameter"])
    return given.get("runtimeValue", {}).get("constant")


def _items(items: Mapping[str, Any], values: Mapping[str, Any]) -> list[Any]:
    """Return the items of a loop as far as they are known before it runs."""
    found = json.loads(items["raw"]) if "raw" in items else values.get(items.get("inputParameter", ""))
    return found if isinstance(found, list) else []


def _text(items: Sequence[Any], index: int) -> str:
    """Return an item as a text; its number, from 1, where it is not known."""
    if index >= len(items):
        return f"{index + 1}"
    item = items[index]
    return item if isinstance(item, str) else json.dumps(item)
