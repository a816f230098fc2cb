"""Changes to a recipe's settings, as the command line and the pipelines give them."""

import json
from collections.abc import Mapping, Sequence
from typing import Any

from pfs_core.config.recipes import Recipe, default_recipe, recipe
from pfs_core.errors import UserError, did_you_mean

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
        pairs: texts ``STAGE.NAME=VALUE``. A value is read as JSON, and is taken as text where it is not JSON.
        stages: the stages whose settings are allowed; each becomes a key of the result.

    Raises:
        UserError: a pair has another form, or names another stage.
    """
    settings: dict[str, dict[str, Any]] = {stage: {} for stage in stages}
    for pair in pairs:
        key, equals, text = pair.partition("=")
        stage, dot, name = key.partition(".")
        if not (equals and dot and name) or stage not in settings:
            hint = did_you_mean(stage, stages) if dot and stage not in settings else ""
            known = ", ".join(f"{stage}.NAME=VALUE" for stage in stages)
            raise UserError(f"--set {pair!r} is not understood{hint}; expected {known}")
        try:
            settings[stage][name] = json.loads(text)
        except json.JSONDecodeError:
            settings[stage][name] = text
    return settings


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
