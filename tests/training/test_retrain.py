"""A structure is trained from scratch, tested once, and read back as it was tested."""

import math
import re

import pyarrow.parquet as pq
import pytest
import torch
from safetensors.torch import load_file

from pfs_core import steps
from pfs_core.channels import trace
from pfs_core.config.spec import Budget, ModelSpec
from pfs_core.config.stages import RetrainConfig
from pfs_core.data.augment import Normalise
from pfs_core.errors import UserError
from pfs_core.storage.artifacts import read_json
from pfs_core.structure import Structure, extract, unexpanded_graph
from pfs_core.training.evaluate import accuracy, predict
from pfs_core.training.metrics import BestValidation
from pfs_core.training.retrain import load_model, retrain

BRIEF = RetrainConfig(epochs=2, scratch_b=False, schedule="cosine", precision="fp32")


@pytest.fixture(scope="module")
def pruned(structures):
    return Structure.load(structures / "structure.json")


@pytest.fixture(scope="module")
def dense(digits):
    """ResNet-20 as published."""
    spec = ModelSpec(name="resnet20", input_shape=(1, 8, 8))
    graph = unexpanded_graph(spec)
    gates = {group.name: torch.ones(group.width) for group in graph.prunable()}
    return extract(graph, gates, Budget(target=1.0), model=spec)


@pytest.fixture(scope="module")
def trained(dense, digits, tmp_path_factory):
    """Its ``model`` folder after four epochs."""
    folder = tmp_path_factory.mktemp("retrain") / "model"
    settings = {"epochs": 4, "batch_size": 64, "schedule": "cosine", "scratch_b": False, "precision": "fp32"}
    retrain(dense, digits, folder, RetrainConfig(**settings))
    return folder


def test_it_learns_the_digits(trained):
    history = pq.read_table(trained / "history.parquet").to_pylist()
    assert [row["epoch"] for row in history] == [1, 2, 3, 4]
    assert history[-1]["train_accuracy"] > 0.7
    assert history[-1]["loss"] < history[0]["loss"]
    assert read_json(trained / "metrics.json")["test_accuracy"] > 0.6


def test_the_metrics_agree_with_each_other(trained, digits_data, dense):
    metrics = read_json(trained / "metrics.json")
    confusion = torch.tensor(metrics["confusion_matrix"])
    rows = len(digits_data.part("test"))
    assert confusion.shape == (10, 10)
    assert confusion.sum() == metrics["test_rows"] == rows
    assert confusion.trace().item() / rows == metrics["test_accuracy"]
    assert confusion.sum(1).tolist() == digits_data.part("test").labels.bincount(minlength=10).tolist()
    low, high = metrics["test_accuracy_interval"]
    assert 0 <= low < metrics["test_accuracy"] < high <= 1
    assert (metrics["macs"], metrics["params"]) == (dense.cost.macs, dense.cost.params)
    assert metrics["train_rows"] == 1438
    assert metrics["epochs"] == 4


def test_the_interval_is_wilsons(trained):
    metrics = read_json(trained / "metrics.json")
    p, n, z = metrics["test_accuracy"], metrics["test_rows"], 1.959964
    centre, half = p + z**2 / (2 * n), z * math.sqrt(p * (1 - p) / n + z**2 / (4 * n**2))
    expected = [(centre - half) / (1 + z**2 / n), (centre + half) / (1 + z**2 / n)]
    assert metrics["test_accuracy_interval"] == pytest.approx(expected, abs=1e-6)


def test_the_loaded_model_reproduces_the_test_accuracy(trained, digits_data):
    model, structure = load_model(trained)
    assert not model.training
    assert trace(model, structure.model.input_shape).widths() == structure.widths
    normalise = Normalise(digits_data.info, torch.device("cpu"), torch.contiguous_format)
    predictions = predict(model, lambda images: model(normalise(images)), digits_data.part("test"))
    metrics = read_json(trained / "metrics.json")
    assert accuracy(predictions, digits_data.part("test").labels) == metrics["test_accuracy"]


