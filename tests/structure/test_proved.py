"""The proof of a graph: made once for the same code, and respected by every step."""

import sys

import pytest
import torch

from pfs_core.channels import Refuted, trace
from pfs_core.config.spec import Budget, ModelSpec
from pfs_core.config.stages import LatencyConfig, RetrainConfig
from pfs_core.latency import benchmark
from pfs_core.latency.benchmarking import with_references
from pfs_core.methods.gates_folder import load_gates
from pfs_core.methods.pfs.config import PfsConfig
from pfs_core.methods.run import search
from pfs_core.models import build_model
from pfs_core.report import figures, load_results
from pfs_core.steps.extraction import extract_structures
from pfs_core.structure import FILES, Structure, proved, refuted_once
from pfs_core.training.retrain import retrain
from tests.budgets import PAPERS_CUT

SOURCE = """
import torch
from torch import nn


class Written(nn.Module):
    def __init__(self, num_classes, in_channels):
        super().__init__()
        self.first, self.bn1 = nn.Conv2d(in_channels, 12, 3, padding=1, bias=False), nn.BatchNorm2d(12)
        self.second, self.bn2 = nn.Conv2d(12, 16, 3, padding=1, bias=False), nn.BatchNorm2d(16)
        self.head = nn.Linear(16, num_classes)

    def forward(self, x):
        x = torch.relu(self.bn2(self.second(torch.relu(self.bn1(self.first(x))))))
        return self.head(x.view(-1, 16, 64).mean(2))


class WithStream(Written):
    def __init__(self, num_classes, in_channels):
        super().__init__(num_classes, in_channels)
        self.inner, self.bn3 = nn.Conv2d(12, 8, 3, padding=1, bias=False), nn.BatchNorm2d(8)
        self.outer, self.bn4 = nn.Conv2d(8, 12, 3, padding=1, bias=False), nn.BatchNorm2d(12)

    def forward(self, x):
        x = torch.relu(self.bn1(self.first(x)))
        x = torch.relu(x + self.bn4(self.outer(torch.relu(self.bn3(self.inner(x))))))
        x = torch.relu(self.bn2(self.second(x)))
        return self.head(x.view(-1, 16, 64).mean(2))
"""
BRIEF = LatencyConfig(
    patience_seconds=0, warmup_seconds=0, warmup_rounds=1, max_seconds=0.01, runtimes="eager", threads=1
)
REASON = "resized, the network fails: shape '[-1, 16, 64]' is invalid"


@pytest.fixture
def written(tmp_path, monkeypatch):
    """The spec of a network in which a width is written as a number."""
    (tmp_path / "written.py").write_text(SOURCE)
    monkeypatch.chdir(tmp_path)
    monkeypatch.syspath_prepend(str(tmp_path))
    monkeypatch.setenv("PFS_CACHE", str(tmp_path / "cache"))
    monkeypatch.delitem(sys.modules, "written", raising=False)
    yield ModelSpec(name="written:Written", input_shape=(1, 8, 8))
    sys.modules.pop("written", None)


def test_a_width_that_is_written_as_a_number_stays_through_all_steps(written, digits, tmp_path):
    info = search(written, digits, tmp_path / "gates", Budget(target=0.6), PfsConfig(epochs=1, expand=1.0))
    assert list(info.frozen) == ["second"]
    assert info.frozen["second"].startswith(REASON)
    cut = extract_structures(tmp_path / "gates", tmp_path / "structures", Budget(target=0.6), PAPERS_CUT)["pruned"]
    assert cut.widths["second"] == 16
    assert cut.widths["first"] < 12
    assert cut.build()(torch.zeros(2, 1, 8, 8)).shape == (2, 10)


@pytest.mark.parametrize(("policy", "searched"), [("inner", ["inner"]), ("all", ["first", "inner"])])
def test_what_is_measured_and_reported_as_expanded_was_searched(written, digits, tmp_path, policy, searched, no_memory):
    spec, budget = written.updated({"name": "written:WithStream"}, "model"), Budget(target=0.6)
    out = {name: tmp_path / name for name in ("gates", "structures", "model", "latency")}
    info = search(spec, digits, out["gates"], budget, PfsConfig(epochs=1, policy=policy))
    extract_structures(out["gates"], out["structures"], budget, PAPERS_CUT)
    pruned, uniform, dense = (Structure.load(out["structures"] / file) for file in FILES.values())
    graph, (gates, _) = pruned.graph(), load_gates(out["gates"])
    expanded = graph.widths() | {name: len(values) for name, values in gates.items()}
    assert (list(gates), expanded["inner"], expanded["second"]) == (searched, 10, 16)
    for given in ([pruned, uniform], [dense, uniform, pruned], [uniform]):
        assert with_references(given)["expanded"].widths == expanded
    assert with_references([dense])["expanded"].widths["second"] == 16

    found = benchmark([pruned, uniform], out["latency"], BRIEF)
    assert found.models["expanded"].macs == graph.cost(expanded).macs
    retrain(pruned, digits, out["model"], RetrainConfig(epochs=1, schedule="cosine", scratch_b=False))
    results = load_results(digits, out["gates"], out["structures"], [out["model"]], out["latency"])
    assert results.structure.refuted == info.refuted
    _, words = figures.draw(figures.channels, results, (9.6, 4.0))
    assert all(f"{name} {graph.group(name).width}, {expanded[name]}, {pruned.widths[name]}" in words for name in gates)
    assert "second" not in words


def test_it_is_made_once_for_the_same_code(written, tmp_path, monkeypatch):
    made = []
    whole = proved.refuted_groups
    monkeypatch.setattr(proved, "refuted_groups", lambda *given: made.append(given) or whole(*given))

    def refuted():
        model = build_model(written)
        return refuted_once(model, trace(model, written.input_shape))

    first = refuted()
    assert first == refuted()
    assert len(made) == 1
    (tmp_path / "written.py").write_text(SOURCE.replace("x.view(-1, 16, 64).mean(2)", "x.mean((2, 3))"))
    sys.modules.pop("written")
    assert refuted() == Refuted({}, {})
    assert len(made) == 2
