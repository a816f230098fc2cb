"""The report holds what the steps found, in one file that needs nothing else."""

import dataclasses
import json
import re
import shlex
import shutil
from contextlib import nullcontext
from functools import partial

import numpy as np
import pandas as pd
import pytest
from pfs_pipelines.cli import parser

from pfs_core import steps
from pfs_core.config.recipes import recipe
from pfs_core.errors import UserError
from pfs_core.latency.results import LatencyResult
from pfs_core.methods.registry import METHODS, method_config
from pfs_core.report import latency_figures, load_results, write_report
from pfs_core.report.cells import HEADER, page_cells, table_cells
from pfs_core.report.explorer import explorer
from pfs_core.report.figures import SHARES, confusion, draw
from pfs_core.report.lost_classes import lost_most
from pfs_core.report.reproduce import commands
from pfs_core.report.verdict import met, verdict
from pfs_core.runtime.cost import StageCost
from pfs_core.storage.artifacts import publish
from pfs_core.structure import FILES, Structure
from pfs_core.structure.every_budget import cut_at_every_percent
from pfs_core.training.mistakes import SHOWN
from tests.report.colours import contrast

FIGURES = [
    *("Channels of every group: dense, expanded and kept", "Latency in ONNX Runtime", "Latency in PyTorch"),
    *("Gates after the search", "How the gates part", "The search", "The loss of the search"),
    *(
        "Accuracy against latency",
        "The retraining",
        "The loss of the retraining",
        "Mistakes of the pruned network",
        "Images of each class",
    ),
]


@pytest.fixture(scope="module")
def page(results, tmp_path_factory):
    folder = tmp_path_factory.mktemp("report") / "report"
    write_report(results, folder)
    return folder


def test_table_has_what_the_steps_found(results, structures, models):
    rows = {row.network: row for row in results.table()}
    assert list(rows) == ["dense", "uniform", "pruned"]
    for network, file in FILES.items():
        assert rows[network].macs == Structure.load(structures / file).cost.macs
    trained = json.loads((models[0] / "metrics.json").read_text())
    assert rows["pruned"].test_accuracy == trained["test_accuracy"]
    assert rows["uniform"].test_accuracy is None
    assert rows["uniform"].latency_ratio > 0
    assert rows["dense"].latency_ratio is None


def test_network_that_was_not_trained_is_called_so(results):
    cells = {row[0]: row for row in table_cells(results.table())}
    assert cells["uniform"][HEADER.index("test accuracy [95%]")] == "not trained"


def test_some_mistakes_are_shown(page, results):
    html = (page / "report.html").read_text()
    shown = re.findall(r'<li><img alt="([^"]+)" src="data:image/png;base64,[^"]+">([^<]+)</li>', html)
    assert len(shown) == SHOWN
    counts, names = results.pruned.confusion_matrix, results.pruned.class_names
    for alternative, words in shown:
        label, found = words.split(" taken for ")
        assert alternative == words
        assert counts[names.index(label)][names.index(found)] > 0
        assert label != found


def test_verdict_says_what_the_interval_allows(results):
    ratio = results.quoted.ratios_to_dense["pruned"]
    low, high = ratio.interval
    said = verdict(results)
    assert said[0].startswith(f"{1 / ratio.ratio:.2f}x faster [{1 / high:.2f}, {1 / low:.2f}] in ONNX Runtime, ")
    assert said[1].startswith("accuracy ")
    assert said[2].startswith("asked for macs=0.5, got 0.4")
    assert said[2].endswith(": met")
    assert "cut as in the paper" in said[3]


def test_page_needs_no_network_and_but_for_the_explorer_no_script(page):
    html = (page / "report.html").read_text()
    links = set(re.findall(r"(?:href|src|url\()\s*=?\s*[\"']?([^\"')\s>]+)", html))
    assert all(link.startswith(("#", "data:image/png;base64,")) for link in links)
    outside = re.sub(r'<section id="explorer" hidden>.*</section>\s*(<script.*</script>\s*){2}', "", html, flags=re.S)
    assert "<script" not in outside
    assert "</section>" not in outside
    assert len(html) < 3_000_000


