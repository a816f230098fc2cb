"""A step that is stopped anywhere and started again gives what it would have given."""

import os
import signal
import subprocess
import sys
import time

import pytest
from pfs_pipelines.cli import main

from pfs_core.config.spec import Budget, ModelSpec
from pfs_core.config.stages import RetrainConfig
from pfs_core.errors import AccessDeniedError
from pfs_core.methods.pfs import network
from pfs_core.methods.pfs.config import PfsConfig
from pfs_core.methods.pfs.network import GatedNetwork
from pfs_core.methods.run import search
from pfs_core.storage.artifacts import read_json
from pfs_core.structure import Structure
from pfs_core.training import checkpoints
from pfs_core.training.retrain import retrain
from tests.training.stopping import Stopped, stop_at

NARROW = ModelSpec(name="resnet20", kwargs={"width": 4})
SEARCH = PfsConfig(epochs=3, batch_size=256, precision="fp32")
RETRAIN = RetrainConfig(
    epochs=3, batch_size=256, precision="fp32", schedule="cosine", scratch_b=False, train_on_validation=False
)
EVERYTHING = RETRAIN.updated(
    {
        "warmup_epochs": 1.5, "label_smoothing": 0.1, "decay_norm_and_bias": False, "ema": 0.9, "accumulate": 3,
        "clip_norm": 1.0, "validate_every": 2, "keep": "best",
    },
    "retrain",
)  # fmt: skip
AUGMENTED = RETRAIN.updated(
    {
        "augment": "randaugment", "random_erasing": 0.5, "mixup": 0.2, "cutmix": 1.0, "balanced_sampling": True,
        "label_smoothing": 0.1, "accumulate": 2,
    },
    "retrain",
)  # fmt: skip
RETRAININGS = {"plain": RETRAIN, "everything": EVERYTHING, "augmented": AUGMENTED}


@pytest.fixture
def every_step(monkeypatch):
    monkeypatch.setenv(checkpoints.SECONDS, "0")


def searched(digits, out, record=lambda row: None):
    search(NARROW, digits, out, Budget(target=0.5), SEARCH, seed=0, record=record)
    return (out / "gates.safetensors").read_bytes(), (out / "history.parquet").read_bytes()


def retrained(digits, structures, out, record=lambda row: None, recipe=RETRAIN):
    retrain(Structure.load(structures / "structure.json"), digits, out, recipe, seed=0, record=record)
    return [path.read_bytes() for path in sorted([*out.glob("*.safetensors"), out / "history.parquet"])]


@pytest.fixture(scope="module")
def whole_search(digits, tmp_path_factory):
    """What a search gives that nothing stops, and its rows."""
    rows = []
    return searched(digits, tmp_path_factory.mktemp("search") / "whole", rows.append), rows


@pytest.fixture(scope="module")
def whole_retraining(digits, structures, tmp_path_factory):
    """The same of a retraining, by its recipe."""
    found = {}
    for name, recipe in RETRAININGS.items():
        rows = []
        out = tmp_path_factory.mktemp("retraining") / "whole"
        found[name] = retrained(digits, structures, out, rows.append, recipe), rows
    return found


def points(*steps, slow):
    """Steps to stop at; those in ``slow`` are of the same kind as one of the others."""
    return [pytest.param(step, marks=[pytest.mark.slow] * (step in slow)) for step in steps]


@pytest.mark.parametrize("step", points(1, 5, 6, 7, 13, 17, slow=(1, 5, 7, 13)))
def test_a_search_goes_on_where_it_was_stopped(digits, whole_search, tmp_path, monkeypatch, every_step, step):
    whole, rows = whole_search
    first, second = [], []
    with monkeypatch.context() as patch:
        stop_at(patch, step)
        with pytest.raises(Stopped):
            searched(digits, tmp_path / "out", first.append)
    assert not (tmp_path / "out").exists()
    assert searched(digits, tmp_path / "out", second.append) == whole
    assert second == rows
    assert first == rows[: len(first)]
    assert [path.name for path in tmp_path.iterdir()] == ["out"]


def learned(step, digits, structures, out):
    """The weights or gates of a step in the precision that suits the device."""
    auto = {"precision": "auto"}
    if step == "search":
        search(NARROW, digits, out, Budget(target=0.5), SEARCH.updated(auto, "search"), seed=0)
    else:
        retrain(Structure.load(structures / "structure.json"), digits, out, RETRAIN.updated(auto, "retrain"), seed=0)
    return [path.read_bytes() for path in sorted(out.glob("*.safetensors"))]


