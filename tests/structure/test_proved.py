"""The proof of a graph: made once for the same code, and respected by every step."""

import sys

import pytest
import torch

from pfs_core.channels import Refuted, trace
from pfs_core.config.spec import Budget, ModelSpec
from pfs_core.methods.pfs.config import PfsConfig
from pfs_core.methods.run import search
from pfs_core.models import build_model
from pfs_core.steps.extraction import extract_structures
from pfs_core.structure import proved, refuted_once
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
"""
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