def test_the_weights_have_the_networks_own_names(trained, dense):
    weights, model = load_file(trained / "model.safetensors"), dense.build()
    assert {name: w.shape for name, w in weights.items()} == {name: w.shape for name, w in model.state_dict().items()}
    assert sum(weights[name].numel() for name, _ in model.named_parameters()) == dense.cost.params


def test_the_same_seed_gives_the_same_bytes(pruned, digits, tmp_path):
    for name in ("a", "b"):
        torch.manual_seed(ord(name))
        retrain(pruned, digits, tmp_path / name, BRIEF, seed=3)
    for file in ("model.safetensors", "history.parquet", "structure.json"):
        assert (tmp_path / "a" / file).read_bytes() == (tmp_path / "b" / file).read_bytes()


def test_another_seed_gives_other_weights(pruned, digits, tmp_path):
    for seed in (0, 1):
        retrain(pruned, digits, tmp_path / str(seed), BRIEF.model_copy(update={"epochs": 1}), seed=seed)
    first, second = (load_file(tmp_path / str(seed) / "model.safetensors") for seed in (0, 1))
    assert not torch.equal(first["conv1.weight"], second["conv1.weight"])


def test_validation_rows_are_held_out_or_trained_on(pruned, digits, tmp_path):
    for with_validation, rows in ((True, 1438), (False, 1294)):
        recipe = BRIEF.model_copy(update={"epochs": 1, "train_on_validation": with_validation})
        metrics = retrain(pruned, digits, tmp_path / str(rows), recipe)
        assert metrics.train_rows == rows
        history = pq.read_table(tmp_path / str(rows) / "history.parquet")
        assert ("val_accuracy" in history.column_names) == (not with_validation)


def test_every_row_is_recorded_as_it_comes(pruned, digits, tmp_path):
    rows = []
    retrain(pruned, digits, tmp_path / "out", BRIEF, record=rows.append)
    assert rows == pq.read_table(tmp_path / "out" / "history.parquet").to_pylist()
    assert [row["lr"] for row in rows] == pytest.approx([BRIEF.lr, BRIEF.lr / 2])  # of each epoch's first step


@pytest.mark.parametrize("change", [{"num_classes": 7}, {"input_shape": (1, 16, 16)}, {"input_shape": (3, 8, 8)}])
def test_a_structure_for_another_split_is_refused(digits, tmp_path, change):
    spec = ModelSpec(name="resnet20", input_shape=(1, 8, 8)).updated(change, "model")
    graph = unexpanded_graph(spec)
    gates = {group.name: torch.ones(group.width) for group in graph.prunable()}
    with pytest.raises(UserError, match="extract one from this split's gates"):
        retrain(extract(graph, gates, Budget(target=1.0), model=spec), digits, tmp_path / "out", BRIEF)
    assert list(tmp_path.iterdir()) == []


def test_divergence_is_said_and_leaves_nothing(pruned, digits, tmp_path):
    with pytest.raises(UserError, match=r"diverged in epoch 1 at step \d+: .*try a lower retrain.lr, .*fp32$"):
        retrain(pruned, digits, tmp_path / "out", BRIEF.model_copy(update={"lr": 1e9}))
    assert list(tmp_path.iterdir()) == []


def test_divergence_keeps_the_last_good_checkpoint(pruned, digits, tmp_path, monkeypatch, capsys):
    monkeypatch.setenv("PFS_CHECKPOINT_SECONDS", "0")
    lines = []
    for _ in range(2):  # the second goes on from what the first has kept
        with pytest.raises(UserError) as stopped:
            retrain(pruned, digits, tmp_path / "out", BRIEF.model_copy(update={"lr": 1e9}))
        lines.append(str(stopped.value))
    assert lines[0] == lines[1]
    assert "going on from checkpoint" in capsys.readouterr().out
    assert [path.name for path in tmp_path.iterdir()] == [".out.checkpoints"]
    newest = max(tmp_path.glob(".out.checkpoints/*/*.pt"))
    bad = int(re.search(r"at step (\d+)", lines[0])[1])
    assert int(newest.name.split("-")[0]) == bad - 1
    state = torch.load(newest, weights_only=True)
    assert all(weights.isfinite().all() for weights in state["model"].values())


