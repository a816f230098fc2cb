"""The parameters of a run on a cluster, checked against their definitions in the compiled package."""

import json
import logging
import re
from collections.abc import Mapping, Sequence
from dataclasses import fields
from pathlib import Path
from typing import Any

from pfs_pipelines.names import LONGEST_TITLE, OBJECT_NAME, RESOURCE_NAME
from pfs_pipelines.nodes import check_nodes
from pfs_pipelines.pools import Pools, form_name

from pfs_core.config.quantities import CORES, MEMORY
from pfs_core.errors import UserError, did_you_mean
from pfs_core.storage.artifacts import read_json, read_yaml
from pfs_core.storage.strict import json_value

logger = logging.getLogger(__package__)

Definitions = Mapping[str, Mapping[str, Any]]

TYPES: dict[str, tuple[tuple[type, ...], str]] = {
    "STRING": ((str,), "text"),
    "NUMBER_INTEGER": ((int,), "a whole number"),
    "NUMBER_DOUBLE": ((int, float), "a number"),
    "BOOLEAN": ((bool,), "true or false"),
    "LIST": ((list,), 'a JSON list, e.g. ["a", "b"]'),
    "STRUCT": ((dict,), 'a JSON object, e.g. {"a": 1}'),
}
"""The Python types of each ``parameterType``, and how an error message describes them."""

_GPUS = re.compile(r"[01]"), "0 or 1: a step uses one GPU; several train with train_job"
_NAME = OBJECT_NAME, "the name of an object of Kubernetes (small letters, digits, - and .), and not empty"
_RESOURCE = RESOURCE_NAME, "the name of a resource of Kubernetes, e.g. nvidia.com/gpu"
PATTERNS = {
    "where_config_map": _NAME,
    "where_secret": _NAME,
    "where_gpu_type": _RESOURCE,
    "where_gpu_count": _GPUS,
    "where_gpu_count_retrain": _GPUS,
    "where_gpu_cpu": CORES,
    "where_gpu_memory": MEMORY,
    "where_cpu_cores": CORES,
    "where_cpu_memory": MEMORY,
    "where_latency_cores": (re.compile(r"[1-9]\d*"), "a whole number of cores, e.g. 2"),
    "where_latency_memory": MEMORY,
}
"""Patterns of the parameters of :class:`pfs_pipelines.pools.Pools`, and how an error message describes them."""


def run_parameters(definitions: Definitions, pairs: Sequence[str], file: Path | None) -> dict[str, Any]:
    """Return the parameters of a run, from a file and from pairs; pairs win over the file.

    Args:
        definitions: ``parameters`` of the package's ``inputDefinitions``.
        pairs: ``NAME=VALUE``.
        file: a JSON or YAML object of values by name.

    Raises:
        UserError: a pair or the file is malformed, a name is unknown, a value has the wrong type, or a parameter
            without a default is missing.
    """
    values: dict[str, Any] = {}
    if file:
        values = read_json(file) if file.suffix == ".json" else read_yaml(file)
        if not isinstance(values, dict):
            raise UserError(f"{file} must hold an object of the form NAME: VALUE")
        values = _today(values, definitions)
    texts = _today(dict(_pair(pair) for pair in pairs), definitions)
    for name in (*values, *texts):
        if name not in definitions:
            hint = did_you_mean(str(name), definitions)
            raise UserError(f"the pipeline has no parameter {name!r}{hint}; known: {', '.join(definitions) or 'none'}")
    values = values | {name: _parse(name, text, definitions[name]["parameterType"]) for name, text in texts.items()}
    for name, value in values.items():
        _check(name, value, definitions[name]["parameterType"])
    optional = ("defaultValue", "isOptional")
    missing = [name for name, d in definitions.items() if name not in values and not any(key in d for key in optional)]
    if missing:
        raise UserError(f"the pipeline needs a value for {', '.join(missing)}; give --param NAME=VALUE")
    return values