def test_page_shows_the_table_and_every_figure_with_a_text(page, results):
    html = (page / "report.html").read_text()
    assert html.count("<svg") == len(FIGURES)
    figure = r'<figcaption>([^<]+)</figcaption>\s*(?:<div class="scroll"[^>]+>\s*)?<div role="img" aria-label="([^"]+)"'
    found = dict(re.findall(figure, html))
    assert list(found) == FIGURES
    assert all(re.search(r"\d", words) for words in found.values())
    assert f"On {results.split.dataset}, {results.split.rows['test']:,} test images of 10 classes; seed 0." in html
    for row in page_cells(results.table()):
        assert all(f">{cell}<" in html for cell in row)
    assert [row[-1] for row in page_cells(results.table())] == [
        f"{results.latency.models[name].file_mib:.2f}" for name in ("dense", "uniform", "pruned")
    ]


def test_the_classes_that_lost_most_are_those_of_the_confusion_matrices(results):
    rows = lost_most(results)
    assert rows
    assert rows == sorted(rows, key=lambda row: -row.lost)
    for row in rows:
        label = results.split.class_names.index(row.name)
        dense, pruned = (trained.confusion_matrix[label] for trained in (results.dense, results.pruned))
        assert sum(dense) == row.images
        assert row.lost == pytest.approx((dense[label] - pruned[label]) / row.images)


def test_a_class_that_lost_says_how_many_images_that_is(results, tmp_path):
    """Three of four images right before, one of four after: half of them lost, but only two images."""
    right = {"dense": [[3, 1], [0, 9]], "pruned": [[1, 3], [0, 9]]}
    names = ["cat", "<dog>"]
    metrics = {
        name: results.metrics[name].model_copy(update={"confusion_matrix": matrix, "class_names": names})
        for name, matrix in right.items()
    }
    rows = {"train": [4, 9], "test": [4, 9]}
    split = results.split.model_copy(update={"class_names": names, "rows_per_class": rows})
    changed = {"metrics": metrics, "split": split, "model_dir": tmp_path}
    write_report(dataclasses.replace(results, **changed), tmp_path / "two")
    html = (tmp_path / "two/report.html").read_text()
    row = '<th scope="row">cat</th><td>4</td><td>75.0%</td><td>25.0%</td><td>50.0 points (2 images)</td>'
    assert row in html
    assert "3 of 13 test images are mistaken, most often 3 of 4 images of cat for &lt;dog&gt;." in html
    assert '<th scope="row">&lt;dog&gt;' not in html
    assert "<dog>" not in html


def test_of_many_classes_those_most_often_mistaken_are_drawn(results, tmp_path):
    names = [f"$class_{i}$ & co" for i in range(60)]
    counts = np.diag(np.full(60, 5))
    for true, predicted in zip(range(0, 20, 2), range(1, 20, 2), strict=True):
        counts[true + 30, predicted + 30] = 2 + true
    metrics = results.pruned.model_copy(update={"confusion_matrix": counts.tolist(), "class_names": names})
    rows = {"train": list(range(60)), "test": [5] * 60}
    split = results.split.model_copy(update={"class_names": names, "rows_per_class": rows})
    many = dataclasses.replace(results, metrics={"pruned": metrics, "dense": metrics}, split=split)
    svg, words = draw(confusion, many, (4.6, 4.0))
    assert [svg.count(f"$class_{i}$ &amp; co</text>") for i in range(60)] == [2 * (30 <= i < 50) for i in range(60)]
    mistakes = sum(2 + true for true in range(0, 20, 2))
    assert words.startswith(f"{mistakes} of {300 + mistakes} test images are mistaken, most often 20 of 25 images of ")
    assert words.endswith("The drawing has 20 of 60 classes, those most often mistaken among them.")
    write_report(many, tmp_path / "many")
    html = (tmp_path / "many/report.html").read_text()
    assert "Between 5 and 64 images per class, median 34." in html
    assert html.count("<svg") == len(FIGURES)
    assert len(html) < 3e6


