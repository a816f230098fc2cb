"""What a user asks for is read exactly, or refused in one line that says what would be right."""

import re
from types import UnionType
from typing import Union, get_origin

import pytest
from hypothesis import given
from hypothesis import strategies as st
from pydantic import ValidationError

from pfs_core.config.spec import Budget, Config, ModelSpec
from pfs_core.config.stages import ExtractConfig, LatencyConfig, RetrainConfig, SplitConfig
from pfs_core.errors import UserError
from pfs_core.methods.network_slimming.config import NetworkSlimmingConfig
from pfs_core.methods.pfs.config import PfsConfig

metrics = st.sampled_from(["macs", "params"])


def refused(call, *args):
    """The message of the UserError that ``call`` raises; one line."""
    with pytest.raises(UserError) as error:
        call(*args)
    assert "\n" not in str(error.value)
    return str(error.value)


@pytest.mark.parametrize(
    ("text", "metric", "target"),
    [
        ("macs=0.5", "macs", 0.5),
        ("params=0.4", "params", 0.4),
        (" macs=1 ", "macs", 1.0),
        ("macs=20M", "macs", 20e6),
        ("macs=20.4M", "macs", 20.4e6),
        ("params=85K", "params", 85e3),
        ("macs=1.5G", "macs", 1.5e9),
        ("macs=20000000", "macs", 20e6),
        ("macs=2e7", "macs", 2e7),
        ("macs=5e-1", "macs", 0.5),
    ],
)
def test_budget_is_read(text, metric, target):
    budget = Budget.from_text(text)
    assert budget.metric == metric
    assert budget.target == pytest.approx(target, rel=1e-12)


@pytest.mark.parametrize(
    "text",
    ["", "0.5", "macs", "macs=", "macs=half", "macs=-0.5", "macs=0", "macs=1.5", "macs=999", "macs=50%", "macs=1.2.3",
     "macs=nan", "macs=inf", "macs=1e999", "macs=0.5T", "latency=2ms", "latency=20M", "flops=0.5", "macs:0.5"],
)  # fmt: skip
def test_what_is_no_budget_is_refused(text):
    assert "budget" in refused(Budget.from_text, text)


@given(
    st.text(max_size=12) | st.builds("macs={}{}".format, st.text("0123456789.eE+-", max_size=8), st.text(max_size=2))
)
def test_any_text_is_a_budget_or_a_user_error(text):
    try:
        budget = Budget.from_text(text)
    except UserError:
        return
    assert 0 < budget.target <= 1 or budget.target >= 1000


@given(metrics, st.floats(1e-6, 1.0) | st.integers(1000, 10**12).map(float))
def test_a_budget_written_out_is_read_back(metric, target):
    budget = Budget(metric=metric, target=target)
    assert Budget.from_text(str(budget)) == budget


@given(st.integers(1000, 10**10), st.floats(0.01, 1.0))
def test_a_fraction_is_of_the_reference(reference, fraction):
    budget = Budget(target=fraction)
    assert 0 <= budget.limit(reference) - fraction * reference < 1e-3  # costs are whole numbers
    assert budget.fraction(reference) == pytest.approx(fraction)


def test_a_count_is_absolute():
    budget = Budget(target=2000)
    assert budget.limit(8000) == 2000
    assert budget.fraction(8000) == 0.25


class Inner(Config):
    """One setting of its own."""

    depth: int = 1


class Settings(Config):
    """Two settings."""

    lr: float = 0.1
    epochs: int = 2
    inner: Inner = Inner()


def test_an_unknown_key_lists_the_known_ones():
    message = refused(Settings.parse, {"learning_rate": 1}, "retrain")
    assert message == "retrain.learning_rate is not a setting; known: lr, epochs, inner"


def test_an_unknown_key_further_in_lists_those_known_there():
    message = refused(Settings.parse, {"inner": {"width": 1}}, "retrain")
    assert message == "retrain.inner.width is not a setting (did you mean depth?); known: depth"


