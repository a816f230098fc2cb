"""The default cut against the paper's: rows of finished cells as a table, differences paired by seed."""

import numpy as np
import pandas as pd
import pytest
from scipy.stats import ttest_rel

from tests.benchmarks.scripts import called, module

ACCURACY = {
    "dense": [0.9, 0.91],
    "paper-macs": [0.88, 0.89, 0.87],
    "default-macs": [0.87, 0.885, 0.868],
    "all-latency": [0.86],
    "default-latency": [0.865, 0.87],
}


@pytest.fixture
def cells():
    """A row for each cell that is there."""
    same = {
        "network": "resnet20", "latency": 0.7, "epochs": 15, "train_rows": 45000, "precision": "bf16", "macs": 20,
        "params": 7, "dense_macs": 40, "time": 0.7, "time_low": 0.69, "time_high": 0.71, "noisy": "", "cpu": "a CPU",
        "threads": 1, "torch": "2",
    }  # fmt: skip
    return pd.DataFrame(
        [
            {**same, "cut": cut, "seed": seed, "test_accuracy": accuracy}
            for cut, seeds in ACCURACY.items()
            for seed, accuracy in enumerate(seeds)
        ]
    )


def row(text, cut):
    (line,) = (line for line in text.splitlines() if line.startswith(f"| {cut} |"))
    return [cell.strip() for cell in line.split("|")[1:-1]]


def test_differences_are_paired_by_seed_with_students_interval(cells):
    (text,) = module("equal_time").tables(cells).values()
    low, high = ttest_rel(ACCURACY["paper-macs"], ACCURACY["default-macs"]).confidence_interval(0.95)
    mean = np.mean(ACCURACY["paper-macs"]) - np.mean(ACCURACY["default-macs"])
    assert row(text, "paper-macs")[-1] == f"{100 * mean:+.2f} [{100 * low:+.2f}, {100 * high:+.2f}]"
    assert row(text, "all-latency")[-1] == "-0.50"
    assert row(text, "dense")[-1] == row(text, "default-macs")[-1] == ""


def test_the_table_is_made_of_what_is_there_with_n(cells):
    (text,) = module("equal_time").tables(cells[cells.cut != "paper-macs"]).values()
    assert "| paper-macs |" not in text
    assert row(text, "dense")[1:4] == ["2", "90.50%", "90.00%, 91.00%"]
    assert row(text, "default-latency")[4] == "50.0%"


def test_a_time_of_another_machine_is_marked(cells):
    cells.loc[cells.cut == "paper-macs", "cpu"] = "another CPU"
    (text,) = module("equal_time").tables(cells).values()
    assert row(text, "paper-macs")[6] == ", ".join(["0.700 (another CPU)"] * 3)
    assert row(text, "default-macs")[6] == "0.700, 0.700, 0.700"


def test_a_wrong_cut_is_refused(tmp_path):
    done = called("equal_time", "run", "--dataset", "digits", "--out", tmp_path / "out", "--cuts", "best")
    assert done.returncode == 2
    assert "paper-macs" in done.stderr
    assert not (tmp_path / "out").exists()
