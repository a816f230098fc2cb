"""The search step: a folder of gates, the same for the same seed."""

import pyarrow.parquet as pq
import pytest
import torch
from safetensors.torch import load_file
from torch import nn

from pfs_core.config.spec import Budget, ModelSpec
from pfs_core.errors import UserError
from pfs_core.methods.gates_folder import load_gates
from pfs_core.methods.pfs.config import PfsConfig
from pfs_core.methods.run import search
from pfs_core.storage.artifacts import read_json, write_json
from pfs_core.structure import unexpanded_graph

FILES = ["gates.safetensors", "history.parquet"]


def test_the_same_seed_gives_the_same_bytes(gates, digits, narrow, brief, tmp_path):
    torch.manual_seed(123)
    search(narrow, digits, tmp_path / "again", Budget(target=0.5), brief, seed=0)
    for name in FILES:
        assert (tmp_path / "again" / name).read_bytes() == (gates / name).read_bytes()


def test_another_seed_gives_other_gates(gates, digits, narrow, brief, tmp_path):
    search(narrow, digits, tmp_path / "other", Budget(target=0.5), brief, seed=1)
    for name in FILES:
        assert (tmp_path / "other" / name).read_bytes() != (gates / name).read_bytes()


def test_the_folder_is_the_documented_one(gates, digits, brief):
    assert sorted(path.name for path in gates.iterdir()) == ["complete.json", *FILES, "search.json"]
    scores, info = load_gates(gates)
    spec = info.model
    assert (spec.name, spec.expand, spec.input_shape, spec.num_classes) == ("resnet20", 1.25, (1, 8, 8), 10)
    graph = unexpanded_graph(spec)
    widths = graph.expanded(spec.expand)
    assert {name: tuple(values.shape) for name, values in scores.items()} == {
        group.name: (widths[group.name],) for group in graph.prunable()
    }
    assert all(values.dtype == torch.float32 for values in scores.values())
    assert info.config == brief
    assert info.seed == 0
    assert info.split_fingerprint == read_json(digits / "split.json")["fingerprint"]


def test_the_history_has_a_row_an_evaluation(gates):
    history = pq.read_table(gates / "history.parquet")
    assert history.column_names == [
        "epoch", "step", "loss", "cross_entropy", "regulariser", "mean_gate", "nonzero", "val_accuracy",
        "moved", "closed", "open",
    ]  # fmt: skip
    assert history.column("epoch").to_pylist() == [1, 2]


def test_the_kept_gates_are_those_of_the_kept_epoch(gates):
    rows = pq.read_table(gates / "history.parquet").to_pylist()
    scores, info = load_gates(gates)
    within = [row for row in rows if row["nonzero"] <= info.target_ratio]
    kept = max(within, key=lambda row: row["val_accuracy"]) if within else rows[-1]
    assert info.kept_epoch == kept["epoch"]
    assert info.validation_accuracy == kept["val_accuracy"]
    values = torch.cat(list(scores.values()))
    assert values.mean().item() == pytest.approx(kept["mean_gate"], abs=1e-6)
    assert (values > 0).double().mean().item() == pytest.approx(kept["nonzero"])


def test_every_row_is_recorded_as_it_comes(digits, narrow, brief, tmp_path):
    rows = []
    search(narrow, digits, tmp_path / "out", Budget(target=0.5), brief, record=rows.append)
    assert rows == pq.read_table(tmp_path / "out" / "history.parquet").to_pylist()


@pytest.mark.parametrize(
    ("budget", "recipe", "target"),
    [
        (Budget(target=0.4), {}, 0.4),
        (Budget(target=0.4), {"target_ratio": 0.7}, 0.7),
        (Budget(metric="params", target=10_000), {}, 10_000 / 17_462),
        (Budget(target=1.0), {}, 1.0),
    ],
)
def test_the_target_is_the_budgets_fraction(digits, narrow, tmp_path, budget, recipe, target):
    settings = PfsConfig(epochs=1, batch_size=500, precision="fp32", **recipe)
    info = search(narrow, digits, tmp_path / "out", budget, settings)
    assert info.target_ratio == pytest.approx(target)


def test_a_network_that_cannot_process_the_images_is_refused(digits, brief, tmp_path):
    with pytest.raises(UserError, match="cannot process 1x8x8 images"):
        search(ModelSpec(name="vgg16"), digits, tmp_path / "out", config=brief)
    assert list(tmp_path.iterdir()) == []


def test_an_unreachable_budget_is_refused_before_the_search(digits, narrow, brief, tmp_path):
    rows = []
    with pytest.raises(UserError, match="cannot be reached"):
        search(narrow, digits, tmp_path / "out", Budget(target=0.001), brief, record=rows.append)
    assert rows == []
    assert list(tmp_path.iterdir()) == []


def test_a_folder_that_cannot_be_written_is_refused_before_the_search(digits, narrow, brief, tmp_path):
    (tmp_path / "notes.txt").write_text("mine")
    rows = []
    with pytest.raises(UserError, match="holds other files"):
        search(narrow, digits, tmp_path, Budget(target=0.5), brief, record=rows.append)
    assert rows == []


def test_what_is_no_split_is_refused(gates, narrow, brief, tmp_path):
    with pytest.raises(UserError, match="pfs split"):
        search(narrow, gates, tmp_path / "out", config=brief)


def test_what_is_no_gates_folder_is_refused(digits, tmp_path):
    for folder in (digits, tmp_path, tmp_path / "missing"):
        with pytest.raises(UserError, match="pfs search"):
            load_gates(folder)


def test_gates_of_another_schema_are_refused(gates, tmp_path):
    write_json(tmp_path / "search.json", {**read_json(gates / "search.json"), "schema": "pfs.gates/9"})
    write_json(tmp_path / "complete.json", {})
    with pytest.raises(UserError, match=r"schema 'pfs\.gates/9'"):
        load_gates(tmp_path)


def test_gates_are_readable_without_this_package(gates):
    assert all(name.endswith("conv1") for name in load_file(gates / "gates.safetensors"))


class Exploding(nn.Sequential):
    def forward(self, images):
        return 1e20 * super().forward(images)


def exploding(num_classes, in_channels):
    layers = [nn.Conv2d(in_channels, 8, 3), nn.BatchNorm2d(8), nn.ReLU(), nn.Flatten(), nn.Linear(8 * 36, num_classes)]
    return Exploding(*layers)


def test_a_training_before_the_search_that_diverges_is_not_told_of_the_rate_of_the_gates(digits, brief, tmp_path):
    config = brief.updated({"pretrain_epochs": 1}, "search")
    with pytest.raises(UserError, match=r"training diverged in epoch 1 at step \d+: .*try ") as error:
        search(ModelSpec(name=f"{__name__}:exploding"), digits, tmp_path / "out", config=config)
    assert "search.lr" not in str(error.value)
    assert str(error.value).endswith("try search.precision=fp32, or search.pretrain_epochs=0")