@pytest.mark.parametrize("step", ["search", "retrain"])
def test_what_goes_on_where_its_precision_is_another_begins_anew(
    digits, structures, tmp_path, monkeypatch, every_step, step
):
    native = "pfs_core.runtime.device.native_bf16"
    with monkeypatch.context() as patch:
        patch.setattr(native, lambda device: True)
        stop_at(patch, 6)
        with pytest.raises(Stopped):
            learned(step, digits, structures, tmp_path / "out")
    monkeypatch.setattr(native, lambda device: False)
    assert learned(step, digits, structures, tmp_path / "out") == learned(step, digits, structures, tmp_path / "whole")


PRETRAINED = SEARCH.updated({"pretrain_epochs": 1}, "search")


@pytest.fixture(scope="module")
def whole_pretrained(digits, tmp_path_factory):
    """The folder and the rows of a search on trained weights that nothing stops."""
    out, rows = tmp_path_factory.mktemp("pretrained") / "whole", []
    search(NARROW, digits, out, Budget(target=0.5), PRETRAINED, record=rows.append)
    return out, rows


@pytest.mark.parametrize("step", [1 * 10**9 + 6, 2 * 10**9 + 7])
def test_a_search_on_trained_weights_goes_on(
    digits, whole_search, whole_pretrained, tmp_path, monkeypatch, every_step, step
):
    """In the training that goes before it, and after that."""
    budget, again = Budget(target=0.5), []
    whole, rows = whole_pretrained
    with monkeypatch.context() as patch:
        stop_at(patch, step)
        with pytest.raises(Stopped):
            search(NARROW, digits, tmp_path / "out", budget, PRETRAINED)
    search(NARROW, digits, tmp_path / "out", budget, PRETRAINED, record=again.append)
    gates = [(folder / "gates.safetensors").read_bytes() for folder in (whole, tmp_path / "out")]
    assert gates[0] == gates[1] != whole_search[0][0]
    before = [(folder / "pretraining.parquet").read_bytes() for folder in (whole, tmp_path / "out")]
    assert before[0] == before[1]
    assert again == rows
    assert rows[0].keys() == {"epoch", *(f"pretrain_{key}" for key in ("loss", "train_accuracy", "lr", "val_accuracy"))}


@pytest.mark.parametrize("step", points(7, 12, 13, slow=(7, 13)))
def test_a_search_that_has_lost_channels_goes_on(digits, tmp_path, monkeypatch, every_step, step):
    monkeypatch.setattr(network, "SHRINK_EVERY", 4)
    monkeypatch.setattr(network, "MULTIPLE", 1)
    recipe = SEARCH.updated({"lr": 0.2, "evaluate_every": 5}, "search")
    budget, shrunk = Budget(target=0.5), []
    select = GatedNetwork._select

    def selected(self, *which):
        select(self, *which)
        shrunk.append(len(self.remaining))

    monkeypatch.setattr(GatedNetwork, "_select", selected)
    search(NARROW, digits, tmp_path / "whole", budget, recipe)
    assert len(shrunk) >= 2
    with monkeypatch.context() as patch:
        stop_at(patch, step)
        with pytest.raises(Stopped):
            search(NARROW, digits, tmp_path / "out", budget, recipe)
    search(NARROW, digits, tmp_path / "out", budget, recipe)
    for name in ("gates.safetensors", "history.parquet"):
        assert (tmp_path / "out" / name).read_bytes() == (tmp_path / "whole" / name).read_bytes()


@pytest.mark.parametrize(
    ("recipe", "step"),
    [
        pytest.param(recipe, step, marks=[pytest.mark.slow] * (step in slow))
        for recipe, slow in (
            ("plain", (1, 6, 8, 11, 17)),
            ("everything", (1, 8, 11, 17)),
            ("augmented", (1, 6, 11, 13, 17)),
        )
        for step in (1, 6, 8, 11, 13, 17)
    ],
)
def test_a_retraining_goes_on_where_it_was_stopped(
    digits, structures, whole_retraining, tmp_path, monkeypatch, every_step, recipe, step
):
    (whole, rows), first, second = whole_retraining[recipe], [], []
    settings = RETRAININGS[recipe]
    assert len(whole) == 4  # the last weights, the best, the history and how images are prepared
    with monkeypatch.context() as patch:
        stop_at(patch, step)
        with pytest.raises(Stopped):
            retrained(digits, structures, tmp_path / "out", first.append, settings)
    assert retrained(digits, structures, tmp_path / "out", second.append, settings) == whole
    assert second == rows
    assert first == rows[: len(first)]


