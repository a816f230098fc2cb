"""A step of ``pfs run`` takes the result of an earlier run, if nothing that it depends on has changed."""

import json
import shutil
import sys
from functools import partial
from pathlib import Path

import pytest
import torch

from pfs_core import steps
from pfs_core.config.spec import ModelSpec
from pfs_core.latency.machine import machine
from pfs_core.runtime.device import core_count, native_bf16
from pfs_core.steps import kept
from pfs_core.steps.kept import FRESH, RUNS, STEPS, keep, known_inputs, taken
from pfs_core.storage import LocalStorage
from pfs_core.storage.artifacts import COMPLETE, publish, read_json, write_json
from pfs_core.storage.digests import file_digest
from tests.data.folders import tree

INPUTS = {"seed": 0, "versions": ["1"]}


@pytest.fixture
def store(tmp_path, monkeypatch):
    """A folder of runs, one of which has made a result."""
    monkeypatch.setenv(RUNS, str(tmp_path / "runs"))
    monkeypatch.delenv(FRESH, raising=False)
    with publish(tmp_path / "runs" / "first" / "steps" / "x" / "gates", "search") as folder:
        write_json(folder / "search.json", {"seed": 0})
    keep("search", INPUTS, tmp_path / "runs" / "first" / "steps" / "x" / "gates", {"loss": 0.5})
    return tmp_path / "runs"


def test_the_same_inputs_take_the_result_and_its_figures(store, tmp_path, caplog):
    with caplog.at_level("INFO"):
        assert taken("search", INPUTS, tmp_path / "out") == {"loss": 0.5}
    assert json.loads((tmp_path / "out" / "search.json").read_text()) == {"seed": 0}
    assert "search: taken from first" in caplog.text
    assert (tmp_path / "out" / "search.json").stat().st_nlink == 2
    assert {path.name for path in tmp_path.iterdir()} == {"runs", "out"}


def test_a_result_that_was_moved_within_its_run_is_found(store, tmp_path):
    (store / "first" / "steps" / "x" / "gates").rename(store / "first" / "gates")
    assert taken("search", INPUTS, tmp_path / "out") == {"loss": 0.5}


def test_a_result_is_found_by_another_name_of_the_folder_of_runs(store, tmp_path, monkeypatch):
    (tmp_path / "link").symlink_to(tmp_path)
    monkeypatch.setenv(RUNS, str(tmp_path / "link" / "runs" / ".." / "runs"))
    keep("search", {"seed": 1}, store / "first" / "steps" / "x" / "gates", {"loss": 0.25})
    assert taken("search", {"seed": 1}, tmp_path / "out") == {"loss": 0.25}


def test_of_a_result_elsewhere_nothing_is_noted(store, tmp_path):
    shutil.copytree(store / "first" / "steps" / "x" / "gates", tmp_path / "gates")
    keep("search", {"seed": 1}, tmp_path / "gates", {"loss": 0.25})
    assert taken("search", {"seed": 1}, tmp_path / "out") is None


@pytest.mark.parametrize("what", ["inputs", "step", "fresh", "changed", "lost", "gone", "elsewhere", "unreadable"])
def test_anything_else_is_made_anew(store, tmp_path, monkeypatch, what):
    step, inputs = "search", INPUTS
    gates = store / "first" / "steps" / "x" / "gates"
    if what == "inputs":
        inputs = {**INPUTS, "seed": 1}
    elif what == "step":
        step = "retrain/pruned"
    elif what == "fresh":
        monkeypatch.setenv(FRESH, "1")
    elif what == "changed":
        (gates / "search.json").write_text("{}")
    elif what == "lost":
        (gates / "search.json").unlink()
    elif what == "gone":
        (store / "first").rename(tmp_path / "away")
    elif what == "elsewhere":
        monkeypatch.delenv(RUNS)
    else:
        (entry,) = (store / STEPS).iterdir()
        entry.write_text("{")
    assert taken(step, inputs, tmp_path / "out") is None
    assert not (tmp_path / "out").exists()


@pytest.mark.parametrize("moment", ["file_digest", "read_json", "_link"])
def test_a_result_that_is_moved_while_it_is_taken_is_made_anew(store, tmp_path, monkeypatch, moment):
    gates, real = store / "first" / "steps" / "x" / "gates", getattr(kept, moment)

    def collected(path, *more):
        if Path(path).is_relative_to(gates) and gates.exists():
            gates.rename(store / "first" / "gates")
        return real(path, *more)

    monkeypatch.setattr(kept, moment, collected)
    assert taken("search", INPUTS, tmp_path / "out") is None
    assert (store / "first" / "gates").exists()
    assert [path.name for path in tmp_path.iterdir()] == ["runs"]


PICTURES = [f"{digit}/{i}.png" for digit in (0, 1) for i in range(8)]
NET = (
    "from torch import nn\nclass Net(nn.Sequential): pass\ndef build(num_classes=10): return Net(nn.Conv2d(1, {}, 3))\n"
)


