"""The structure file: read back as written, checked against its model, built into a network."""

import json

import pytest
import torch
from hypothesis import given, settings

from pfs_core.channels import Refuted, trace
from pfs_core.config.spec import Budget
from pfs_core.errors import UserError
from pfs_core.structure import Structure, extract, unexpanded_graph
from pfs_core.structure.references import dense, uniform
from tests import budgets
from tests.budgets import SPEC, graph, random_gates


def structure_of(seed=0, target=0.5, provenance=None):
    return extract(graph(), random_gates(seed), Budget(target=target), model=SPEC, seed=seed, provenance=provenance)


@given(seed=budgets.seeds)
@settings(max_examples=10)
def test_load_gives_what_was_saved(seed, tmp_path_factory):
    path = tmp_path_factory.mktemp("structure") / "structure.json"
    structure = structure_of(seed, provenance={"gates_sha256": "abc"})
    structure.save(path)
    loaded = Structure.load(path)
    assert loaded == structure
    assert loaded.digest == structure.digest
    assert loaded.digest != structure_of(seed + 1, provenance={"gates_sha256": "abc"}).digest
    again = path.with_name("again.json")
    loaded.save(again)
    assert again.read_bytes() == path.read_bytes()


@given(seed=budgets.seeds)
@settings(max_examples=5)
def test_trace_of_built_network_has_the_widths(seed):
    structure = structure_of(seed)
    built = trace(structure.build(), SPEC.input_shape)
    assert built.widths() == structure.widths
    assert built.cost() == (structure.cost.macs, structure.cost.params)
    assert structure.graph() == graph()


def test_the_records_say_what_was_asked_and_reached():
    structure = structure_of(target=0.5)
    assert structure.reference.model_dump() == graph().cost()._asdict()
    assert structure.budget.achieved == structure.cost.macs / structure.reference.macs
    assert structure.budget.gap == 0.5 - structure.budget.achieved
    assert structure.chosen_by["method"] == "pfs"
    assert structure.network == "pruned"


def test_an_absolute_budget_is_recorded_as_a_count():
    structure = structure_of(target=1_200_000)
    assert structure.budget.achieved == structure.cost.macs
    assert structure.budget.gap == 1_200_000 - structure.cost.macs
    assert structure.budget.got == f"{structure.cost.macs:,}"


def test_the_file_is_the_documented_one(tmp_path):
    structure_of().save(tmp_path / "s.json")
    values = json.loads((tmp_path / "s.json").read_text())
    assert list(values) == ["schema", "model", "widths", "cost", "reference", "budget", "chosen_by", "provenance"]
    assert values["schema"] == "pfs.structure/1"
    assert list(values["widths"]) == list(graph().widths())
    assert values["model"]["input_shape"] == [1, 8, 8]


def test_what_the_proof_refuted_is_in_every_file_and_in_its_graph(tmp_path):
    refuted = Refuted({"layer2.0.conv1": "for a reason"}, {"layer1.0.conv1": "for another"})
    corrected = refuted.corrected(graph())
    gates = {group.name: torch.ones(corrected.expanded(1.25)[group.name]) for group in corrected.prunable()}
    half = Budget(target=0.5)
    made = [extract(corrected, gates, half, model=SPEC), uniform(corrected, half, model=SPEC)]
    for structure in (*made, dense(corrected, model=SPEC)):
        structure.save(tmp_path / "s.json")
        loaded = Structure.load(tmp_path / "s.json")
        assert loaded == structure
        assert loaded.graph() == corrected
        assert loaded.refuted == refuted
    path = tmp_path / "s.json"
    values = json.loads(path.read_text())
    path.write_text(json.dumps(without(values, "frozen", "no_wider")))
    assert Structure.load(path).graph() == graph()


