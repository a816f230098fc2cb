"""The profile of a gate step."""

import json
from itertools import islice

import pytest
import torch

from pfs_core.config.spec import Budget
from pfs_core.errors import UserError
from pfs_core.methods.pfs.config import PfsConfig
from pfs_core.methods.pfs.profiling import full_batches, profile_search
from pfs_core.structure import unexpanded_graph

RECIPE = PfsConfig(batch_size=32, precision="fp32")


def test_a_profile_says_where_time_goes_and_learns_nothing(digits, narrow, tmp_path, capsys):
    result = profile_search(narrow, digits, tmp_path / "out", Budget(target=0.5), RECIPE)
    assert sorted(path.name for path in (tmp_path / "out").iterdir()) == ["complete.json", "profile.json", "trace.json"]
    assert json.loads((tmp_path / "out" / "profile.json").read_text()) == result
    assert json.loads((tmp_path / "out" / "trace.json").read_text())["traceEvents"]
    assert sum("convolution" in row["operation"] for row in result["operations"]) >= 2
    assert max(result["floor_arithmetic_ms"], result["floor_memory_ms"]) < result["ms_a_step"]
    assert "a step takes" in capsys.readouterr().out


def test_a_dataset_of_few_batches_is_gone_through_as_often_as_needed(digits, narrow, tmp_path):
    recipe = RECIPE.updated({"batch_size": 500}, "search")
    assert profile_search(narrow, digits, tmp_path / "out", Budget(target=0.5), recipe)["ms_a_step"] > 0


@pytest.mark.parametrize("size", [500, 5000])
def test_all_steps_are_as_large_as_the_first(digits_data, size):
    """Or else the time of a step would be held against bounds of a larger one."""
    images = digits_data.part("train")
    assert 500 < len(images.labels) < 5000
    assert len(images.labels) % 500
    batches = list(islice(full_batches(images, size), 24))
    assert {len(labels) for _, labels in batches} == {min(size, len(images.labels))}
    assert not torch.equal(batches[0][1], batches[-1][1])


def test_its_flops_are_those_of_forward_pass_and_gradients_of_inputs(digits, narrow, tmp_path, monkeypatch):
    """Two a multiply-add; no gradient goes to weights, nor to what lies before the first gate."""
    monkeypatch.setattr("pfs_core.nn.frozen_conv.SMALL_MAP", 0)  # there are fewer in products in place of convolutions
    result = profile_search(narrow, digits, tmp_path / "out", Budget(target=0.5), RECIPE)
    spec = narrow.updated({"input_shape": (1, 8, 8)}, "model")
    graph = unexpanded_graph(spec)
    widths = graph.expanded(1.25)
    forward = graph.cost(widths).macs
    before = {term.module: term.macs * term.factor(widths) for term in graph.terms}
    unneeded = before["conv1"] + before["layer1.0.conv1"]
    assert result["gflop_a_step"] * 1e9 == 2 * 32 * (2 * forward - unneeded)


def test_a_folder_with_other_files_is_refused(digits, narrow, tmp_path):
    (tmp_path / "notes.txt").write_text("mine")
    with pytest.raises(UserError, match="holds other files"):
        profile_search(narrow, digits, tmp_path, Budget(target=0.5), RECIPE)
