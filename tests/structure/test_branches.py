"""Cutting residual branches: left out where they are hardly used, whole otherwise, and only where that is asked for."""

import pytest
import torch
from hypothesis import assume, given
from hypothesis import strategies as st

from pfs_core.channels import Cost, Refuted
from pfs_core.config.spec import Budget, ModelSpec
from pfs_core.errors import UserError
from pfs_core.structure import Structure, extract, unexpanded_graph
from pfs_core.structure.references import uniform
from tests import budgets
from tests.budgets import SPEC, graph, random_gates

RESNET = ModelSpec(name="resnet20")
FULL = unexpanded_graph(RESNET)
BRANCHES = {name for branch in FULL.branches for name in branch.groups}


def gates(**used):
    """Gates of 1 for so many channels of these groups, and for all of the others; else 0."""
    counts = {group.name: used.get(group.name.replace(".", "_"), group.width) for group in FULL.prunable()}
    return {name: (torch.arange(FULL.group(name).width) < count).float() for name, count in counts.items()}


def cut(scores, target=1.0, **options):
    return extract(FULL, scores, Budget(target=target), model=RESNET, block=16, **options)


def test_a_branch_that_is_hardly_used_is_left_out_before_one_that_is_used():
    scores = gates(layer1_1_conv1=7, layer2_1_conv1=8)
    structure = cut(scores, 0.85)
    assert structure.widths["layer1.1.conv1"] == 0
    assert structure.widths["layer2.1.conv1"] == 16
    assert structure.left_out == ["layer1.1.bn2"]


@pytest.mark.parametrize("options", [{"floor": 0.01}, {"block": 1}], ids=["a floor", "the paper's cut"])
def test_no_branch_is_left_out_with_a_floor_or_in_the_papers_cut(options):
    scores = gates(layer1_1_conv1=1)
    structure = extract(FULL, scores, Budget(target=0.6), model=RESNET, **{"block": 16, **options})
    assert all(structure.widths.values())
    assert structure.left_out == []


@given(budgets.seeds, budgets.levels, st.floats(0.25, 1.0))
def test_a_branch_that_stays_is_whole_blocks_wide_but_for_the_last_one(seed, levels, target):
    try:
        structure = extract(graph(), random_gates(seed, levels), Budget(target=target), model=SPEC, block=16)
    except UserError:
        assume(False)
    halves = [name for branch in graph().branches for name in branch.groups if structure.widths[name] % 16]
    assert len(halves) <= 1
    assert all(structure.widths[name] == 8 for name in halves)


def test_the_last_branch_to_come_back_is_half_a_block_wide_where_a_whole_one_does_not_fit():
    scores = gates()
    every = cut(scores, 1.0)
    whole = FULL.cost({**every.widths, "layer1.2.conv1": 16}).macs
    half = FULL.cost({**every.widths, "layer1.2.conv1": 8}).macs
    scores["layer1.2.conv1"] /= 2  # so that it is the last of all
    dense = FULL.cost().macs
    assert cut(scores, whole / dense).widths["layer1.2.conv1"] == 16
    assert cut(scores, (whole - 1) / dense).widths["layer1.2.conv1"] == 8
    assert cut(scores, (half - 1) / dense).widths["layer1.2.conv1"] == 0


def test_uniform_widths_have_every_branch_unless_the_budget_cannot_be_met_so():
    assert all(uniform(FULL, Budget(target=0.3), model=RESNET, block=16).widths.values())
    smallest = FULL.cost({**FULL.widths(), **{group.name: 1 for group in FULL.prunable()}}).macs
    below = uniform(FULL, Budget(target=(smallest - 1) / FULL.cost().macs), model=RESNET, block=16)
    assert below.left_out


def test_branches_that_nobody_tried_to_leave_out_stay():
    """As with gates that an older version searched for."""
    untried = Refuted(needed=None).corrected(FULL)
    structure = extract(untried, gates(layer1_1_conv1=1), Budget(target=0.6), model=RESNET, block=16)
    assert all(structure.widths.values())


def test_a_structure_without_branches_is_saved_loaded_and_built(tmp_path):
    structure = cut(gates(layer1_1_conv1=0, layer3_2_conv1=0), 0.85)
    structure.save(tmp_path / "structure.json")
    loaded = Structure.load(tmp_path / "structure.json")
    assert loaded == structure
    assert "layer1.1.bn2" in loaded.left_out
    network = loaded.build().train()
    assert structure.cost.params == sum(p.numel() for p in network.parameters())
    assert Cost(**structure.cost.model_dump()) == FULL.cost(structure.widths)
    network(torch.randn(2, 3, 32, 32)).sum().backward()
    assert all(p.grad is not None for p in network.parameters())


def test_a_needed_branch_stays_and_the_file_says_why(tmp_path):
    needed = Refuted(needed={"layer1.1.bn2": "it is needed"})
    structure = extract(needed.corrected(FULL), gates(layer1_1_conv1=0), Budget(target=0.85), model=RESNET, block=16)
    assert structure.widths["layer1.1.conv1"] > 0
    structure.save(tmp_path / "structure.json")
    assert Structure.load(tmp_path / "structure.json").refuted.needed == {"layer1.1.bn2": "it is needed"}
