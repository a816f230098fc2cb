"""A comparison says of every network what it costs, and its table can be put into a paper."""

import csv
import dataclasses
import json
import re
import shutil
import types

import pytest
from pfs_pipelines.cli import main

from pfs_core.config.spec import Budget
from pfs_core.errors import UserError
from pfs_core.latency.results import LatencyResult, NetworkSize, Ratio
from pfs_core.methods.run import search
from pfs_core.methods.uniform.config import UniformConfig
from pfs_core.report import runs
from pfs_core.report.comparison import figures_of, write_comparison
from pfs_core.report.comparison_figure import drawing, words
from pfs_core.report.comparison_rows import ComparisonRow, Effort, pareto_front, pruned_row
from pfs_core.report.comparison_verdict import comparison_verdict
from pfs_core.report.network_row import NetworkRow
from pfs_core.report.runs import load_runs
from pfs_core.steps.extraction import extract_structures
from pfs_core.structure import Structure
from tests.budgets import PAPERS_CUT
from tests.report.made_runs import a_run, measured


@pytest.fixture(scope="module")
def folder(results, tmp_path_factory):
    """Of two budgets: one twice, the second time with another title, and none of them better than the other."""
    out = tmp_path_factory.mktemp("comparison") / "comparison"
    structure = results.structures["pruned"]
    budget = structure.budget.model_copy(update={"target": 0.6})
    other = structure.model_copy(update={"budget": budget})
    write_comparison([results, dataclasses.replace(results, structures={**results.structures, "pruned": other})], out)
    return out


@pytest.fixture(autouse=True)
def no_figures(folder, undrawn):
    """But for the reports of ``folder``, which are drawn before."""


def test_latex_says_what_the_table_says(folder):
    lines = (folder / "comparison.tex").read_text().splitlines()
    second = lines.index(r"\begin{tabular}{lrrrrrrrrr}")
    lines, effort = lines[: second - 1], lines[second:]
    assert lines[:2] == [r"\begin{tabular}{lrrrrrrr}", r"\toprule"]
    assert lines[-2:] == effort[-2:] == [r"\bottomrule", r"\end{tabular}"]
    rows = [[text.strip() for text in line.removesuffix(r" \\").split(" & ")] for line in lines if line.endswith(r"\\")]
    assert {len(row) for row in rows} == {8}
    assert [row[0] for row in rows] == ["budget", "dense", "macs=0.5", "macs=0.6"]
    stated = json.loads((folder / "comparison.json").read_text())["rows"]
    for row, texts in zip(stated, rows[1:], strict=True):
        assert texts[1] == f"{row['macs']:,}"
        assert texts[3].startswith(f"{row['test_accuracy']:.2%}".replace("%", r"\%"))
        assert texts[6] == ("-" if row["accuracy_drop"] is None else f"{row['accuracy_drop']:.2%}".replace("%", r"\%"))
    sizes = [line.split(" & ")[1].strip() for line in effort if " & " in line]
    assert sizes == ["file, MiB", *(f"{row['file_mib']:.2f}" for row in stated)]


def test_csv_has_a_column_a_number(folder):
    with (folder / "comparison.csv").open() as file:
        rows = list(csv.DictReader(file))
    stated = json.loads((folder / "comparison.json").read_text())["rows"]
    for row, other in zip(rows, stated, strict=True):
        assert float(row["p50_interval_ms_low"]) == other["p50_interval_ms"][0]
        assert float(row["test_accuracy_interval_high"]) == other["test_accuracy_interval"][1]


def test_front_is_who_no_other_beats_at_that_cost():
    networks = [
        NetworkRow("pruned", macs, 10, test_accuracy=accuracy, p50_ms=p50)
        for accuracy, macs, p50 in ((0.9, 100, 1.0), (0.8, 50, 2.0), (0.7, 60, 0.5))
    ]
    rows = [ComparisonRow("", "", "", Effort(), None, network) for network in networks]
    assert pareto_front(rows) == rows[:2]
    assert pareto_front(rows, "p50_ms") == [rows[0], rows[2]]


def test_the_figure_says_its_numbers_and_fronts_in_words(folder):
    html = (folder / "comparison.html").read_text()
    (said,) = re.findall(r'<div role="img" aria-label="([^"]+)"', html)
    rows = json.loads((folder / "comparison.json").read_text())["rows"]
    for row in rows:
        assert f"{row['macs']:,} MACs, {row['params']:,} parameters, {row['p50_ms']:.3f} ms" in said
    best = ", ".join(row["budget"] or "dense" for row in rows if row["on_front"])
    assert f"by MACs: {best};" in said
    assert html.count('<th scope="row">') == 2 * len(rows)  # what came out, and what it took