def pool_values(file: Path) -> dict[str, Any]:
    """Return the values of the parameters ``where_...`` in a YAML or JSON file.

    Raises:
        UserError: the file is malformed, or names something else, or a value has the wrong type.
    """
    kinds: dict[type, str] = {str: "STRING", list: "LIST", dict: "STRUCT"}
    defaults = {form_name(f.name): getattr(Pools(), f.name) for f in fields(Pools)}
    definitions = {n: {"parameterType": kinds[type(value)], "isOptional": True} for n, value in defaults.items()}
    return run_parameters(definitions, (), file)


def _today(values: Mapping[str, Any], definitions: Definitions) -> dict[str, Any]:
    """Return parameters by their names of today, and say which had one of 0.1.0.

    Raises:
        UserError: a parameter is there by both names.
    """
    renamed = {name: form_name(str(name)) for name in values if name not in definitions}
    known = {name: now for name, now in renamed.items() if now in definitions}
    for name, now in known.items():
        if now in values:
            raise UserError(f"the parameter {now} is given twice, also as {name}; leave out {name}")
        logger.info(f"the parameter {name} is called {now} now")
    return {known.get(name, name): value for name, value in values.items()}


def run_name(pipeline: str, definitions: Definitions, given: Mapping[str, Any]) -> str:
    """Return what a run does, as its name, which may be cut: the pipeline, the network, the dataset and the budgets.

    Args:
        pipeline: the name of the pipeline.
        definitions: as for :func:`run_parameters`.
        given: the parameters of the run.

    >>> run_name("compress", {"model": {"defaultValue": "resnet20"}, "budget": {}}, {"budget": "macs=0.4", "seed": 1})
    'compress resnet20 macs=0.4'
    """
    values = {name: definition.get("defaultValue") for name, definition in definitions.items()} | dict(given)
    words = [pipeline]
    for name in ("model", "dataset", "budget", "budgets"):
        value = values.get(name)
        words += [str(item).rstrip("/").rpartition("/")[2] for item in (value if isinstance(value, list) else [value])]
    name = " ".join(word for word in words if word and word != "None")
    return name if len(name) <= LONGEST_TITLE else f"{name[: LONGEST_TITLE - 3]}..."


def _pair(pair: str) -> tuple[str, str]:
    name, equals, text = pair.partition("=")
    if not equals or not name:
        raise UserError(f"--param {pair!r} is not understood; expected NAME=VALUE")
    return name, text


def _parse(name: str, text: str, kind: str) -> Any:
    """Return ``text`` as a value of a parameter's type, or the text itself if it is no such value.

    >>> _parse("a", "3", "NUMBER_INTEGER"), _parse("a", "3", "STRING"), _parse("a", "x", "LIST")
    (3, '3', 'x')
    """
    if kind == "STRING":
        return text
    if kind == "NUMBER_DOUBLE" and re.fullmatch(r"[+-]?(\d+\.?\d*|\.\d+)(e[+-]?\d+)?", text, re.IGNORECASE):
        return float(text)
    try:
        return json_value(text.lower() if kind == "BOOLEAN" else text)
    except json.JSONDecodeError:
        return text
    except ValueError as e:
        raise UserError(f"parameter {name} is not JSON: {e} (got {text!r})") from None


def _check(name: str, value: Any, kind: str) -> None:
    types, wanted = TYPES.get(kind, ((), ""))
    if not types:
        raise UserError(f"parameter {name} has the type {kind}, and only the cluster can set it")
    if not isinstance(value, types) or (isinstance(value, bool) and bool not in types):
        raise UserError(f"parameter {name} must be {wanted} (got {value!r})")
    if isinstance(value, str) and name in PATTERNS:
        pattern, wanted = PATTERNS[name]
        if not pattern.fullmatch(value):
            raise UserError(f"parameter {name} must be {wanted} (got {value!r})")
    if name.startswith("where_"):
        check_nodes(name, value)
    try:
        json.dumps(value, allow_nan=False)
    except (TypeError, ValueError):
        raise UserError(f"parameter {name} cannot be written as JSON (got {value!r})") from None