def test_thirty_classes_with_names_that_look_like_formulas_are_drawn(results):
    names = [rf"$\class_{i}$" for i in range(30)]
    counts = np.eye(30, dtype=int).tolist()
    eye = results.pruned.model_copy(update={"confusion_matrix": counts, "class_names": names})
    svg, words = draw(confusion, dataclasses.replace(results, metrics={"pruned": eye}), (4.6, 4.0))
    assert svg.count(r"$\class_7$</text>") == 2
    assert words == "All 30 test images are taken for what they are."


def test_what_was_written_before_gates_and_memory_were_counted_is_still_shown(results, tmp_path):
    history = results.search_history.drop(columns=["closed", "open"])
    search = results.search.model_copy(update={"peak_memory_mib": {}})
    write_report(dataclasses.replace(results, search_history=history, search=search), tmp_path / "old")
    html = (tmp_path / "old/report.html").read_text()
    assert html.count("<svg") == len(FIGURES) - 1
    assert "How the gates part" not in html


def test_the_shares_of_the_gates_are_those_of_the_last_gates(results):
    """The gates of the last evaluation are the ones kept here, so that the history's end can be counted again."""
    history = results.search_history
    kept = history[history.step == results.search.kept_step].iloc[0]
    values = np.concatenate([gates.numpy() for gates in results.gates.values()])
    assert kept.closed == pytest.approx((values < 0.05).mean())
    assert kept.open == pytest.approx((values > 0.95).mean())


def test_the_report_of_several_draws_says_what_it_took_of_each(results, tmp_path):
    rows = results.search_history.assign(draw=1)
    history = pd.concat([rows, rows.assign(draw=2, epoch=rows.epoch + 2, step=rows.step + 24)])
    kept = {"kept_epoch": None, "kept_step": None, "kept_epochs": (2, 3), "kept_steps": (24, 36)}
    config = results.search.config.updated({"draws": 2}, "search")
    search = results.search.model_copy(update={"config": config, **kept})
    write_report(dataclasses.replace(results, search=search, search_history=history), tmp_path / "report")
    html = (tmp_path / "report" / "report.html").read_text()
    assert "those of epoch 2, 3 are kept" in html
    assert "2 epochs on each of 2 draws of random weights, target ratio 0.5; gates of epochs 2, 3 sorted" in html
    assert "search.draws=2" in html


def test_draws_that_may_have_settled_earlier_are_not_said_to_have_taken_all_epochs(results):
    config = results.search.config.updated({"draws": 2, "settled": 0.05}, "search")
    search = results.search.model_copy(update={"config": config, "kept_epochs": (2, 3)})
    assert METHODS["pfs"].describe(search, {"epoch": 3}).startswith("up to 2 epochs on each of 2 draws")


def test_a_search_on_trained_weights_is_not_said_to_be_on_random_ones(results, page, tmp_path):
    assert "2 epochs on frozen random weights, target ratio 0.5" in (page / "report.html").read_text()
    config = results.search.config.updated({"pretrain_epochs": 7}, "search")
    trained = results.search.model_copy(update={"config": config})
    write_report(dataclasses.replace(results, search=trained), tmp_path / "report")
    html = (tmp_path / "report" / "report.html").read_text()
    assert "2 epochs on weights trained for 7 epochs, then frozen, target ratio 0.5" in html
    assert "random weights" not in html


@pytest.mark.parametrize(("paper", "ink"), [((255, 255, 255), (0x1B,) * 3), ((0x16,) * 3, (0xEE,) * 3)])
def test_numbers_can_be_read_on_every_share(paper, ink):
    for share in np.linspace(0, 1, 11):
        *colour, alpha = SHARES(share)
        below = [alpha * 255 * part + (1 - alpha) * other for part, other in zip(colour, paper, strict=True)]
        assert contrast(below, ink) >= 4.5


