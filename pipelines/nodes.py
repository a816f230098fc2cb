"""The parameters that choose nodes of a cluster, checked as Kubernetes would."""

import re
from typing import Any

from pfs_core.errors import UserError, did_you_mean

_OPERATORS = ("Exists", "Equal")
_EFFECTS = ("NoSchedule", "PreferNoSchedule", "NoExecute")
_CHOICES = {"operator": _OPERATORS, "effect": _EFFECTS}
_FIELDS = ("key", "operator", "value", "effect", "tolerationSeconds")
_PART = r"[a-z0-9]([-a-z0-9]*[a-z0-9])?"
_KEY = re.compile(rf"((?=.{{1,253}}/){_PART}(\.{_PART})*/)?[A-Za-z0-9]([-\w.]{{0,61}}[A-Za-z0-9])?", re.ASCII)
_VALUE = re.compile(r"([A-Za-z0-9]([-\w.]{0,61}[A-Za-z0-9])?)?", re.ASCII)


def check_nodes(name: str, value: Any) -> None:
    """Check the value of a parameter if it is a node selector or a list of tolerations.

    Raises:
        UserError: Kubernetes would refuse it, or would not see what is meant.
    """
    if name.endswith("_node_selector"):
        for label, text in value.items():
            if not _KEY.fullmatch(label) or not isinstance(text, str) or not _VALUE.fullmatch(text):
                wanted = 'labels of nodes with texts as values, e.g. {"pool": "gpu"}'
                raise UserError(f"parameter {name} must be {wanted} (got {label!r}: {text!r})")
    if name.endswith("_tolerations"):
        for toleration in value:
            _check_toleration(name, toleration)


def _check_toleration(name: str, toleration: Any) -> None:
    if not isinstance(toleration, dict) or not toleration:
        wanted = 'a list of tolerations, e.g. [{"key": "gpu", "operator": "Exists", "effect": "NoSchedule"}]'
        raise UserError(f"parameter {name} must be {wanted} (got {toleration!r} in it)")
    for field, value in toleration.items():
        if field not in _FIELDS:
            hint = did_you_mean(str(field), _FIELDS)
            raise UserError(f"parameter {name}: a toleration has no {field!r}{hint}; known: {', '.join(_FIELDS)}")
        choices = _CHOICES.get(field)
        if choices and value not in choices:
            hint = did_you_mean(str(value), choices)
            raise UserError(f"parameter {name}: {field} must be {' or '.join(choices)}{hint} (got {value!r})")
        kind, wanted = (int, "a whole number") if field == "tolerationSeconds" else (str, "text")
        if not isinstance(value, kind) or isinstance(value, bool):
            raise UserError(f"parameter {name}: {field} must be {wanted} (got {value!r})")
    if wrong := _wrong_together(toleration):
        raise UserError(f"parameter {name}: {wrong} (got {toleration!r})")


def _wrong_together(toleration: dict[str, Any]) -> str:
    """Return why Kubernetes would refuse a toleration whose fields are each of the right kind; or nothing."""
    key, value = toleration.get("key", ""), toleration.get("value", "")
    exists = toleration.get("operator") == "Exists"
    if key and not _KEY.fullmatch(key):
        return "key must be that of a taint, e.g. nvidia.com/gpu"
    if not key and not exists:
        return "a toleration without a key is of all taints, and needs the operator Exists"
    if exists and value:
        return "the operator Exists takes no value; leave it out, or choose Equal"
    if not _VALUE.fullmatch(value):
        return "value must be that of a taint: letters, digits and -_."
    if "tolerationSeconds" in toleration and toleration.get("effect") != "NoExecute":
        return "tolerationSeconds needs the effect NoExecute"
    return ""
