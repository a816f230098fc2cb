"""Networks of the user's own, by ``package.module:factory``."""

import sys
from typing import NamedTuple

import pytest
import torch
from torch import nn

from pfs_core.config.spec import ModelSpec
from pfs_core.errors import UserError
from pfs_core.models import build_model, check_model_name, published_fields
from tests.models.factories import FACTORIES


def build(name, **kwargs):
    """The network of a spec of 7 classes and 2-channel images."""
    return build_model(ModelSpec(name=name, num_classes=7, input_shape=(2, 8, 8), kwargs=kwargs))


def refused(name, **kwargs):
    """The one line that says why there is no such network."""
    with pytest.raises(UserError) as error:
        build(name, **kwargs)
    assert "\n" not in str(error.value)
    return str(error.value)


def test_a_factory_gets_what_it_takes(nets):
    model = build("nets:build", width=5)
    assert (model.conv.in_channels, model.conv.out_channels, model.fc.out_features) == (2, 5, 7)
    assert build("nets:Net").conv.out_channels == 4
    assert build("nets:anything", width=6).fc.in_features == 6
    assert build("nets:rgb").conv.in_channels == 3


def test_a_package_is_found_in_the_current_directory(here):
    (here / "mine" / "deep").mkdir(parents=True)
    (here / "mine" / "__init__.py").touch()
    (here / "mine" / "deep" / "inner.py").write_text(FACTORIES)
    check_model_name("mine.deep.inner:build")
    assert build("mine.deep.inner:build").fc.out_features == 7


def test_its_input_shape_is_its_attribute(nets):
    assert published_fields("nets:build") == {}
    assert published_fields("nets:shaped") == {"input_shape": (1, 8, 8)}
    assert build_model("nets:shaped").conv.in_channels == 1


@pytest.mark.parametrize(
    ("name", "line"),
    [
        ("nets:", "model 'nets:' is not understood; write for example package.module:factory"),
        (":build", "model ':build' is not understood; write for example package.module:factory"),
        ("nest:build", "model nest:build: module 'nest' cannot be imported: "
         "ModuleNotFoundError: No module named 'nest' (did you mean nets?)"),
        (".nets:build", "model .nets:build: module '.nets' cannot be imported: TypeError: "),
        ("nets:biuld", "model nets:biuld: nets has no 'biuld' (did you mean build?)"),
        ("nets:WIDTH", "model nets:WIDTH: WIDTH is of type int; name a function or class"),
        ("nets:fails", "model nets:fails: KeyError: 'layers'"),
        ("nets:fails_at_length", "model nets:fails_at_length: RuntimeError: first line"),
        ("nets:numbers", "model nets:numbers: expected an nn.Module, got an object of type list"),
        ("nets:needs_depth", "model nets:needs_depth: missing a required argument: 'depth'; known: depth"),
        ("builtins:int", "model builtins:int: no signature found for builtin type <class 'int'>"),
    ],
)  # fmt: skip
def test_what_builds_no_network_is_refused(nets, name, line):
    message = refused(name)
    assert message.startswith(line)
    assert message == line or line.endswith(": ")


@pytest.mark.parametrize(
    ("source", "reason"),
    [
        ("import nothing_such", "ModuleNotFoundError: No module named 'nothing_such'"),
        ("def f(:", "SyntaxError: invalid syntax (broken.py, line 1)"),
        ("raise ValueError", "ValueError"),
    ],
)
def test_a_module_that_cannot_be_imported_is_refused(here, source, reason):
    (here / "broken.py").write_text(source)
    expected = f"model broken:f: module 'broken' cannot be imported: {reason}"
    assert refused("broken:f") == expected
    with pytest.raises(UserError) as error:
        check_model_name("broken:f")
    assert str(error.value) == expected


def test_unknown_keyword_arguments_are_refused(nets):
    assert refused("nets:build", depth=3) == (
        "model nets:build: got an unexpected keyword argument 'depth'; known: width, stages"
    )
    assert refused("nets:anything", depth=3).startswith("model nets:anything: TypeError: ")
    assert "model.in_channels cannot be set" in refused("nets:build", in_channels=3)
    assert "model.num_classes cannot be set" in refused("nets:rgb", num_classes=3)


def test_a_compiled_network_is_taken_as_it_was(nets, monkeypatch):
    build("nets:build")  # imports the module
    monkeypatch.setattr(sys.modules["nets"], "compiled", lambda: torch.compile(nn.Linear(4, 7)), raising=False)
    assert type(build("nets:compiled")) is nn.Linear


def test_a_classifier_of_transformers_returns_its_logits_alone(nets, monkeypatch):
    """Such a classifier gives an object with the attribute ``logits``; what it is called stays the same."""

    class Output(NamedTuple):
        logits: torch.Tensor
        hidden: None = None

    class Classifier(nn.Linear):
        __module__ = "transformers.models.toy.modeling_toy"

        def forward(self, x):
            return Output(super().forward(x.flatten(1)))

    build("nets:build")  # imports the module
    monkeypatch.setattr(sys.modules["nets"], "toy", lambda: Classifier(128, 7), raising=False)
    model = build("nets:toy")
    assert model(torch.zeros(3, 2, 8, 8)).shape == (3, 7)
    assert list(model.state_dict()) == ["weight", "bias"]


ASYNC = """
from torch import nn

async def build(num_classes=10):
    return nn.Linear(3, num_classes)

def width(num_classes=10, width=0):
    return nn.Linear(width, num_classes)
"""


def test_an_async_factory_is_refused_without_a_warning(here, recwarn):
    (here / "later.py").write_text(ASYNC)
    assert (
        refused("later:build") == "model later:build: it is an async function; name one that is written with def alone"
    )
    build("later:width")  # which is refused for what it is, later on
    assert not recwarn.list
