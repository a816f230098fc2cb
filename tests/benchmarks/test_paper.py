"""The paper's comparison as a command: small, stopped, gone on with, and as tables."""

import json
import subprocess
import sys

import pandas as pd
import pytest
from safetensors.torch import load_file
from scipy.stats import ttest_rel

from tests.benchmarks.scripts import ROOT, called, module
from tests.data.folders import images, png, write

SCALE = "1e-05"
SMALL = ("--scale", SCALE, "--search-scale", "1e-3")


def paper(*arguments):
    return called("paper", *arguments)


@pytest.fixture(scope="module")
def out(tmp_path_factory):
    """Three cells of one seed, on a handful of made-up images; the page that they were put on is beside it."""
    folder = tmp_path_factory.mktemp("paper")
    data = folder / "data"
    data.mkdir()
    for part, count in (("train", 20_000), ("test", 40)):
        few = [png(image) for image in images(40, (3, 32, 32))]
        write(data / f"{part}.parquet", [few[i % 40] for i in range(count)], [i % 10 for i in range(count)])
    (folder / "page.md").write_text(f"# Before\n\n<!-- paper: resnet20 {SCALE} -->\nold\n<!-- end -->\n\nAfter\n")
    for methods in (["pfs"], ["uniform", "dense"]):  # in any order
        done = paper("run", "--data", data, "--out", folder / "out", *SMALL, "--methods", *methods)
        assert done.returncode == 0, done.stdout + done.stderr
    collected(folder / "out")
    return folder / "out"


def collected(out):
    """The rows of the finished cells in ``out``."""
    done = paper("collect", "--out", out, "--results", out / "results.parquet")
    assert done.returncode == 0, done.stdout + done.stderr
    return pd.read_parquet(out / "results.parquet")


def test_a_cell_is_a_row_with_its_machine(out):
    rows = pd.read_parquet(out / "results.parquet").set_index("method")
    assert set(rows.index) == {"dense", "uniform", "pfs"}
    assert set(rows.scale) == {1e-5}
    assert (rows.loc[["uniform", "pfs"], "macs"] <= 0.5 * rows.dense_macs.iloc[0]).all()
    assert rows.loc["dense", "macs"] == rows.dense_macs.iloc[0]
    assert rows.search_forward_images["pfs"] > 0
    assert rows.search_steps.to_dict() == {"dense": 0, "uniform": 0, "pfs": 2}  # a thousandth of 1,410
    for folder in (out / f"resnet20-scale{SCALE}-seed0" / method for method in rows.index):
        assert json.loads((folder / "machine.json").read_text())["threads"] == rows.threads[folder.name]


def test_what_is_done_is_not_done_again(out):
    (model,) = (out / f"resnet20-scale{SCALE}-seed0" / "pfs").glob("model/model.safetensors")
    written = model.stat().st_mtime_ns
    done = paper("run", "--data", out.parent / "data", "--out", out, *SMALL, "--methods", "pfs")
    assert done.returncode == 0, done.stdout + done.stderr
    assert model.stat().st_mtime_ns == written


def test_methods_are_compared_with_uniform_widths_by_seed(out):
    rows = pd.read_parquet(out / "results.parquet")
    accuracy = {"pfs": [0.90, 0.93, 0.91], "uniform": [0.89, 0.90, 0.91], "dense": [0.95, 0.95]}
    several = pd.concat(
        rows[rows.method == method].assign(seed=seed, test_accuracy=value)
        for method, values in accuracy.items()
        for seed, value in enumerate(values)
    )
    lines = module("paper_tables").methods(several, ["dense", "pfs", "uniform"])
    column = lines[2].split("|").index(" points over uniform ")
    over = {line.split("|")[1].strip(): line.split("|")[column].strip() for line in lines[4:]}
    low, high = ttest_rel(accuracy["pfs"], accuracy["uniform"]).confidence_interval(0.95)
    assert over["pfs"] == f"+1.33 [{100 * low:+.2f}, {100 * high:+.2f}]"
    assert over["dense"].startswith("+5.50 [")
    assert over["uniform"] == ""


def test_structures_with_other_groups_are_not_compared():
    kept = {"pfs": [0.2, 0.4, 0.9], "uniform": [0.4, 0.5, 0.5], "torch_pruning_whole": [0.2, 0.4, 0.9, 1.0]}
    rows = [{"method": method, "seed": 0, "kept": json.dumps(shares)} for method, shares in kept.items()]
    _, _, *lines = module("paper_tables").likenesses(pd.DataFrame(rows))
    assert [line.split("|")[1].strip() for line in lines] == ["pfs and uniform"]


def test_an_experiment_at_another_ratio_has_its_name(out):
    arguments = ("--data", out.parent / "data", "--out", out.parent / "less", *SMALL)
    done = paper("run", *arguments, "--experiment", "resnet20-0.3", "--methods", "uniform")
    assert done.returncode == 0, done.stdout + done.stderr
    (row,) = collected(out.parent / "less").itertuples()
    assert row.experiment == "resnet20-0.3"
    assert 0.25 < row.macs / row.dense_macs <= 0.3