def test_every_step_says_what_it_took(page, results, tmp_path):
    def times(html):
        table = re.search(r"What it took.*?</table>", html, re.DOTALL)[0]
        return dict(re.findall(r"<tr.*?<t[hd][^>]*>([^<]+)</t[hd]>\s*<td[^>]*>(\d[\d.,]* s|-)</td>", table, re.DOTALL))

    shown = times((page / "report.html").read_text())
    assert list(shown) == ["split", "search", "extraction", "retraining, pruned", "retraining, dense", "benchmark"]
    assert shown["benchmark"] == "75 s"
    assert float(shown["split"].removesuffix(" s")) == pytest.approx(results.split_seconds, abs=0.6)
    old = dataclasses.replace(results, split_seconds=None, extract_seconds=None)
    write_report(old, tmp_path / "old")
    shown = times((tmp_path / "old/report.html").read_text())
    assert [step for step, time in shown.items() if time == "-"] == ["split", "extraction"]


def test_a_latency_is_said_to_be_measured_when_it_was_cut(results, page, tmp_path, monkeypatch):
    assert f"MACs; {met(results.structure)}; gates" in (page / "report.html").read_text()
    record = results.structure.budget.model_copy(update={"metric": "latency", "target": 0.6, "achieved": 0.607})
    provenance = {
        **results.structure.provenance,
        "latency_model": {"error_p90": 0.031, "runtime": "onnxruntime", "threads": 1},
    }
    monkeypatch.setattr("pfs_core.report.page.explorer", lambda found: explorer(results))  # it wants the latency model
    cut = results.structure.model_copy(update={"budget": record, "provenance": provenance})
    write_report(dataclasses.replace(results, structures={**results.structures, "pruned": cut}), tmp_path / "report")
    said = re.search(r"<dt>structure</dt><dd>(.*?)</dd>", (tmp_path / "report" / "report.html").read_text())[1]
    assert "MACs; asked for latency=0.6, got 0.607: met, as measured when it was cut; the latency model" in said
    assert "error of 3.1% (p90); gates" in said


def test_every_measurement_has_a_row(page, results):
    html = (page / "report.html").read_text()
    assert [found.runtime for found in results.latency.measurements] == ["onnxruntime", "eager"]
    table = re.search(r"All measurements on the CPU.*?</table>", html, re.DOTALL)[0]
    rows = [re.findall(r"<t[hd][^>]*>([^<]*)</t[hd]>", row) for row in table.split("<tr")[2:]]
    expected = [(found, name) for found in results.latency.measurements for name in found.models]
    assert [row[3] for row in rows] == 2 * ["dense", "expanded", "pruned", "uniform"]
    for row, (found, name) in zip(rows, expected, strict=True):
        stats, ratio = found.models[name], found.ratios_to_dense.get(name)
        assert row[4].startswith(f"{stats.p50_ms:.3f} [")
        assert row[5:7] == [f"{stats.p90_ms:.3f}", f"{stats.p99_ms:.3f}"]
        assert row[7].startswith(f"{ratio.ratio:.3f} [" if ratio else "1")
    figures = results.figures()
    assert figures["pruned_p50_ms"] == results.quoted.models["pruned"].p50_ms
    assert figures["pruned_eager_p50_ms"] == results.latency.measurements[1].models["pruned"].p50_ms


def test_samples_in_doubt_are_said_to_be_of_their_batch(results, tmp_path):
    stats = {name: found.model_copy(update={"flags": ["noisy"]}) for name, found in results.quoted.models.items()}
    found = [results.quoted.model_copy(update={"models": stats, "batch": batch}) for batch in (1, 8)]
    latency = results.latency.model_copy(update={"measurements": found})
    write_report(dataclasses.replace(results, latency=latency), tmp_path / "batches")
    html = (tmp_path / "batches/report.html").read_text()
    for batch in (1, 8):
        assert f"In ONNX Runtime, batch {batch}, on 1 thread(s) the samples of dense, expanded" in html


def test_a_noisy_machine_is_said_to_be_noisy(results, tmp_path):
    latency = results.latency.model_copy(update={"noisy": ["others used 1.0 cores"]})
    noisy = dataclasses.replace(results, latency=latency)
    summary = write_report(noisy, tmp_path / "noisy")
    assert summary.verdict[-1] == "The machine was noisy while latency was measured: others used 1.0 cores."
    text = (tmp_path / "noisy/summary.md").read_text()
    assert all(f"- {line}\n" in text for line in summary.verdict)
    assert (
        "The machine was noisy while latency was measured: others used 1.0"
        in (tmp_path / "noisy/report.html").read_text()
    )