def test_seeds_of_a_method_are_one_row_with_students_interval(results, tmp_path):
    runs = [a_run(results, "pfs", seed, accuracy) for seed, accuracy in enumerate((0.50, 0.54, 0.52))]
    rows = write_comparison([*runs, a_run(results, "random", 0, 0.4)], tmp_path / "out").rows
    dense, pfs, random = (row.flat() for row in rows)
    assert [(row.name, row.seeds) for row in rows] == [("", 3), ("pfs", 3), ("random", 1)]
    assert pfs["test_accuracy"] == pytest.approx(0.52)
    assert pfs["test_accuracy_interval"] == pytest.approx([0.52 - 0.04968, 0.52 + 0.04968], abs=1e-5)  # 4.303 * 0.02/√3
    assert (dense["test_accuracy"], pfs["search_seconds"]) == (pytest.approx(0.62), pytest.approx(5))
    assert random["test_accuracy_interval"] == pytest.approx([0.39, 0.41])
    assert (pfs["search_device_seconds"], pfs["search_forward_images"], pfs["search_backward_images"]) == (14, 600, 400)
    assert dense["search_device_seconds"] is None
    trained = {network: runs[0].metrics[network].seconds for network in ("dense", "pruned")}
    assert (pfs["pretrain_seconds"], pfs["retrain_seconds"]) == (5, pytest.approx(trained["pruned"]))
    assert (dense["pretrain_seconds"], dense["retrain_seconds"]) == (None, pytest.approx(trained["dense"]))
    assert (pfs["accuracy_drop"], dense["accuracy_drop"]) == (pytest.approx(0.1), None)
    assert figures_of(rows)["pfs.accuracy_drop"] == pfs["accuracy_drop"]
    html = (tmp_path / "out" / "comparison.html").read_text()
    assert "<h1>resnet20 on digits by method</h1>" in html
    assert "those of several seeds are Student&#39;s over the seeds" in html
    folders = sorted(path.name for path in (tmp_path / "out").iterdir() if path.is_dir())
    assert folders == ["pfs-seed0", "pfs-seed1", "pfs-seed2", "random"]


def test_seeds_that_agree_by_chance_have_no_narrower_interval_than_each(results, tmp_path):
    """All seeds are tested with the same images and measured on the same machine."""
    wide = Ratio(ratio=0.99, interval=(0.95, 1.03), verdict="no measurable difference")
    ratios = {**results.quoted.ratios_to_dense, "pruned": wide}
    latency = measured(results, ratios_to_dense=ratios)
    runs = [dataclasses.replace(a_run(results, "pfs", seed), latency=latency) for seed in (0, 1)]
    row = write_comparison(runs, tmp_path / "out").rows[1].network
    assert row.test_accuracy_interval == pytest.approx((0.49, 0.51))
    assert row.latency_ratio_interval == pytest.approx((0.95, 1.03))
    assert row.latency_verdict == "no measurable difference"


def test_latencies_of_batches_are_not_called_those_of_images(results):
    rows = [pruned_row(results, "a")]
    for batch, unit in ((1, "milliseconds per image, median"), (8, "milliseconds per batch of 8, median")):
        assert f">{unit}</text>" in drawing(rows, batch)
        assert f"by {unit}: a." in words(rows, batch)


def test_a_comparison_names_the_batch_that_its_runs_quote(results, tmp_path):
    run = dataclasses.replace(a_run(results), latency=measured(results, batch=8))
    write_comparison([run], tmp_path / "out")
    assert "by milliseconds per batch of 8, median" in (tmp_path / "out" / "comparison.html").read_text()


def test_a_comparison_says_what_made_its_latencies_doubtful(results, tmp_path):
    latency = results.latency.model_copy(update={"noisy": ["others used 1.0 cores"]})
    noisy = dataclasses.replace(a_run(results), latency=latency)
    write_comparison([noisy, a_run(results, seed=1)], tmp_path / "out")
    assert "latency was measured: others used 1.0 cores." in (tmp_path / "out" / "comparison.html").read_text()


def test_no_interval_leaves_what_an_accuracy_can_be(results, tmp_path):
    runs = [a_run(results, "pfs", seed, accuracy) for seed, accuracy in enumerate((0.2, 0.95))]
    assert write_comparison(runs, tmp_path / "out").rows[1].network.test_accuracy_interval == (0.0, 1.0)


@pytest.fixture
def run_folder(digits, gates, structures, models, latency, tmp_path):
    """As ``pfs run`` leaves it."""
    folder = tmp_path / "run"
    folder.mkdir()
    found = {"split": digits, "gates": gates, "structures": structures, "latency": latency}
    for name, source in {**found, "model-pruned": models[0], "model-dense": models[1]}.items():
        shutil.copytree(source, folder / name)
    return folder


