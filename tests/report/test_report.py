"""The report holds what the steps found, in one file that needs nothing else."""

import json
import re

import pytest

from pfs_core.errors import UserError
from pfs_core.extraction import FILES
from pfs_core.latency import benchmark
from pfs_core.recipes import LatencyRecipe, RetrainRecipe
from pfs_core.report import load_results, write_report
from pfs_core.report.page import HEADER, table_cells, text_table
from pfs_core.structure import Structure
from pfs_core.training.retrain import retrain

BRIEF = RetrainRecipe(epochs=1, schedule="cosine", scratch_b=False, train_on_validation=False)
QUICK = LatencyRecipe(warmup_seconds=0, warmup_rounds=1, min_rounds=64, max_seconds=0.01)


@pytest.fixture(scope="module")
def models(structures, digits, tmp_path_factory):
    """``model`` folders of the pruned and the dense network."""
    folder = tmp_path_factory.mktemp("models")
    for network in ("pruned", "dense"):
        retrain(Structure.load(structures / FILES[network]), digits, folder / network, BRIEF)
    return [folder / "pruned", folder / "dense"]


@pytest.fixture(scope="module")
def latency(structures, tmp_path_factory):
    folder = tmp_path_factory.mktemp("latency") / "latency"
    benchmark([Structure.load(structures / FILES[network]) for network in ("pruned", "uniform")], folder, QUICK)
    return folder


@pytest.fixture(scope="module")
def results(digits, gates, structures, models, latency):
    return load_results(digits, gates, structures, models, latency)


@pytest.fixture(scope="module")
def page(results, tmp_path_factory):
    folder = tmp_path_factory.mktemp("report") / "report"
    write_report(results, folder)
    return folder


def test_table_has_what_the_steps_found(results, structures, models):
    rows = {row["network"]: row for row in results.table()}
    assert list(rows) == ["dense", "uniform", "pruned"]
    for network, file in FILES.items():
        assert rows[network]["macs"] == Structure.load(structures / file).cost.macs
    trained = json.loads((models[0] / "metrics.json").read_text())
    assert rows["pruned"]["test_accuracy"] == trained["test_accuracy"]
    assert rows["uniform"]["test_accuracy"] is None
    assert rows["uniform"]["latency_ratio"] > 0
    assert rows["dense"]["latency_ratio"] is None


def test_network_that_was_not_trained_is_called_so(results):
    cells = {row[0]: row for row in table_cells(results.table())}
    assert cells["uniform"][HEADER.index("test accuracy [95%]")] == "not trained"


def test_verdict_says_what_the_interval_allows(results):
    verdict = results.latency["ratios_to_dense"]["pruned"]["verdict"]
    assert verdict in results.verdict()
    assert "uniform" not in results.verdict()


def test_page_needs_no_network_and_no_script(page):
    html = (page / "report.html").read_text()
    links = set(re.findall(r"(?:href|src|url\()\s*=?\s*[\"']?([^\"')\s>]+)", html))
    assert all(link.startswith("#") for link in links)
    assert "<script" not in html
    assert len(html) < 3_000_000


def test_page_shows_the_table_and_every_figure_with_a_text(page, results):
    html = (page / "report.html").read_text()
    assert html.count("<svg") == 5
    assert len(re.findall(r'<figure role="img" aria-label="[^"]+"', html)) == 5
    for row in table_cells(results.table()):
        assert all(cell in html for cell in row)


def test_same_results_give_the_same_page(page, results, tmp_path):
    write_report(results, tmp_path / "again")
    assert (tmp_path / "again" / "report.html").read_bytes() == (page / "report.html").read_bytes()


def test_summary_and_json_agree(page, results):
    figures = json.loads((page / "report.json").read_text())["figures"]
    assert figures["accuracy_drop"] == figures["dense_test_accuracy"] - figures["pruned_test_accuracy"]
    assert f"{figures['pruned_macs']:,}" in (page / "summary.md").read_text()


def test_run_without_its_pruned_network_is_refused(digits, gates, structures, models, latency):
    with pytest.raises(UserError, match="no trained and measured pruned network"):
        load_results(digits, gates, structures, models[1:], latency)


def test_text_table_is_aligned():
    lines = text_table(("network", "MACs"), [("dense", "1,000"), ("pruned", "5")])
    assert lines == ["network   MACs", "dense    1,000", "pruned       5"]