def test_the_policy_is_in_the_graph_of_what_was_cut_by_it():
    traced, half = graph("all"), Budget(target=0.5)
    structures = [
        extract(traced, random_gates(0, policy="all"), half, model=SPEC, policy="all"),
        uniform(traced, half, model=SPEC, policy="all"),
    ]
    assert [structure.graph() for structure in structures] == [traced, traced]
    assert "policy" not in uniform(graph(), half, model=SPEC).chosen_by


def test_same_seed_builds_the_same_network():
    structure = structure_of()

    def weights(seed):
        torch.manual_seed(seed)
        return structure.build().state_dict()

    assert all(torch.equal(a, b) for a, b in zip(weights(0).values(), weights(0).values(), strict=True))
    assert not torch.equal(weights(0)["conv1.weight"], weights(1)["conv1.weight"])


def test_tracing_a_spec_leaves_the_random_state_alone():
    before = torch.get_rng_state()
    unexpanded_graph(SPEC)
    assert torch.equal(before, torch.get_rng_state())


def without(values, *keys):
    return {key: value for key, value in values.items() if key not in keys}


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (lambda v: {**v, "schema": "pfs.structure/2"}, "has schema 'pfs.structure/2'; expected"),
        (lambda v: without(v, "schema"), "has schema None; expected"),
        (lambda v: [v], "has schema None; expected"),
        (lambda v: without(v, "widths"), "widths: is missing"),
        (lambda v: {**v, "width": {}}, "width is not a setting"),
        (lambda v: {**v, "widths": {**v["widths"], "layer9.0.conv1": 3}}, "unknown channel group 'layer9.0.conv1'"),
        (lambda v: {**v, "widths": without(v["widths"], "conv1")}, "no width is given for channel group 'conv1'"),
        (lambda v: {**v, "widths": {**v["widths"], "conv1": 0}}, "must be a positive number"),
        (lambda v: {**v, "widths": {**v["widths"], "fc": 11}}, "channel group 'fc' must keep width 10"),
        (lambda v: {**v, "widths": {**v["widths"], "conv1": 21}}, "its widths cost .* where the file says"),
        (lambda v: {**v, "cost": {**v["cost"], "macs": 1}}, "its widths cost .* where the file says 1 and"),
        (
            lambda v: {**v, "reference": {**v["reference"], "params": 2}},
            "its unexpanded network costs .* and 2; if the network has changed, search and extract again",
        ),
        (lambda v: {**v, "frozen": ["conv1"]}, "frozen: must be an object"),
        (lambda v: {**v, "no_wider": {"conv1": ""}}, "'conv1' must not be wider than 16"),
        (lambda v: {**v, "chosen_by": {"policy": "outer"}}, "chosen_by: policy must be one of inner, all"),
        (lambda v: {**v, "model": {**v["model"], "name": "resnet21"}}, "unknown model 'resnet21'"),
    ],
)
def test_load_refuses_what_is_no_structure(change, message, tmp_path):
    path = tmp_path / "structure.json"
    structure_of().save(path)
    path.write_text(json.dumps(change(json.loads(path.read_text()))))
    with pytest.raises(UserError, match=message) as error:
        Structure.load(path)
    assert str(path) in str(error.value)
    assert "\n" not in str(error.value)


def test_load_refuses_what_is_no_json(tmp_path):
    path = tmp_path / "structure.json"
    path.write_text("widths: 3")
    with pytest.raises(UserError, match="is not JSON"):
        Structure.load(path)


@pytest.mark.parametrize("name", ["missing.json", ".", "file.txt/structure.json"])
def test_load_refuses_what_is_no_file(name, tmp_path):
    (tmp_path / "file.txt").write_text("")
    with pytest.raises(UserError, match=str(tmp_path)):
        Structure.load(tmp_path / name)


def test_the_reference_is_checked_as_well(tmp_path):
    path = tmp_path / "structure.json"
    structure_of().save(path)
    values = json.loads(path.read_text())
    values["reference"]["macs"] *= 2
    path.write_text(json.dumps(values))
    with pytest.raises(UserError):
        Structure.load(path)