def test_run_folders_are_compared_by_a_command(run_folder, tmp_path, capsys):
    assert main(["compare", str(run_folder), str(tmp_path / "out")]) == 0
    lines = capsys.readouterr().out.splitlines()
    assert lines[0].split()[:3] == ["budget", "MACs", "params"]
    assert [line.split()[0] for line in lines[1:3]] == ["dense", "macs=0.5"]
    assert max(map(len, lines[:-1])) <= 80
    assert lines[4].startswith("Most accurate: macs=0.5, ")
    assert json.loads((tmp_path / "out" / "comparison.json").read_text())["rows"][1]["seeds"] == 1
    assert main(["compare", str(tmp_path), str(tmp_path / "new")]) == 2
    assert not (tmp_path / "new").exists()


def test_a_run_that_did_not_finish_is_named_and_left_out(run_folder, tmp_path, capsys):
    half = tmp_path / "half"
    shutil.copytree(run_folder, half)
    (half / "latency" / "complete.json").unlink()
    assert main(["compare", str(half), str(run_folder), str(tmp_path / "out")]) == 0
    said = capsys.readouterr()
    assert said.err == f"{half} is left out: it is no finished run\n"
    assert [line.split()[0] for line in said.out.splitlines()[1:3]] == ["dense", "macs=0.5"]
    assert main(["compare", str(half), str(tmp_path / "new")]) == 2
    assert "none of the folders is a finished run" in capsys.readouterr().err
    assert not (tmp_path / "new").exists()


def test_files_beside_the_models_of_a_run_are_no_models(run_folder, tmp_path):
    (run_folder / "model-pruned.zip").write_bytes(b"")
    assert main(["report", str(run_folder), str(tmp_path / "report")]) == 0
    assert main(["compare", str(run_folder), str(tmp_path / "comparison")]) == 0


def test_a_trained_uniform_network_is_a_row(results, tmp_path):
    runs = []
    for seed, accuracy in ((0, 0.5), (1, 0.6)):
        run = a_run(results, "pfs", seed, accuracy)
        tested = {"test_accuracy": accuracy - 0.1, "test_accuracy_interval": (accuracy - 0.2, accuracy)}
        uniform = run.pruned.model_copy(update={**tested, "network": "uniform"})
        runs.append(dataclasses.replace(run, metrics={**run.metrics, "uniform": uniform}))
    rows = write_comparison(runs, tmp_path / "out").rows
    assert [row.label for row in rows] == ["dense", "macs=0.5", "macs=0.5, uniform widths"]
    assert (rows[2].network.test_accuracy, rows[2].seeds) == (pytest.approx(0.45), 2)
    assert rows[2].network.macs == results.structures["uniform"].cost.macs
    assert rows[2].accuracy_drop == pytest.approx(0.2)
    assert rows[2].effort.search_seconds is None


def test_a_uniform_network_whose_latency_was_not_measured_is_no_row(results, tmp_path):
    uniform = results.pruned.model_copy(update={"network": "uniform"})
    quoted = results.quoted
    models, ratios = (
        {k: v for k, v in found.items() if k != "uniform"} for found in (quoted.models, quoted.ratios_to_dense)
    )
    latency = measured(results, models=models, ratios_to_dense=ratios)
    run = dataclasses.replace(results, metrics={**results.metrics, "uniform": uniform}, latency=latency)
    rows = write_comparison([run], tmp_path / "out").rows
    assert [row.label for row in rows] == ["dense", "macs=0.5"]


def test_links_lead_to_the_reports(folder):
    html = (folder / "comparison.html").read_text()
    links = re.findall(r'<a href="([^"]+)">([^<]+)</a>', html)
    assert [name for _, name in links] == ["macs=0.5", "macs=0.6"]
    assert all((folder / link).is_file() for link, _ in links)


def row(name, accuracy, macs, ratio=None, drop=None):
    """A row as a comparison has it; its intervals are 0.02 wide."""
    said = "" if ratio is None else "faster" if ratio < 0.99 else "no measurable difference"
    network = NetworkRow(
        "pruned" if name else "dense",
        macs,
        10,
        test_accuracy=accuracy,
        test_accuracy_interval=(accuracy - 0.01, accuracy + 0.01),
        latency_ratio=ratio,
        latency_ratio_interval=ratio and (ratio - 0.01, ratio + 0.01),
        latency_verdict=said,
    )
    return ComparisonRow(name, name, "pfs", Effort(), drop, network)