def test_a_users_own_code_counts(store, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    found = []
    for width in (8, 8, 9):
        (tmp_path / "kept_net.py").write_text(NET.format(width))
        sys.modules.pop("kept_net", None)
        found.append(known_inputs({}, ModelSpec(name="kept_net:build")))
    assert found[0] == found[1] != found[2]


def inputs_of(step, monkeypatch):
    """What a step believes its result to depend on; it computes nothing."""
    found = []
    monkeypatch.setattr("pfs_core.steps.training_steps.taken", lambda name, inputs, out: found.append(inputs) or {})
    step()
    return found[0]


LEARN = {
    "search": lambda place: steps.search("resnet20", place["digits"], "out", recipe_name="demo"),
    "retrain": lambda place: steps.retrain(place["structures"] / "structure.json", place["digits"], "out"),
}
MEASURE = {
    "extract, blocks": lambda place: steps.extract(place["gates"], "out", settings={"blocks": "auto"}),
    "extract, latency": lambda place: steps.extract(place["gates"], "out", "latency=0.6", settings={"blocks": 8}),
    "benchmark": lambda place: steps.benchmark([place["structures"] / "structure.json"], "out"),
}
NEITHER = {
    "split": lambda place: steps.split("digits", "out"),
    "extract": lambda place: steps.extract(place["gates"], "out", settings={"blocks": 8}),
}


@pytest.fixture
def elsewhere(monkeypatch):
    """Makes this machine another one in one regard."""
    changes = {
        "device": ("pfs_core.runtime.device.pick_device", lambda: torch.device("meta")),
        "precision": ("pfs_core.runtime.device.native_bf16", lambda device: not native_bf16(device)),
        "runtime": ("pfs_core.latency.machine.machine", lambda: {**machine(), "onnxruntime": "0.1"}),
        "cores": ("pfs_core.runtime.device.core_count", lambda: core_count() + 1),
    }
    return lambda what: monkeypatch.setattr(*changes[what])


@pytest.mark.parametrize(
    ("step", "matters"),
    [
        *((step, {"device", "precision"}) for step in LEARN),
        *((step, {"runtime", "cores"}) for step in MEASURE),
        *((step, set()) for step in NEITHER),
    ],
)
@pytest.mark.parametrize("what", ["device", "precision", "runtime", "cores"])
def test_a_result_of_elsewhere_counts_where_it_would_be_the_same(
    store, monkeypatch, digits, gates, structures, elsewhere, step, matters, what
):
    def inputs():
        place = {"digits": digits, "gates": gates, "structures": structures}
        return inputs_of(lambda: {**LEARN, **MEASURE, **NEITHER}[step](place), monkeypatch)

    here = inputs()
    assert here == inputs()
    elsewhere(what)
    assert (here != inputs()) == (what in matters)


def changed(folder, out, name, **values):
    """A copy of a result in which a file has other values."""
    shutil.copytree(folder, out)
    write_json(out / name, {**read_json(out / name), **values})
    write_json(out / COMPLETE, {**read_json(out / COMPLETE), name: file_digest(out / name)})
    return out


@pytest.mark.parametrize(
    "values",
    [{"seed": 1}, {"model": {"name": "resnet20", "kwargs": {"shortcut": "pad"}, "expand": 1.25}}],
    ids=["seed", "network"],
)
def test_equal_gates_of_another_search_are_another_extraction(store, monkeypatch, gates, tmp_path, values):
    other = changed(gates, tmp_path / "other", "search.json", **values)
    extracted = [inputs_of(partial(steps.extract, folder, "out"), monkeypatch) for folder in (gates, gates, other)]
    assert extracted[0] == extracted[1] != extracted[2]


@pytest.mark.parametrize(
    "values", [{"augmentation": {"crop_padding": 4, "flip": True}}, {"mean": [0.0]}, {"input_shape": [3, 8, 8]}]
)
@pytest.mark.parametrize("step", LEARN)
def test_the_same_rows_made_into_other_images_are_learned_from_anew(
    store, monkeypatch, digits, structures, tmp_path, step, values
):
    other = changed(digits, tmp_path / "other", "split.json", **values)
    places = [{"digits": split, "structures": structures} for split in (digits, digits, other)]
    learned = [inputs_of(partial(LEARN[step], place), monkeypatch) for place in places]
    assert learned[0] == learned[1] != learned[2]


def test_the_version_of_a_library_counts_for_its_networks(store, monkeypatch):
    names = ("torchvision:resnet18", "timm:resnet18", "resnet20")
    before = [known_inputs({}, ModelSpec(name=name)) for name in names]
    monkeypatch.setattr("pfs_core.models.sources.version", lambda library: f"another {library}")
    after = [known_inputs({}, ModelSpec(name=name)) for name in names]
    assert [a == b for a, b in zip(before, after, strict=True)] == [False, False, True]


def test_without_a_folder_of_runs_nothing_is_known(monkeypatch):
    monkeypatch.delenv(RUNS, raising=False)
    assert known_inputs({"seed": 0}) is None


@pytest.mark.parametrize("kept_here", [False, True])
def test_a_dataset_is_listed_again_only_where_results_are_kept(tmp_path, monkeypatch, kept_here):
    data, listed, files = tree(tmp_path / "data", *PICTURES), [], LocalStorage.files
    monkeypatch.setattr(LocalStorage, "files", lambda storage: listed.append(storage.uri) or files(storage))
    if kept_here:
        monkeypatch.setenv(RUNS, str(tmp_path / "runs"))
    else:
        monkeypatch.delenv(RUNS, raising=False)
    steps.split(str(data), tmp_path / "out", settings={"test_fraction": 0.25, "validation": 2})
    assert listed == [str(data)] * (1 + kept_here)


def test_a_step_that_is_taken_computes_nothing(store, tmp_path, monkeypatch):
    first = steps.split("digits", store / "first" / "split")
    monkeypatch.setattr("pfs_core.data.split_dataset", lambda *_: pytest.fail("it was split again"))
    assert steps.split("digits", store / "second" / "split") == first
    names = [{path.name for path in (store / run / "split").iterdir()} for run in ("first", "second")]
    assert names[0] == names[1]
    with pytest.raises(pytest.fail.Exception):
        steps.split("digits", store / "third" / "split", seed=1)