def test_a_wrong_value_is_shown():
    message = refused(Settings.parse, {"epochs": "many"}, "retrain")
    assert message.startswith("retrain.epochs: ")
    assert message.endswith("(got 'many')")


@pytest.mark.parametrize("value", [float("nan"), float("inf")])
def test_a_number_that_is_not_finite_is_refused(value):
    assert "retrain.lr" in refused(Settings.parse, {"lr": value}, "retrain")


@pytest.mark.parametrize("values", [[], "lr", None, 3])
def test_what_is_no_mapping_is_refused(values):
    assert refused(Settings.parse, values, "retrain").startswith("retrain")


def test_a_configuration_cannot_be_changed_but_updated():
    settings = Settings(lr=0.5)
    with pytest.raises(ValidationError):
        settings.lr = 1.0
    assert settings.updated({"epochs": 7}, "retrain") == Settings(lr=0.5, epochs=7)
    assert settings.epochs == 2
    refused(lambda: settings.updated({"epochs": 0.5}, "retrain"))


@pytest.mark.parametrize(
    ("config", "values", "message"),
    [
        (ModelSpec, {}, "x.name: is missing"),
        (ModelSpec, {"name": "a", "num_classes": 1}, "x.num_classes: "),
        (ModelSpec, {"name": "a", "input_shape": [3, 32]}, "x.input_shape"),
        (ModelSpec, {"name": "a", "input_shape": [3, 32, 0]}, "x.input_shape: must be three positive numbers"),
        (ModelSpec, {"name": "a", "expand": 0.5}, "x.expand: "),
        (
            ModelSpec,
            {"name": "a", "classes": 10},
            "x.classes is not a setting (did you mean num_classes?); known: name, ",
        ),
        (PfsConfig, {"epochs": 0}, "x.epochs: "),
        (PfsConfig, {"batch_size": 1}, "x.batch_size: "),
        (PfsConfig, {"policy": "outer"}, "x.policy: "),
        (PfsConfig, {"precision": "fp16"}, "x.precision: "),
        (PfsConfig, {"target_ratio": 1.5}, "x.target_ratio: "),
        (RetrainConfig, {"epochs": 2, "lr": 0}, "x.lr: "),
        (RetrainConfig, {"epochs": 2, "momentum": 1.0}, "x.momentum: "),
        (RetrainConfig, {"epochs": 2, "milestones": [0.6, 0.3]}, "x.milestones: must be rising fractions"),
        (RetrainConfig, {"epochs": 2, "milestones": [0.5, 1.0]}, "x.milestones: must be rising fractions"),
        (NetworkSlimmingConfig, {"milestones": [0.6, 0.3]}, "x.milestones: must be rising fractions"),
        (RetrainConfig, {"epochs": 2, "schedule": "linear"}, "x.schedule: "),
        (ExtractConfig, {"blocks": "foo"}, "x.blocks: must be auto or a whole number from 1 (got 'foo')"),
        (ExtractConfig, {"blocks": 0}, "x.blocks: must be auto or a whole number from 1 (got 0)"),
        (ExtractConfig, {"threads": 1.5}, "x.threads: must be auto or a whole number from 1 (got 1.5)"),
        (SplitConfig, {"channels": 2}, "x.channels: must be 1, 3 or None (got 2)"),
        (SplitConfig, {"label_column": 3}, "x.label_column: must be None or a text (got 3)"),
        (SplitConfig, {"image_size": "large"}, "x.image_size: must be a side in pixels such as 224, or height"),
        (PfsConfig, {"expand_stream": 9}, "x.expand_stream: must be None or a number in [1.0, 8.0] (got 9)"),
        (LatencyConfig, {"min_rounds": 63}, "x.min_rounds: "),
        (LatencyConfig, {"threads": -1}, "x.threads"),
        (LatencyConfig, {"runtimes": ["tvm"]}, "x.runtimes"),
    ],
)
def test_wrong_settings_are_refused(config, values, message):
    assert re.match(re.escape(message), refused(config.parse, values, "x"))


