"""A comparison says of every network what it costs, and its table can be put into a paper."""

import csv
import dataclasses
import json
import re

import pytest

from pfs_core.report.comparison import front, latex_table, write_comparison


@pytest.fixture(scope="module")
def folder(results, tmp_path_factory):
    """Of two budgets: one twice, the second time with another title, and none of them better than the other."""
    out = tmp_path_factory.mktemp("comparison") / "comparison"
    structure = results.structures["pruned"]
    budget = structure.budget.model_copy(update={"target": 0.6})
    other = structure.model_copy(update={"budget": budget})
    write_comparison([results, dataclasses.replace(results, structures={**results.structures, "pruned": other})], out)
    return out


def test_latex_says_what_the_table_says(folder):
    lines = (folder / "comparison.tex").read_text().splitlines()
    assert lines[:2] == [r"\begin{tabular}{lrrrrrrr}", r"\toprule"]
    assert lines[-2:] == [r"\bottomrule", r"\end{tabular}"]
    rows = [line.removesuffix(r" \\").split(" & ") for line in lines if line.endswith(r"\\")]
    assert {len(row) for row in rows} == {8}
    assert [row[0] for row in rows] == ["budget", "dense", "macs=0.5", "macs=0.6"]
    stated = json.loads((folder / "comparison.json").read_text())["rows"]
    for row, texts in zip(stated, rows[1:], strict=True):
        assert texts[1] == f"{row['macs']:,}"
        assert texts[3].startswith(f"{row['test_accuracy']:.2%}".replace("%", r"\%"))
        assert texts[7] == f"{row['file_mib']:.2f}"


def test_latex_leaves_no_character_that_means_something_to_tex():
    table = latex_table(["a_b", "50%"], [[r"\x{y}", "~1^2 & $3 #4"]])
    row = table.splitlines()[4]
    assert row == r"\textbackslash{}x\{y\} & \textasciitilde{}1\textasciicircum{}2 \& \$3 \#4 \\"
    assert r"a\_b & 50\% \\" in table


def test_csv_has_a_column_a_number(folder):
    with (folder / "comparison.csv").open() as file:
        rows = list(csv.DictReader(file))
    stated = json.loads((folder / "comparison.json").read_text())["rows"]
    for row, other in zip(rows, stated, strict=True):
        assert float(row["p50_interval_ms_low"]) == other["p50_interval_ms"][0]
        assert float(row["test_accuracy_interval_high"]) == other["test_accuracy_interval"][1]


def test_front_is_who_no_other_beats_at_that_cost():
    rows = [
        {"test_accuracy": 0.9, "macs": 100, "p50_ms": 1.0},
        {"test_accuracy": 0.8, "macs": 50, "p50_ms": 2.0},
        {"test_accuracy": 0.7, "macs": 60, "p50_ms": 0.5},
    ]
    assert front(rows) == rows[:2]
    assert front(rows, "p50_ms") == [rows[0], rows[2]]


def test_the_figure_says_its_numbers_and_fronts_in_words(folder):
    html = (folder / "comparison.html").read_text()
    (words,) = re.findall(r'<div role="img" aria-label="([^"]+)"', html)
    rows = json.loads((folder / "comparison.json").read_text())["rows"]
    for row in rows:
        assert f"{row['macs']:,} MACs, {row['params']:,} parameters, {row['p50_ms']:.3f} ms" in words
    best = ", ".join(row["budget"] or "dense" for row in rows if row["on_front"])
    assert f"by MACs: {best};" in words
    assert html.count('<th scope="row">') == len(rows)
