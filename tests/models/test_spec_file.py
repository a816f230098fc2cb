"""A MODEL of the command line that is a file."""

import json

import pytest

from pfs_core.errors import UserError
from pfs_core.models import model_fields

FIELDS = {"name": "resnet20", "num_classes": 7, "input_shape": [1, 8, 8], "expand": 1.5, "kwargs": {"width": 4}}
YAML = """
name: resnet20
num_classes: 7
input_shape: [1, 8, 8]
expand: 1.5
kwargs: {width: 4}
"""


def test_json_and_yaml_say_the_same(tmp_path):
    (tmp_path / "net.json").write_text(json.dumps(FIELDS))
    (tmp_path / "net.yaml").write_text(YAML)
    (tmp_path / "net.yml").write_text(YAML)
    for suffix in ("json", "yaml", "yml"):
        assert model_fields(str(tmp_path / f"net.{suffix}")) == FIELDS


def test_what_a_file_leaves_out_is_left_to_others(tmp_path):
    (tmp_path / "net.yaml").write_text("name: resnet20")
    assert model_fields(str(tmp_path / "net.yaml")) == {"name": "resnet20"}


@pytest.mark.parametrize("name", ["resnet20", "torchvision:resnet18", "my.json:build"])
def test_a_name_is_no_file(name):
    assert model_fields(name) == {"name": name}


@pytest.mark.parametrize(
    ("file", "content", "line"),
    [
        ("a.yaml", None, "a.yaml cannot be read: No such file or directory"),
        ("a.json", None, "a.json does not exist"),
        ("a.yaml", "name: [", "a.yaml is not YAML: while parsing a flow node"),
        ("a.yaml", b"\xff\xfe\xff", "a.yaml is not YAML: "),
        ("a.json", "{", "a.json is not JSON: "),
        ("a.yaml", "", "a.yaml: must be an object (got None)"),
        ("a.yaml", "resnet20", "a.yaml: must be an object (got 'resnet20')"),
        ("a.json", '{"kwargs": {}}', "a.json.name: is missing"),
        ("a.json", '{"name": "resnet20", "width": 4}', "a.json.width is not a setting; known: name, num_classes, "),
        ("a.yaml", "{name: resnet20, input_shape: 3x32x32}", "a.yaml.input_shape: "),
        ("a.yaml", "name: resnet20\nname: vgg11", "a.yaml is not YAML: 'name' is there twice"),
        ("a.yaml", "{name: resnet20, kwargs: {width: 4, width: 8}}", "a.yaml is not YAML: 'width' is there twice"),
        ("a.json", '{"name": "resnet20", "name": "vgg11"}', "a.json is not JSON: 'name' is there twice"),
        ("a.json", '{"name": "resnet20", "expand": NaN}', "a.json is not JSON: NaN is no number"),
        ("a.json", "[" * 100_000, "a.json is not JSON: it is nested too deeply"),
        ("a.yaml", "[" * 50_000 + "]" * 50_000, "a.yaml is not YAML: it is nested too deeply"),
        ("a.yaml", "{name: resnet20, expand: true}", "a.yaml.expand: must be a number in [1.0, 8.0] (got True)"),
        ("a.yaml", "{name: resnet20, input_shape: [3, 32]}", "a.yaml.input_shape: must be a list of 3 whole numbers"),
        ("a.yaml", "{name: resnet20, kwargs: {1: 2}}", "a.yaml.kwargs: must have texts for names"),
    ],
)
def test_wrong_files_are_refused(tmp_path, monkeypatch, file, content, line):
    monkeypatch.chdir(tmp_path)
    if content is not None:
        (tmp_path / file).write_bytes(content if isinstance(content, bytes) else content.encode())
    with pytest.raises(UserError) as error:
        model_fields(file)
    assert str(error.value).startswith(line)
    assert "\n" not in str(error.value)


@pytest.mark.parametrize(("file", "content"), [("a.json", '{"name": "resnet20"}'), ("a.yaml", "name: resnet20")])
def test_a_mark_of_the_byte_order_is_no_part_of_a_file(tmp_path, monkeypatch, file, content):
    monkeypatch.chdir(tmp_path)
    (tmp_path / file).write_text(content, encoding="utf-8-sig")
    assert model_fields(file) == {"name": "resnet20"}


def test_what_is_merged_into_a_yaml_object_may_be_overridden(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "a.yaml").write_text("name: resnet20\nkwargs: {<<: {width: 4}, width: 8}")
    assert model_fields("a.yaml")["kwargs"] == {"width": 8}
