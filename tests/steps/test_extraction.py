"""The extraction step: three structures from a folder of gates."""

import pytest

from pfs_core.channels import Cost
from pfs_core.config.spec import Budget
from pfs_core.config.stages import ExtractConfig
from pfs_core.errors import UserError
from pfs_core.methods.gates_folder import load_gates
from pfs_core.steps.extraction import extract_structures
from pfs_core.storage.digests import file_digest
from pfs_core.structure import Structure, extract
from tests.budgets import PAPERS_CUT

FILES = ["dense.json", "structure.json", "uniform.json"]


def test_the_folder_holds_three_structures_of_one_model(structures):
    assert {path.name for path in structures.iterdir()} == {*FILES, "complete.json", "seconds.json"}
    loaded = [Structure.load(structures / name) for name in FILES]
    assert [s.network for s in loaded] == ["dense", "pruned", "uniform"]
    assert loaded[0].model == loaded[1].model == loaded[2].model
    assert loaded[0].reference == loaded[1].reference == loaded[2].reference


def test_the_structure_is_algorithm_1_on_these_gates(structures, gates):
    structure = Structure.load(structures / "structure.json")
    scores, info = load_gates(gates)
    again = extract(structure.graph(), scores, Budget(target=0.5), model=structure.model, seed=info.seed)
    assert again.widths == structure.widths
    assert Cost(structure.cost.macs, structure.cost.params) == structure.graph().cost(structure.widths)


def test_provenance_names_the_gates_and_the_split(structures, gates):
    provenance = Structure.load(structures / "structure.json").provenance
    assert provenance["gates_sha256"] == file_digest(gates / "gates.safetensors")
    assert provenance["split_fingerprint"] == load_gates(gates)[1].split_fingerprint


def test_the_same_gates_give_the_same_bytes(structures, gates, tmp_path):
    extract_structures(gates, tmp_path / "again", Budget(target=0.5), PAPERS_CUT)
    for name in FILES:
        assert (tmp_path / "again" / name).read_bytes() == (structures / name).read_bytes()


def test_channel_multiple_is_respected(gates, tmp_path):
    found = extract_structures(gates, tmp_path / "out", Budget(target=0.6), ExtractConfig(channel_multiple=2, blocks=1))
    for name in ("pruned", "uniform"):
        prunable = [group.name for group in found[name].graph().prunable()]
        assert all(found[name].widths[group] % 2 == 0 for group in prunable)


def test_an_unreachable_budget_leaves_nothing(gates, tmp_path):
    with pytest.raises(UserError, match="cannot be reached"):
        extract_structures(gates, tmp_path / "out", Budget(target=0.01), PAPERS_CUT)
    assert list(tmp_path.iterdir()) == []


def test_a_folder_that_holds_no_gates_is_refused(digits, tmp_path):
    for folder in (digits, tmp_path, tmp_path / "missing"):
        with pytest.raises(UserError, match="pfs search"):
            extract_structures(folder, tmp_path / "out", Budget(target=0.5))


def test_a_budget_that_is_a_count_is_said_as_one(gates, tmp_path, capsys):
    found = extract_structures(gates, tmp_path / "out", Budget(target=120_000), PAPERS_CUT)
    lines = capsys.readouterr().out.splitlines()
    assert lines[0].endswith(f"macs {found['pruned'].cost.macs:,}")
    assert lines[2].endswith("macs 1.000")