PYDANTICS = re.compile("Input should|a valid |Field required|Value error|after validation")


def every_field(config):
    """The fields of all settings below ``config``, but for those that take anything and those of the tests."""
    for kind in config.__subclasses__():
        if not kind.__module__.startswith("tests."):
            yield from ((kind, name, field.annotation) for name, field in kind.model_fields.items())
        yield from every_field(kind)


@pytest.mark.parametrize(
    "value",
    [object(), [object()], {"a": object()}, None, "?", -1, 0.5, [], float("inf")],
    ids=["object", "list of objects", "mapping to an object", "None", "text", "-1", "0.5", "empty list", "infinity"],
)
def test_no_refusal_is_in_the_words_of_pydantic(value):
    fields = list(every_field(Config))
    assert (RetrainConfig, "epochs", int) in fields
    for kind, name, _ in fields:
        others = {other: "1" for other, field in kind.model_fields.items() if field.is_required()}
        try:
            kind.parse({**others, kind.model_fields[name].alias or name: value}, "x")
        except UserError as e:
            assert not PYDANTICS.search(str(e)), (kind, name)
            assert "\n" not in str(e)


@pytest.mark.parametrize("value", [True, [False]])
def test_true_and_false_are_no_numbers(value):
    numbers = [(kind, name) for kind, name, annotation in every_field(Config) if annotation in (int, float)]
    assert {(RetrainConfig, "epochs"), (RetrainConfig, "lr"), (PfsConfig, "draws")} <= set(numbers)
    for kind, name in numbers:
        others = {other: "1" for other, field in kind.model_fields.items() if field.is_required()}
        said = refused(kind.parse, {**others, name: value}, "x")
        assert said.startswith("x.")
    assert "a list of whole numbers from 0" in refused(LatencyConfig.parse, {"threads": None}, "x")
    assert refused(LatencyConfig.parse, {"threads": value}, "x").startswith(
        "x.threads: must be a list of whole numbers"
    )
    assert RetrainConfig.parse({"epochs": 1, "nesterov": True}, "x").nesterov


def test_a_long_value_is_not_shown_as_a_whole():
    assert len(refused(Settings.parse, {"epochs": "9" * 10_000 + "x"}, "retrain")) < 400


def of_several_kinds(config):
    """The settings below ``config`` that take values of several kinds."""
    for kind in config.__subclasses__():
        for name, field in kind.model_fields.items():
            if get_origin(field.annotation) in (Union, UnionType):
                yield kind, name
        yield from of_several_kinds(kind)


def test_every_setting_of_several_kinds_says_all_that_it_may_be():
    found = set(of_several_kinds(Config))
    assert {(SplitConfig, "channels"), (ExtractConfig, "blocks"), (RetrainConfig, "ema")} <= found
    for config, name in found:
        others = {other: "1" for other, field in config.model_fields.items() if field.is_required()}
        said = refused(config.parse, {**others, name: object()}, "x")
        assert said.startswith(f"x.{name}: must be "), said
        assert " or " in said


@pytest.mark.parametrize(
    ("config", "name", "value"),
    [
        (PfsConfig, "epochs", 99999999999999999999999),
        (RetrainConfig, "epochs", 10**9 + 1),
        (RetrainConfig, "batch_size", 1e12),
        (RetrainConfig, "lr", 1e300),
        (LatencyConfig, "batches", [1, 10**18]),
        (SplitConfig, "validation", 10**10),
    ],
)
def test_huge_numbers_are_refused_with_the_limit(config, name, value):
    message = refused(
        config.parse, {"epochs": 1, name: value} if "epochs" in config.model_fields else {name: value}, "x"
    )
    assert message.startswith(f"x.{name}: must be at most 1,000,000,000 (got ")


def test_an_image_that_nothing_holds_is_refused():
    message = refused(ModelSpec.parse, {"name": "resnet20", "input_shape": [3, 10**8, 10**8]}, "model")
    assert message.startswith("model.input_shape: must be an image of at most 268,435,456 values")