def test_the_commands_are_the_ones_that_made_the_run(results):
    lines = commands(results)
    assert [line.split()[1] for line in lines] == [
        *("split", "search", "extract", "retrain", "retrain", "benchmark", "report"),
    ]
    assert "--set=model.width=4" in lines[1]
    assert "--set=search.epochs=2" in lines[1]
    assert "--set=retrain.epochs=1" in lines[3]
    for line in lines:
        parser().parse_args(shlex.split(line)[1:])
    settings = [word.removeprefix("--set=") for word in shlex.split(lines[1]) if word.startswith("--set=")]
    given = steps.parse_settings(settings, ("model", "search"))
    assert method_config(recipe("demo"), given["search"]) == results.search.config


@pytest.mark.parametrize("name", ["10", "true", "None", "[a]", "1e3", "cosine", "a text"])
def test_a_text_that_would_be_read_as_something_else_is_quoted_in_the_commands(results, name):
    model = results.structure.model.updated({"kwargs": {"shortcut": name}}, "model")
    structures = {**results.structures, "pruned": results.structure.model_copy(update={"model": model})}
    words = shlex.split(commands(dataclasses.replace(results, structures=structures))[1])
    (given,) = (word.removeprefix("--set=") for word in words if "shortcut" in word)
    assert steps.parse_settings([given], ("model",)) == {"model": {"shortcut": name}}


def test_the_page_says_which_code_and_image_made_the_networks(results, tmp_path):
    made = {"git_commit": "0123abc", "image": "registry/pfs-python:7"}
    older = results.dense.model_copy(update=dict.fromkeys(made))
    metrics = {"pruned": results.pruned.model_copy(update=made), "dense": older}
    changed = dataclasses.replace(results, metrics=metrics, search=results.search.model_copy(update=made))
    write_report(changed, tmp_path / "report")
    html = (tmp_path / "report" / "report.html").read_text()
    assert re.findall(r"<dt>code</dt><dd>(.*)</dd>", html) == [
        "commit 0123abc, image registry/pfs-python:7: search, pruned"
    ]


def test_same_results_give_the_same_page(page, results, tmp_path):
    write_report(results, tmp_path / "again")
    assert (tmp_path / "again" / "report.html").read_bytes() == (page / "report.html").read_bytes()


def test_figures_of_batches_do_not_call_their_latencies_those_of_images(results):
    quoted = results.quoted.model_copy(update={"batch": 8})
    samples = results.samples_table.assign(batch=8)
    latency = results.latency.model_copy(update={"measurements": [quoted]})
    batches = dataclasses.replace(results, latency=latency, samples_table=samples)
    for found, unit in ((results, "milliseconds per image"), (batches, "milliseconds per batch of 8")):
        assert f">{unit}, median</text>" in draw(latency_figures.accuracy_and_latency, found, (4.6, 2.9))[0]
        histogram = partial(latency_figures.latency, measurement=found.quoted)
        assert f">{unit}</text>" in draw(histogram, found, (4.6, 2.9))[0]


def test_summary_and_json_agree(page, results):
    figures = json.loads((page / "report.json").read_text())["figures"]
    assert figures["accuracy_drop"] == figures["dense_test_accuracy"] - figures["pruned_test_accuracy"]
    assert f"{figures['pruned_macs']:,}" in (page / "summary.md").read_text()


def test_run_without_its_pruned_network_is_refused(digits, gates, structures, models, latency):
    with pytest.raises(UserError, match="no trained and measured pruned network"):
        load_results(digits, gates, structures, models[1:], latency)


def test_latencies_of_another_structure_of_the_same_cost_are_refused(
    digits, gates, structures, models, latency, tmp_path
):
    refused = pytest.raises(UserError, match="was measured on another pruned structure; benchmark it again")
    measured = LatencyResult.load(latency / "latency.json")
    own = measured.models["pruned"]
    for digest, refusal in ((Structure.load(structures / FILES["pruned"]).digest, nullcontext()), ("0" * 64, refused)):
        folder = tmp_path / digest[:4]
        with publish(folder, "latency") as out:
            shutil.copy(latency / "samples.parquet", out)
            models_of = {**measured.models, "pruned": own.model_copy(update={"structure": digest})}
            measured.model_copy(update={"models": models_of}).save(out / "latency.json")
        with refusal:
            load_results(digits, gates, structures, models, folder)