def test_the_best_weights_survive_a_stop(digits, structures, tmp_path, monkeypatch, every_step):
    accuracies = iter(2 * [0.9, 0.1])
    monkeypatch.setattr("pfs_core.training.fit.accuracy", lambda predictions, labels: next(accuracies))
    whole = retrained(digits, structures, tmp_path / "whole", recipe=EVERYTHING)
    with monkeypatch.context() as patch:
        stop_at(patch, 14)  # in epoch 3; epoch 2 was the best
        with pytest.raises(Stopped):
            retrained(digits, structures, tmp_path / "out", recipe=EVERYTHING)
    assert retrained(digits, structures, tmp_path / "out", recipe=EVERYTHING) == whole
    assert read_json(tmp_path / "out" / "metrics.json")["best_validation"] == {"epoch": 2, "val_accuracy": 0.9}


def test_a_damaged_checkpoint_falls_back_to_the_one_before(
    digits, whole_search, tmp_path, monkeypatch, every_step, capsys
):
    whole, _ = whole_search
    with monkeypatch.context() as patch:
        stop_at(patch, 8)
        with pytest.raises(Stopped):
            searched(digits, tmp_path / "out")
    before, newest = sorted(tmp_path.glob(".out.checkpoints/*/*.pt"))
    newest.write_bytes(newest.read_bytes()[:-9] + b"123456789")
    assert searched(digits, tmp_path / "out") == whole
    said = capsys.readouterr().out
    assert f"checkpoint {newest.name} cannot be used (it is damaged)" in said
    assert f"going on from checkpoint {before.name}" in said


def test_other_settings_start_from_the_beginning(digits, tmp_path, monkeypatch, every_step, capsys):
    with monkeypatch.context() as patch:
        stop_at(patch, 4)
        with pytest.raises(Stopped):
            searched(digits, tmp_path / "out")
    search(NARROW, digits, tmp_path / "out", Budget(target=0.5), SEARCH.updated({"lr": 0.02}, "search"), seed=0)
    assert "going on" not in capsys.readouterr().out


def test_checkpoints_in_a_bucket(digits, whole_search, tmp_path, monkeypatch, every_step, bucket):
    from pfs_core.storage import open_storage

    whole, _ = whole_search
    monkeypatch.setenv(checkpoints.ROOT, f"{bucket}/checkpoints")
    with monkeypatch.context() as patch:
        stop_at(patch, 9)
        with pytest.raises(Stopped):
            searched(digits, tmp_path / "first")
    assert len(open_storage(f"{bucket}/checkpoints").files()) == 2
    assert searched(digits, tmp_path / "second") == whole


@pytest.mark.parametrize(("answer", "says"), [("403", "S3 refused access"), ("503", "S3 failed 8 times")])
def test_checkpoints_that_cannot_be_read_stop_a_search_before_it_begins(
    digits, tmp_path, monkeypatch, capsys, faulty, bucket, answer, says
):
    monkeypatch.setenv(checkpoints.ROOT, f"{bucket}/checkpoints")
    faulty.plan = lambda method, path: answer
    command = ["search", "--model", "resnet20", "--split", digits, tmp_path / "out", "--set", "search.epochs=1"]
    assert main([str(a) for a in command]) == 2
    said = capsys.readouterr()
    (line,) = said.err.splitlines()
    assert line.startswith(f"pfs: {bucket}/checkpoints/")
    assert says in line
    assert "search epoch" not in said.out
    assert list(tmp_path.iterdir()) == []


def test_a_checkpoint_that_may_not_be_read_stops_a_search(digits, tmp_path, monkeypatch, every_step, faulty, bucket):
    monkeypatch.setenv(checkpoints.ROOT, f"{bucket}/checkpoints")
    with monkeypatch.context() as patch:
        stop_at(patch, 9)
        with pytest.raises(Stopped):
            searched(digits, tmp_path / "out")
    faulty.plan = lambda method, path: "403" if path.endswith(".pt") else None
    with pytest.raises(AccessDeniedError):
        searched(digits, tmp_path / "out")


def test_a_result_is_not_lost_with_its_checkpoints(
    digits, whole_search, tmp_path, monkeypatch, every_step, faulty, bucket, capsys
):
    whole, _ = whole_search
    monkeypatch.setenv(checkpoints.ROOT, f"{bucket}/checkpoints")
    faulty.plan = lambda method, path: "403" if method == "DELETE" else None
    monkeypatch.setattr(checkpoints, "_KEPT", 99)
    assert searched(digits, tmp_path / "out") == whole
    assert f"checkpoints are left at {bucket}/checkpoints/" in capsys.readouterr().out


