"""Only what differs in its seed alone is pooled, and what differs in settings says so."""

import dataclasses
from pathlib import Path

import pytest
from mlflow.utils.validation import _validate_metric_name

from pfs_core.errors import UserError
from pfs_core.report.comparison import figures_of, write_comparison
from pfs_core.report.comparison_groups import quoting_alike
from pfs_core.report.comparison_verdict import comparison_verdict
from tests.report.made_runs import a_run, cut_by, measured, with_settings, with_split

pytestmark = pytest.mark.usefixtures("undrawn")


def test_runs_that_quote_different_measurements_are_compared_by_one_that_all_have(results, tmp_path):
    """As of a budget in MACs beside one in latency, which is asked for where the dense network is fastest."""
    first, other = results.latency.measurements[0], results.latency.measurements[0].model_copy(update={"threads": 7})
    both = [
        dataclasses.replace(
            a_run(results, method, 0), latency=results.latency.model_copy(update={"measurements": measurements})
        )
        for method, measurements in (("pfs", [other, first]), ("random", [first]))
    ]
    alike = quoting_alike(both)
    assert [run.quoted for run in alike] == [first, first]
    assert [run.quoted for run in both] == [other, first]
    assert len(alike[0].latency.measurements) == 2
    write_comparison(both, tmp_path / "out")


def test_seeds_for_which_auto_finds_different_multiples_are_one_row(results, tmp_path):
    runs = [cut_by(a_run(results, seed=seed), multiple, "auto") for seed, multiple in enumerate((2, 4))]
    rows = write_comparison(runs, tmp_path / "auto").rows
    assert [(row.name, row.seeds) for row in rows[1:]] == [("macs=0.5", 2)]


def test_runs_with_other_settings_are_not_seeds_of_each_other(results, tmp_path):
    runs = [
        a_run(results, seed=0),
        a_run(results, seed=1),
        with_settings(a_run(results, seed=0), start="inherited", lr=0.5),
    ]
    rows = write_comparison(runs, tmp_path / "out").rows
    lr = results.pruned.config.lr
    usual, other = (
        f"macs=0.5, retrain.start=fresh, retrain.lr={lr}",
        "macs=0.5, retrain.start=inherited, retrain.lr=0.5",
    )
    assert [(row.name, row.seeds) for row in rows[1:]] == [(usual, 2), (other, 1)]
    html = (tmp_path / "out" / "comparison.html").read_text()
    assert "fine-tuned from the weights that it keeps or trained from scratch" in html


def test_dense_networks_that_were_trained_with_other_settings_are_rows_of_their_own(results, tmp_path):
    """Also those of one seed, of which the second is not that of the first run again."""
    lr, runs = results.dense.config.lr, [a_run(results, seed=seed, accuracy=0.5) for seed in (0, 1)]
    runs.append(with_settings(a_run(results, seed=0, accuracy=0.7), "pruned", "dense", lr=0.5))
    rows = write_comparison(runs, tmp_path / "out").rows
    assert [(row.label, row.seeds, row.network.test_accuracy) for row in rows] == [
        (f"dense, retrain.lr={lr}", 2, pytest.approx(0.6)),
        ("dense, retrain.lr=0.5", 1, pytest.approx(0.8)),
        (f"macs=0.5, retrain.lr={lr}", 2, pytest.approx(0.5)),
        ("macs=0.5, retrain.lr=0.5", 1, pytest.approx(0.7)),
    ]
    assert "Most accurate: macs=0.5, retrain.lr=0.5, 70.00%" in comparison_verdict(rows)[0]
    for name in figures_of(rows):
        assert _validate_metric_name(name) is None


def test_a_dense_network_that_runs_share_is_one_row_of_one_seed(results, tmp_path):
    runs = [a_run(results, method) for method in ("pfs", "random")]
    dense, *_ = write_comparison(runs, tmp_path / "out").rows
    assert (dense.name, dense.label, dense.seeds) == ("", "dense", 1)


