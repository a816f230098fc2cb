"""Settings as the command line and the pipeline give them."""

import json
from collections.abc import Mapping, Sequence
from typing import Any

from pfs_core.config.recipes import Recipe, default_recipe, recipe
from pfs_core.errors import UserError

Settings = Mapping[str, Any]
STAGES = ("split", "search", "extract", "retrain", "latency")
"""The stages that have settings."""


def chosen(recipe_name: str, dataset: str) -> Recipe:
    """The named recipe, or the one that suits the dataset."""
    return recipe(recipe_name or default_recipe(dataset))


def parse_settings(pairs: Sequence[str], stages: Sequence[str]) -> dict[str, dict[str, Any]]:
    """``["search.epochs=1"]`` as ``{"search": {"epochs": 1}}``, for every stage in ``stages``.

    Raises:
        UserError: a pair is not ``STAGE.NAME=VALUE`` with a known stage.
    """
    settings: dict[str, dict[str, Any]] = {stage: {} for stage in stages}
    for pair in pairs:
        key, equals, text = pair.partition("=")
        stage, dot, name = key.partition(".")
        if not (equals and dot and name) or stage not in settings:
            known = ", ".join(f"{stage}.NAME=VALUE" for stage in stages)
            raise UserError(f"--set {pair!r} is not understood; expected {known}")
        try:
            settings[stage][name] = json.loads(text)
        except json.JSONDecodeError:
            settings[stage][name] = text
    return settings


def prefixed(prefix: str, values: Mapping[str, Any]) -> dict[str, Any]:
    """``values`` with ``prefix.`` before every name."""
    return {f"{prefix}.{key}": value for key, value in values.items()}


def whole_numbers(value: Any) -> Any:
    """``value`` with 32.0 as 32 wherever it stands in it: a pipeline's JSON has one kind of number."""
    if isinstance(value, dict):
        return {k: whole_numbers(v) for k, v in value.items()}
    if isinstance(value, list):
        return [whole_numbers(v) for v in value]
    return int(value) if isinstance(value, float) and value.is_integer() else value