SEARCHES = {
    "network_slimming": (
        {"epochs": 3, "rounds": 1, "sparsity": 1e-5},
        {"validation_accuracy": 0.75},
        [{"epoch": e, "train_accuracy": 0.5, "val_accuracy": e / 4} for e in (1, 2, 3)],
        "Over 3 epochs the validation accuracy goes from 25.0% to 75.0%",
        "an L1 penalty of 1e-05",
    ),
    "amc": (
        {"epochs": 3, "episodes": 4, "warmup_episodes": 2},
        {"validation_accuracy": 0.5, "pretrained_accuracy": 0.9},
        [{"episode": e, "reward": r, "best_reward": b} for e, r, b in ((1, 0.1, 0.1), (2, 0.3, 0.3), (3, 0.5, 0.5))],
        "The best of 2 random episodes keeps 30.0% accuracy without training, the best of all 3 keeps 50.0%",
        "to a validation accuracy of 90.0%, then 4 episodes",
    ),
    "random": ({}, {}, [], "Of 117 gates", "random widths: no search"),
}
"""Settings, facts and history of a search, a figure's words, and how the search is described."""


@pytest.mark.parametrize("method", SEARCHES)
def test_a_report_says_how_another_method_has_chosen(results, tmp_path, method):
    settings, facts, history, drawn, described = SEARCHES[method]
    cost = StageCost(seconds=12.0, device_seconds=21.0, forward_images=1500, backward_images=1000)
    stages = {"pretrain": cost, "search": cost} if method == "amc" else {"search": cost}
    config = method_config(recipe("demo"), {"method": method, **settings})
    search = results.search.model_copy(update={"method": method, "config": config, "cost": stages, **facts})
    trained = [{"epoch": e, "loss": 2 / e, "val_accuracy": 0.1 * e} for e in (1, 2)] if method == "amc" else []
    changed = dataclasses.replace(
        results, search=search, search_history=pd.DataFrame(history), pretraining=pd.DataFrame(trained)
    )
    summary = write_report(changed, tmp_path / "report")
    html = (tmp_path / "report" / "report.html").read_text()
    assert f"by {results_method(method)}, cut" in summary.verdict[3]
    assert described in html
    assert re.sub(r"\d+ gates", "117 gates", html).count(drawn) == 1
    assert f"--method={method}" in html
    assert (">training before the search</th>" in html) == (method == "amc")
    assert ("Over 2 epochs the validation accuracy goes from 10.0% to 20.0%" in html) == (method == "amc")
    assert "<td>1,500</td><td>1,000</td>" in html
    assert summary.figures["search_seconds"] == 12


def results_method(method):
    return {"network_slimming": "Network Slimming", "amc": "AMC", "random": "random widths"}[method]


def test_what_the_proof_left_alone_is_said_with_its_reason(results, page, tmp_path):
    assert "The proof on this network" not in (page / "report.html").read_text()
    frozen = {"layer1.0.conv1": "masked & removed differ by 0.23"}
    search = results.search.model_copy(update={"frozen": frozen})
    write_report(dataclasses.replace(results, search=search), tmp_path / "some")
    text = (tmp_path / "some" / "report.html").read_text()
    assert "must keep their width: layer1.0.conv1 (masked &amp; removed differ by 0.23)." in text


def test_the_explorer_offers_no_metric_in_which_no_cut_is_within_the_dense_network(results, monkeypatch):
    """A group that keeps its expanded width may have most parameters and few MACs."""
    whole = cut_at_every_percent

    def without_parameters(graph, gates, expanded, metric, *rest):
        return {} if metric == "params" else whole(graph, gates, expanded, metric, *rest)

    monkeypatch.setattr("pfs_core.report.explorer.cut_at_every_percent", without_parameters)
    found = explorer(results)
    assert list(found["at"]) == ["macs"]
    assert found["metrics"] == ["macs", "params"]  # what a cut costs is said in both