def test_uniform_networks_that_were_trained_with_other_settings_are_rows_of_their_own(results, tmp_path):
    runs = []
    for seed, epochs in ((0, 1), (1, 9)):
        run = a_run(results, seed=seed)
        run = dataclasses.replace(run, metrics={**run.metrics, "uniform": run.pruned})
        runs.append(with_settings(run, "uniform", epochs=epochs))
    labels = [row.label for row in write_comparison(runs, tmp_path / "out").rows]
    assert labels[1:] == ["macs=0.5", *(f"macs=0.5, uniform widths, retrain.epochs={epochs}" for epochs in (1, 9))]


def test_runs_of_another_split_are_not_seeds_of_each_other(results, tmp_path):
    """Their dense networks were trained and tested on other images too."""
    flip, runs = results.split.config.flip, [a_run(results, seed=seed) for seed in (0, 1)]
    runs.append(with_split(a_run(results, seed=2), flip=not flip, test_fraction=0.4))
    rows = write_comparison(runs, tmp_path / "out").rows
    fraction = results.split.config.test_fraction
    usual, other = (
        f"split.test_fraction={fraction}, split.flip={flip}",
        f"split.test_fraction=0.4, split.flip={not flip}",
    )
    assert [(row.label, row.seeds) for row in rows] == [
        (f"dense, {usual}", 2),
        (f"dense, {other}", 1),
        (f"macs=0.5, {usual}", 2),
        (f"macs=0.5, {other}", 1),
    ]


def test_methods_that_were_trained_with_other_settings_are_called_so(results, tmp_path):
    """Or else nobody knew which dense network is whose."""
    runs = [a_run(results, "pfs"), with_settings(a_run(results, "random"), "pruned", "dense", lr=0.5)]
    rows = write_comparison(runs, tmp_path / "out").rows
    assert [row.name for row in rows[2:]] == [f"pfs, retrain.lr={results.pruned.config.lr}", "random, retrain.lr=0.5"]


def test_one_search_whose_networks_were_trained_differently_is_not_called_alike(results, tmp_path):
    for name, lr in (("alike", results.pruned.config.lr), ("other", 0.5)):
        write_comparison([a_run(results), with_settings(a_run(results, seed=1), lr=lr)], tmp_path / name)
    said = [(tmp_path / name / "comparison.html").read_text() for name in ("alike", "other")]
    assert ["One search of" in html for html in said] == [True, True]
    assert ["with the same settings" in html for html in said] == [True, False]


def test_latencies_that_were_measured_in_two_ways_are_not_compared(results, tmp_path):
    only = measured(results, threads=7).model_copy(update={"measurements": [measured(results, threads=7).quoted]})
    other = dataclasses.replace(results, latency=only)
    with pytest.raises(UserError, match=r"measured in .* 1 thread\(s\), .* 7 thread\(s\); benchmark them"):
        write_comparison([a_run(results, seed=0), a_run(other, seed=1)], tmp_path / "out")
    assert not (tmp_path / "out").exists()


def test_the_same_run_twice_is_refused(results, tmp_path):
    first, again = (dataclasses.replace(a_run(results), model_dir=Path(run, "model-pruned")) for run in ("a", "b"))
    with pytest.raises(UserError, match="2 runs are of macs=0.5 and seed 0; give one of a, b$"):
        write_comparison([first, again, a_run(results, seed=1)], tmp_path / "out")


def test_uniform_widths_at_several_budgets_are_not_called_one_search(results, tmp_path):
    """They have the same gates, all equal, and yet each had a search of its own."""
    other = dataclasses.replace(results, search=results.search.model_copy(update={"budget": "macs=0.4"}))
    pruned = results.structures["pruned"]
    less = pruned.model_copy(update={"budget": pruned.budget.model_copy(update={"target": 0.4})})
    other = dataclasses.replace(other, structures={**results.structures, "pruned": less})
    write_comparison([results, other], tmp_path / "out")
    html = (tmp_path / "out" / "comparison.html").read_text()
    assert "One search" not in html
    assert "in a run of its own" in html


def test_mlflow_takes_the_names_of_all_figures(results, tmp_path):
    runs = [cut_by(a_run(results), multiple, multiple) for multiple in (2, 4)]
    rows = write_comparison(runs, tmp_path / "two").rows
    assert rows[1].name == "macs=0.5, extract.channel_multiple=2"
    for name in figures_of(rows):
        assert _validate_metric_name(name) is None
