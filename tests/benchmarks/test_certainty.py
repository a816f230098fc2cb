"""How sure the search is: cells by two seeds, stopped and gone on with, and as tables."""

import numpy as np
import pandas as pd
import pytest
import torch

from pfs_core.config.spec import Budget, ModelSpec
from pfs_core.methods.gates_folder import load_gates
from pfs_core.methods.pfs.config import PfsConfig
from pfs_core.methods.run import search
from tests.benchmarks.scripts import called, module

ARGUMENTS = ("--dataset", "digits", "--recipe", "demo", "--epochs", "1")


@pytest.fixture(scope="module")
def out(tmp_path_factory):
    """Four seeds, and one set of weights with another order of the images."""
    folder = tmp_path_factory.mktemp("certainty") / "out"
    for which in (["--weights", "0", "1", "2", "3"], ["--weights", "0", "--orders", "1"]):
        done = called("certainty", "run", "--out", folder, *ARGUMENTS, "--precision", "fp32", *which)
        assert done.returncode == 0, done.stdout + done.stderr
    done = called("certainty", "collect", "--out", folder, "--results", folder / "results.parquet")
    assert done.returncode == 0, done.stdout + done.stderr
    return folder


def gates_of(out, weights, order):
    (folder,) = out.glob(f"*/weights{weights}-order{order}/gates")
    return load_gates(folder)[0]


def test_a_cell_of_one_seed_is_a_search(out, tmp_path):
    (gates,) = out.glob("*/weights1-order1/gates")
    config = load_gates(gates)[1].config_as(PfsConfig)
    search(ModelSpec(name="resnet20"), out / "split", tmp_path / "gates", Budget(target=0.5), config, seed=1)
    for name in ("gates.safetensors", "history.parquet"):
        assert (tmp_path / "gates" / name).read_bytes() == (gates / name).read_bytes()


def test_an_order_is_of_the_same_weights(out):
    """Two orders leave other gates, which are much more alike than those of other weights."""
    same, order, weights = (torch.cat(list(gates_of(out, *cell).values())) for cell in ((0, 0), (0, 1), (1, 1)))
    apart = [float((gates - same).abs().mean()) for gates in (order, weights)]
    assert 0 < apart[0] < apart[1]


def test_a_row_has_what_its_cell_found(out):
    rows = pd.read_parquet(out / "results.parquet").set_index(["weights", "order"])
    assert sorted(rows.index) == [(0, 0), (0, 1), (1, 1), (2, 2), (3, 3)]
    row = rows.loc[(0, 1)]
    gates = gates_of(out, 0, 1)
    assert {group: values.tolist() for group, values in gates.items()} == {
        group: values.tolist() for group, values in zip(row.groups, row.gates, strict=True)
    }
    assert (row.network, row.budget, row.precision, row.epochs) == ("resnet20", "macs=0.5", "fp32", 1)


def test_what_is_done_is_not_done_again(out):
    before = {path: path.stat().st_mtime_ns for path in out.glob("*/*/gates/*")}
    done = called("certainty", "run", "--out", out, *ARGUMENTS, "--precision", "fp32", "--weights", "0", "1")
    assert (done.returncode, done.stdout) == (0, "")
    assert {path: path.stat().st_mtime_ns for path in out.glob("*/*/gates/*")} == before


def test_the_tables_are_of_what_is_there(out):
    done = called("certainty", "table", "--results", out / "results.parquet")
    assert done.returncode == 0, done.stdout + done.stderr
    assert "n = 5 searches" in done.stdout
    assert "| order of the images, fp32 | 1 |" in done.stdout
    assert "| seed (both), fp32 | 6 |" in done.stdout
    assert "| weights, fp32 | 1 |" in done.stdout  # 0 and 1, both in order 1
    assert "| *a search and uniform widths* | 5 |" in done.stdout
    assert "| *random widths, two draws* | 190 |" in done.stdout
    assert [line[:14] for line in done.stdout.splitlines() if ", fp32 | " in line][-2:] == [
        "| 1, fp32 | 4 ", "| 2, fp32 | 2 "
    ]  # fmt: skip


def cell(weights, order, precision, widths, gates=None):
    widths = np.array(widths)
    gates = gates or {str(i): torch.linspace(1, 0, 8) for i in range(len(widths))}
    return module("certainty_tables").Cell(precision, weights, order, gates, widths, widths / 8)


def test_likeness_counted_by_hand():
    tables = module("certainty_tables")
    one, other = cell(0, 0, "bf16", [4, 2]), cell(0, 1, "bf16", [2, 4])
    (line,) = tables.compared([one, other])[2:]
    assert line == "| order of the images, bf16 | 1 | 50.0% | -1.00 | 2.0 | 66.7% |"
    lines = tables.matrix("x", [(0, one), (1, other)])
    assert lines[-2:] == ["| 0 |  | -1.00 |", "| 1 | 50.0% |  |"]


def test_only_one_thing_is_different_between_two_cells_that_are_compared():
    difference = module("certainty_tables").difference
    base = cell(0, 0, "bf16", [4, 2])
    assert difference(base, cell(0, 0, "fp32", [4, 2])) == "bf16 and fp32"
    assert difference(base, cell(1, 0, "bf16", [4, 2])) == "weights, bf16"
    assert difference(base, cell(1, 1, "bf16", [4, 2])) == "seed (both), bf16"
    assert difference(base, cell(1, 2, "bf16", [4, 2])) == ""
    assert difference(base, cell(0, 1, "fp32", [4, 2])) == ""