def test_the_table_goes_between_the_marks_of_a_page(out):
    page = out.parent / "page.md"
    for _ in range(2):
        done = paper("table", "--results", out / "results.parquet", "--docs", page)
        assert done.returncode == 0, done.stdout + done.stderr
        text = page.read_text()
        assert text.startswith("# Before\n\n<!-- paper")
        assert text.endswith("<!-- end -->\n\nAfter\n")
        assert "old" not in text
        assert [text.count(f"| {method} | ") for method in ("dense", "uniform", "pfs")] == [1, 1, 1]
        assert "| pfs and uniform |" in text


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        (("collect", "--out", "OUT", "--results", "OUT/results.parquet"), "has no trained network yet"),
        (("table", "--results", "OUT/results.parquet"), "results.parquet is not there"),
        (("run", "--out", "OUT", "--data", "nowhere"), "--data must be a folder with train.parquet"),
        (("run", "--out", "OUT", "--data", "nowhere", "--scale", "2"), "--scale must be above 0 and at most 1"),
        (("run", "--out", "OUT", "--data", "nowhere", "--search-scale", "0"), "--search-scale must be above 0"),
    ],
)
def test_what_cannot_be_done_is_said_in_a_line(tmp_path, arguments, said):
    done = paper(*(argument.replace("OUT", str(tmp_path / "out")) for argument in arguments))
    assert done.returncode == 2
    assert done.stdout.startswith("error: ")
    assert len((done.stdout + done.stderr).splitlines()) == 1
    assert said in done.stdout


def test_a_cell_that_is_collected_again_stays_one_row(out):
    assert len(collected(out)) == 3
    assert len(collected(out)) == 3


@pytest.mark.parametrize("part", [0.2, 0.1, 0.2236, 10 / 12, 1.0])
def test_a_search_is_never_shrunk(part):
    """Of 12 epochs with 10/12 of the images, which has 293 steps an epoch, four of the 3,520 steps would be missing."""
    experiment, rows = module("paper").EXPERIMENTS["resnet20"], round(45_000 * part)
    config = module("paper").settings("pfs", experiment, part, 1.0, rows)
    steps = -(-rows // config.batch_size)
    assert 3520 <= steps * config.epochs < 3520 + steps
    assert module("paper").settings("amc", experiment, part, 1.0, rows).episodes == 800


@pytest.fixture(scope="module")
def fine_tuned(out):
    """What Torch-Pruning's two cells came to, in a folder that has no dense network yet."""
    arguments = ("--data", out.parent / "data", "--out", out.parent / "tuned", *SMALL, "--experiment", "resnet20-short")
    done = paper("run", *arguments, "--methods", "torch_pruning_quarter", "torch_pruning_whole")
    assert done.returncode == 0, done.stdout + done.stderr
    return collected(out.parent / "tuned").set_index("method")


def test_torch_pruning_cuts_the_dense_network_to_the_same_macs(fine_tuned, out):
    """At the network's own cell, which is trained first."""
    assert set(fine_tuned.index) == {"dense", "torch_pruning_quarter", "torch_pruning_whole"}
    tuned = fine_tuned.drop("dense")
    assert (tuned.macs <= 0.5 * tuned.dense_macs).all()
    assert (tuned.macs > 0.48 * tuned.dense_macs).all()
    assert (tuned.pretrain_device_seconds == fine_tuned.retrain_device_seconds["dense"]).all()
    assert (tuned.search_device_seconds > 0).all()
    for method in tuned.index:
        cell = out.parent / "tuned" / f"resnet20-short-scale{SCALE}-seed0" / method
        recipe = json.loads((cell / "model" / "metrics.json").read_text())["recipe"]
        assert (recipe["start"], recipe["lr"], recipe["scratch_b"]) == ("inherited", 0.01, False)


def test_what_torch_pruning_leaves_is_a_part_of_the_dense_network(fine_tuned, out):
    """The weights that fine-tuning starts from are those of the trained network, some channels short."""
    base = out.parent / "tuned" / f"resnet20-short-scale{SCALE}-seed0"
    whole = load_file(base / "dense" / "model" / "model.safetensors")
    left = load_file(base / "torch_pruning_whole" / "structures" / "inherited.safetensors")
    assert left.keys() == whole.keys()
    for name in ("bn1.weight", "layer1.0.bn1.running_var", "fc.bias"):
        assert set(left[name].tolist()) <= set(whole[name].tolist())
    assert len(left["fc.bias"]) == 10


def test_the_times_of_a_table_are_those_of_all_its_trainings(fine_tuned, out):
    done = paper("table", "--results", out.parent / "tuned" / "results.parquet")
    (line,) = [line for line in done.stdout.splitlines() if line.startswith("| torch_pruning_whole |")]
    row = fine_tuned.loc["torch_pruning_whole"]
    total = row.pretrain_device_seconds + row.search_device_seconds + row.retrain_device_seconds
    cells = [cell.strip() for cell in line.strip("|").split("|")]
    assert (cells[1], cells[-2], cells[-1]) == ("1", "", f"{total:,.0f}")  # without PFS nothing is relative to it


def test_a_page_without_the_marks_is_left_alone(out, tmp_path):
    """As a user runs it, in a process of its own."""
    (tmp_path / "page.md").write_text("text\n")
    command = [sys.executable, ROOT / "benchmarks" / "paper.py", "table", "--results", out / "results.parquet"]
    done = subprocess.run([*command, "--docs", tmp_path / "page.md"], capture_output=True, text=True, check=False)
    assert done.returncode == 2
    assert "needs the lines '<!-- paper: resnet20 1e-05 -->' and '<!-- end -->'" in done.stdout
    assert (tmp_path / "page.md").read_text() == "text\n"
