"""Settings from the command line and from pipelines."""

import pytest

from pfs_core.config.overrides import STAGES, parse_settings, parse_value, recipe_for, whole_numbers
from pfs_core.config.recipes import recipe
from pfs_core.errors import UserError


def test_settings_are_grouped_by_stage_and_read_as_json():
    pairs = ["search.epochs=1", "search.lr=0.5", "retrain.milestones=[0.5]", "retrain.schedule=cosine", "search.x="]
    assert parse_settings(pairs, ("search", "retrain", "split")) == {
        "search": {"epochs": 1, "lr": 0.5, "x": ""},
        "retrain": {"milestones": [0.5], "schedule": "cosine"},
        "split": {},
    }


@pytest.mark.parametrize("pair", ["epochs=1", "search.epochs", "search.=1", "=1", "", "model.width=3"])
def test_a_pair_of_another_form_or_stage_is_refused(pair):
    with pytest.raises(UserError, match=r"is not understood; expected split\.NAME=VALUE, search\.NAME=VALUE"):
        parse_settings([pair], STAGES)


def test_a_stage_that_is_nearly_right_is_hinted_at():
    with pytest.raises(UserError, match=r"'serch\.epochs=1' is not understood \(did you mean search\?\)"):
        parse_settings(["serch.epochs=1"], STAGES)


def test_without_a_name_the_dataset_decides_the_recipe():
    assert recipe_for("", "digits") == recipe("demo")
    assert recipe_for("", "/data/cifar10") == recipe("standard")
    assert recipe_for("fast", "digits") == recipe("fast")


def test_whole_numbers_are_integers_wherever_they_stand():
    value = {"a": 2.0, "b": [1.0, 0.5, {"c": 3.0}], "d": True, "e": "1.0", "f": None}
    found = whole_numbers(value)
    assert found == value
    assert [type(x) for x in (found["a"], found["b"][0], found["b"][1], found["b"][2]["c"])] == [int, int, float, int]
    assert found["d"] is True


@pytest.mark.parametrize(
    ("text", "value"),
    [
        ("3", 3), ("1e-3", 1e-3), (".5", 0.5), ("5.", 5.0), ("-.5", -0.5), ("true", True), ("True", True),
        ("False", False), ("null", None), ("None", None), ("[8, 16]", [8, 16]), ("[True, None]", [True, None]),
        ('{"a": 1}', {"a": 1}), ('"3"', "3"), ("cosine", "cosine"), ("a=b", "a=b"), ("", ""), ("__import__('os')",) * 2,
        ("NaN", "NaN"), ("(1, 2)", [1, 2]), ("1,2", [1, 2]), ("'quoted'", "'quoted'"), ("1 if True else 2",) * 2,
    ],
)  # fmt: skip
def test_a_value_is_json_or_what_python_writes_for_the_same(text, value):
    assert parse_value(text) == value
    assert type(parse_value(text)) is type(value)


@pytest.mark.parametrize("text", ['{"a": 1, "a": 2}', '[{"a": {"b": 1, "b": 1}}]', "[NaN]", '{"a": Infinity}'])
def test_a_value_that_says_two_things_is_refused(text):
    with pytest.raises(UserError, match=r"is not JSON: ('[ab]' is there twice|\w+ is no number)"):
        parse_settings([f"model.x={text}"], ("model",))


def test_values_with_commas_between_them_are_a_list():
    settings = parse_settings(["retrain.milestones=0.5,0.75", "retrain.lr = (0.1,)", " search.a = x,y "], STAGES)
    assert settings["retrain"] == {"milestones": [0.5, 0.75], "lr": [0.1]}
    assert settings["search"] == {"a": "x,y"}
    latency = recipe("demo").stage("latency", {"runtimes": "eager, onnxruntime", "threads": [1, 2]})
    assert (latency.runtimes, latency.threads) == (("eager", "onnxruntime"), (1, 2))
    with pytest.raises(UserError, match="latency.runtimes.1: must be onnxruntime, eager, .* .got 'torch'"):
        recipe("demo").stage("latency", {"runtimes": "eager,torch"})