def test_the_verdict_names_the_most_accurate_the_fastest_and_the_smallest_that_is_good_enough():
    dense = row("", 0.95, 1000)
    rows = [dense, row("a", 0.945, 800, 0.8, 0.005), row("b", 0.941, 500, 0.5, 0.009), row("c", 0.9, 300, 0.4, 0.05)]
    rows.append(row("d", 0.93, 900))  # the intervals overlap, and that of the difference excludes 0
    assert comparison_verdict(rows) == [
        "Most accurate: a, 94.50%; its interval does not tell it apart from b.",
        "Fastest: c, 2.50x faster [2.44, 2.56], accuracy 90.00%.",
        "Smallest within a point of the dense network: b, 500 MACs.",
    ]
    assert comparison_verdict([dense, rows[3]])[-1] == "None is within a point of the dense network's accuracy."
    assert len(comparison_verdict([row("a", 0.9, 800)])) == 1


def test_a_network_that_lost_exactly_a_point_is_within_one():
    said = comparison_verdict([row("", 0.93, 1000), row("a", 0.92, 500, drop=0.93 - 0.92)])
    assert said[-1] == "Smallest within a point of the dense network: a, 500 MACs."
    assert comparison_verdict([row("", 0.93, 1000), row("a", 0.9199, 500, drop=0.0101)])[-1].startswith("None is")


def test_runs_of_two_datasets_are_not_compared(run_folder, tmp_path):
    other = tmp_path / "other"
    shutil.copytree(run_folder, other)
    split = json.loads((other / "split" / "split.json").read_text())
    (other / "split" / "split.json").write_text(json.dumps({**split, "dataset": "letters"}))
    with pytest.raises(UserError, match="other is of the dataset letters, .*run of digits"):
        load_runs([run_folder, other])


def test_gates_are_found_by_method_seed_and_budget(narrow, digits, models, tmp_path, monkeypatch):
    folders = []
    for text in ("macs=0.5", "macs=0.4"):
        budget, folder = Budget.from_text(text), tmp_path / text
        search(narrow, digits, folder / "gates", budget, UniformConfig(expand=1.25))
        extract_structures(folder / "gates", folder / "structures", budget, PAPERS_CUT)
        folders.append(folder)
    monkeypatch.setattr(runs, "load_budgets", lambda split, gates, structures, *others: [(gates, *structures)])
    given = [folder / "gates" for folder in folders], [folder / "structures" for folder in reversed(folders)]
    found = runs.load_methods(digits, *given, [], [], [models[1]])
    assert found == [(folder / "gates", folder / "structures") for folder in reversed(folders)]
    with pytest.raises(
        UserError, match="uniform, macs=0.4, seed 0: its gates or the dense network of the seed are missing"
    ):
        runs.load_methods(digits, given[0][:1], given[1], [], [], [models[1]])


@pytest.fixture(scope="module")
def even(narrow, digits, models, tmp_path_factory):
    """Gates, structures, models and dense networks of uniform widths by two seeds, which cost the same."""
    out = tmp_path_factory.mktemp("even")
    folders = [[out / f"{kind}-{seed}" for seed in (0, 1)] for kind in ("gates", "structures", "model", "dense")]
    trained = json.loads((models[1] / "metrics.json").read_text())
    for seed, (gates, structures, model, dense) in enumerate(zip(*folders, strict=True)):
        search(narrow, digits, gates, Budget(target=0.5), UniformConfig(expand=1.25), seed)
        extract_structures(gates, structures, Budget(target=0.5), PAPERS_CUT)
        model.mkdir()
        shutil.copy(structures / "structure.json", model)
        dense.mkdir()
        (dense / "metrics.json").write_text(json.dumps({**trained, "seed": seed}))
    return folders


def latency_of(structures, latency, out, older):
    """The same latencies, had they been measured on this structure; ``older`` versions do not say so."""
    found = LatencyResult.load(latency / "latency.json")
    structure = Structure.load(structures / "structure.json")
    size = NetworkSize(
        **structure.cost.model_dump(), file_mib=1.0, **({} if older else {"structure": structure.digest})
    )
    out.mkdir()
    found.model_copy(update={"models": {"pruned": size}}).save(out / "latency.json")
    return out


@pytest.mark.parametrize("older", [(), (0,), (1,), (0, 1)])
def test_seeds_that_cost_the_same_have_latencies_of_their_own(even, latency, older, digits, tmp_path, monkeypatch):
    gates, structures, models, dense = even
    measured = [latency_of(structures[seed], latency, tmp_path / str(seed), seed in older) for seed in (1, 0)]
    monkeypatch.setattr(
        runs, "load_results", lambda *folders: types.SimpleNamespace(structure=cut, latency=folders[-1])
    )
    cut = Structure.load(structures[0] / "structure.json")
    assert cut.widths == Structure.load(structures[1] / "structure.json").widths
    found = [run.latency for run in runs.load_methods(digits, gates, structures, models, measured, dense)]
    assert sorted(found) == sorted(measured)
    if len(older) < 2:
        assert found == [tmp_path / "0", tmp_path / "1"]
    with pytest.raises(UserError, match="structures-. has no trained and measured network"):
        runs.load_methods(digits, gates, structures, models, measured[:1], dense)
