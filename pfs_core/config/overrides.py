"""Changes to a recipe's settings, as the command line and the pipelines give them."""

import ast
import json
from collections.abc import Mapping, Sequence
from typing import Any

from pfs_core.config.recipes import Recipe, default_recipe, recipe
from pfs_core.errors import UserError, did_you_mean
from pfs_core.storage.strict import json_value

Settings = Mapping[str, Any]
STAGES = ("split", "search", "extract", "retrain", "latency")
"""The stages that have settings."""


def recipe_for(name: str, dataset: str) -> Recipe:
    """Return the recipe called ``name``, or the one that suits the dataset if ``name`` is empty.

    Raises:
        UserError: there is no such recipe.
    """
    return recipe(name or default_recipe(dataset))


def parse_settings(pairs: Sequence[str], stages: Sequence[str]) -> dict[str, dict[str, Any]]:
    """Group settings by stage: ``["search.epochs=1"]`` becomes ``{"search": {"epochs": 1}}``.

    Args:
        pairs: texts ``STAGE.NAME=VALUE``. Values are read by :func:`parse_value`.
        stages: the stages whose settings are allowed; each becomes a key of the result.

    Raises:
        UserError: a pair has another form, or names another stage.
    """
    settings: dict[str, dict[str, Any]] = {stage: {} for stage in stages}
    for pair in pairs:
        key, equals, text = (part.strip() for part in pair.partition("="))
        stage, dot, name = key.partition(".")
        if not (equals and dot and name) or stage not in settings:
            hint = did_you_mean(stage, stages) if dot and stage not in settings else ""
            known = ", ".join(f"{stage}.NAME=VALUE" for stage in stages)
            raise UserError(f"--set {pair!r} is not understood{hint}; expected {known}")
        settings[stage][name] = parse_value(text)
    return settings


def parse_value(text: str) -> Any:
    """Return a value given as text: JSON, or a number, list or name as Python writes it, or else the text itself.

    Numbers with commas between them are a list.

    Raises:
        UserError: it begins as a JSON list or object, and has a name in it twice, or NaN.

    >>> [parse_value(text) for text in ("1e-3", ".5", "true", "True", "None", "8,16", "cosine")]
    [0.001, 0.5, True, True, None, [8, 16], 'cosine']
    """
    try:
        return json_value(text)
    except json.JSONDecodeError:
        pass
    except ValueError as e:
        if text.lstrip()[:1] in ("{", "["):
            raise UserError(f"{text!r} is not JSON: {e}") from None
    try:
        value = ast.literal_eval(text)
    except (ValueError, SyntaxError, RecursionError, MemoryError):
        return text
    if isinstance(value, tuple):
        return list(value)
    return value if isinstance(value, bool | int | float | list | None) else text


def prefixed(prefix: str, values: Mapping[str, Any]) -> dict[str, Any]:
    """Return ``values`` with ``prefix.`` before every name."""
    return {f"{prefix}.{key}": value for key, value in values.items()}


def whole_numbers(value: Any) -> Any:
    """Return ``value`` with floats that are whole numbers as integers, in lists and objects too.

    Pipelines pass numbers as JSON, in which 32 and 32.0 are the same.

    >>> whole_numbers({"width": 32.0, "rates": [0.5, 1.0]})
    {'width': 32, 'rates': [0.5, 1]}
    """
    if isinstance(value, dict):
        return {k: whole_numbers(v) for k, v in value.items()}
    if isinstance(value, list):
        return [whole_numbers(v) for v in value]
    return int(value) if isinstance(value, float) and value.is_integer() else value
