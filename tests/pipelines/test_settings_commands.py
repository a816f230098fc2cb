"""``pfs settings``: every setting has its value in the recipe and says what it means."""

import json

import pytest
from pfs_pipelines.cli import main
from pfs_pipelines.settings_commands import settings_of

from pfs_core.config.overrides import STAGES, parse_settings
from pfs_core.config.recipes import RECIPES, recipe
from pfs_core.methods.registry import METHODS, method_config


@pytest.mark.parametrize("name", RECIPES)
def test_what_is_listed_can_be_set_to_what_it_is(name):
    chosen = recipe(name)
    pairs = [f"{row['setting']}={json.dumps(row['value'])}" for row in settings_of("", name)]
    found = parse_settings(pairs, STAGES)
    for stage in STAGES:
        expected = method_config(chosen, {}) if stage == "search" else chosen.stage(stage, {})
        assert type(expected).parse(found[stage], stage) == expected


@pytest.mark.parametrize("method", METHODS)
def test_every_setting_says_what_it_means(method):
    rows = settings_of("", "standard", method)
    assert [row["setting"] for row in rows if not row["meaning"]] == []
    assert {"setting": "search.method", "value": method} in [{k: row[k] for k in ("setting", "value")} for row in rows]


def test_a_stage_of_a_recipe_is_printed_in_80_columns(capsys):
    assert not main(["settings", "retrain", "--recipe", "cifar-official"])
    lines = capsys.readouterr().out.splitlines()
    assert "retrain.epochs=160" in lines
    assert all(line.startswith(("retrain.", "    ")) and len(line) <= 80 for line in lines)


def test_an_unknown_stage_is_refused(capsys):
    assert main(["settings", "retrian"]) == 2
    assert "did you mean retrain?" in capsys.readouterr().err


@pytest.mark.parametrize("stage", [[], ["search"], ["split"]])
def test_an_unknown_method_is_refused_whatever_is_listed(stage, capsys):
    assert main(["settings", *stage, "--method", "network-slimming"]) == 2
    assert "did you mean network_slimming?" in capsys.readouterr().err