def test_the_best_and_the_last_weights_are_kept_and_one_of_them_is_tested(pruned, digits, tmp_path, monkeypatch):
    recipe = BRIEF.model_copy(update={"epochs": 4, "schedule": "multistep", "train_on_validation": False})
    retrain(pruned, digits, tmp_path / "two", recipe.model_copy(update={"epochs": 2}))
    accuracies = iter(2 * [0.2, 0.5, 0.5, 0.1])
    monkeypatch.setattr("pfs_core.training.fit.accuracy", lambda predictions, labels: next(accuracies))
    for keep, other in (("last", "best"), ("best", "last")):
        metrics = retrain(pruned, digits, tmp_path / keep, recipe.model_copy(update={"keep": keep}))
        assert metrics.best_validation == BestValidation(epoch=2, val_accuracy=0.5)
        files = {path.name for path in (tmp_path / keep).glob("*.safetensors")}
        assert files == {"model.safetensors", "mistakes.safetensors", f"{other}.safetensors"}

    def weights(folder, name):
        return (tmp_path / folder / f"{name}.safetensors").read_bytes()

    assert weights("last", "model") == weights("best", "last")
    assert weights("last", "best") == weights("best", "model") == weights("two", "model")
    assert weights("last", "model") != weights("last", "best")


def test_without_a_validation_there_is_no_best(trained):
    assert read_json(trained / "metrics.json")["best_validation"] is None
    assert not (trained / "best.safetensors").exists()


def test_validation_comes_every_few_epochs_and_at_the_end(pruned, digits, tmp_path):
    recipe = BRIEF.model_copy(update={"epochs": 5, "train_on_validation": False, "validate_every": 2})
    retrain(pruned, digits, tmp_path / "out", recipe)
    history = pq.read_table(tmp_path / "out" / "history.parquet").to_pylist()
    assert [row["epoch"] for row in history if row["val_accuracy"] is not None] == [2, 4, 5]


def test_the_averaged_weights_are_what_is_saved(pruned, digits, tmp_path):
    for name, ema in (("plain", None), ("slow", 0.99999)):
        retrain(pruned, digits, tmp_path / name, BRIEF.model_copy(update={"ema": ema, "epochs": 1}))
    plain, slow = (load_file(tmp_path / name / "model.safetensors") for name in ("plain", "slow"))
    torch.manual_seed(0)
    start = pruned.build().state_dict()
    for name in ("conv1.weight", "layer3.2.conv2.weight"):
        assert (slow[name] - start[name]).norm() < 0.5 * (plain[name] - start[name]).norm()
    assert load_model(tmp_path / "slow")[0].conv1.weight.equal(slow["conv1.weight"])


def test_the_peak_memory_is_a_figure_of_the_step(structures, digits, tmp_path):
    settings = {"epochs": 1, "scratch_b": False}
    figures = steps.retrain(structures / "structure.json", digits, tmp_path / "out", settings=settings)
    peak = read_json(tmp_path / "out" / "metrics.json")["peak_memory_mib"]
    assert peak.keys() == {"host"}
    assert figures["peak_memory_mib.host"] == peak["host"] > 100


def test_a_folder_that_cannot_be_written_is_refused_before_training(pruned, digits, tmp_path):
    (tmp_path / "notes.txt").write_text("mine")
    rows = []
    with pytest.raises(UserError, match="holds other files"):
        retrain(pruned, digits, tmp_path, BRIEF, record=rows.append)
    assert rows == []


def test_what_is_no_model_folder_is_refused(gates, tmp_path):
    for folder in (gates, tmp_path, tmp_path / "missing"):
        with pytest.raises(UserError, match="pfs retrain"):
            load_model(folder)