CHOOSE = """
from pfs_core.methods.run import search
from pfs_core.config.recipes import recipe
from pfs_core.methods.registry import method_config
from pfs_core.config.spec import Budget, ModelSpec
settings = {"epochs": 2, "batch_size": 256, "precision": "fp32"} | CHANGES
changed = method_config(recipe("demo"), settings)
search(ModelSpec(name="resnet20", kwargs={"width": 4}), sys.argv[1], sys.argv[2], Budget(target=0.5), changed)
"""
STEPS = {
    "network_slimming": 'CHANGES = {"method": "network_slimming", "rounds": 2}' + CHOOSE,
    "amc": 'CHANGES = {"method": "amc", "episodes": 12, "warmup_episodes": 4, "recalibrate": 64}' + CHOOSE,
    "search": """
from pfs_core.methods.pfs.config import PfsConfig
from pfs_core.methods.run import search
from pfs_core.config.spec import Budget, ModelSpec
recipe = PfsConfig(epochs=3, batch_size=256, precision="fp32")
search(ModelSpec(name="resnet20", kwargs={"width": 4}), sys.argv[1], sys.argv[2], Budget(target=0.5), recipe, seed=0)
""",
    "retrain": """
from pfs_core.config.stages import RetrainConfig
from pfs_core.structure import Structure
from pfs_core.training.retrain import retrain
recipe = RetrainConfig(
    epochs=3, batch_size=256, precision="fp32", schedule="cosine", scratch_b=False, train_on_validation=False
)
retrain(Structure.load(sys.argv[3]), sys.argv[1], sys.argv[2], recipe, seed=0)
""",
}
COMMON = """
import os, pathlib, signal, sys, torch
from pfs_core.runtime.logs import log_to_terminal
log_to_terminal()
torch.set_num_threads(1)
"""
DIES_AT_A_RENAME = """
replace, seen = pathlib.Path.replace, []
def dying(self, target):
    seen.append(str(target).endswith(".pt"))
    if sum(seen) == 4:
        os.kill(os.getpid(), signal.SIGKILL)
    return replace(self, target)
pathlib.Path.replace = dying
"""


def started(digits, out, step="search", structure="", more=""):
    environment = os.environ | {checkpoints.SECONDS: "0", "CUDA_VISIBLE_DEVICES": ""}
    command = [sys.executable, "-c", COMMON + more + STEPS[step], str(digits), str(out), str(structure)]
    return subprocess.Popen(command, env=environment, stdout=subprocess.PIPE, text=True)


def kill_when_saved(process, folder, count, number):
    """Send a signal as soon as so many different checkpoints have been seen."""
    seen = set()
    while process.poll() is None and len(seen) < count:
        seen |= {path.name for path in folder.glob("*/*.pt")}
        time.sleep(0.001)
    process.send_signal(number)
    return process.communicate()[0], process.returncode


def test_sigterm_writes_a_checkpoint_and_the_next_start_goes_on(digits, whole_search, tmp_path, capsys):
    out, code = kill_when_saved(started(digits, tmp_path / "out"), tmp_path / ".out.checkpoints", 2, signal.SIGTERM)
    assert code == 143
    assert "start again to go on" in out
    assert not (tmp_path / "out").exists()
    assert searched(digits, tmp_path / "out") == whole_search[0]
    assert "going on from checkpoint" in capsys.readouterr().out


def killed_until_done(digits, out, step, structure, more=""):
    """SearchContext a step again and again and kill it (at a random place, or by ``more``); how often it was killed."""
    kills = 0
    while kills < 20:
        process = started(digits, out, step, structure, more)
        if more:
            code = process.wait()
        else:
            _, code = kill_when_saved(process, out.parent / f".{out.name}.checkpoints", 2, signal.SIGKILL)
        if code == 0:
            return kills
        kills += 1
        assert code == -signal.SIGKILL
        assert not out.exists()
    assert started(digits, out, step, structure).wait() == 0
    return kills


@pytest.mark.slow
@pytest.mark.parametrize("more", ["", DIES_AT_A_RENAME], ids=["anywhere", "between write and rename"])
@pytest.mark.parametrize("step", STEPS)
def test_a_step_that_is_killed_again_and_again_ends_as_one_that_was_not(digits, structures, tmp_path, step, more):
    assert started(digits, tmp_path / "whole", step, structures / "structure.json").wait() == 0
    kills = killed_until_done(digits, tmp_path / "out", step, structures / "structure.json", more)
    assert kills >= 4
    results = [path for path in (tmp_path / "whole").iterdir() if path.suffix in (".safetensors", ".parquet")]
    assert len(results) >= 2
    for path in results:
        assert (tmp_path / "out" / path.name).read_bytes() == path.read_bytes(), path.name
    assert not list(tmp_path.glob(".out.checkpoints*"))
