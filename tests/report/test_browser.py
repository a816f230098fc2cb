"""The pages in a real browser: nothing is asked of the network, nothing is hidden, nothing sticks out."""

import re
import shlex

import pytest
from mlflow import MlflowClient
from pfs_pipelines.cli import main

from pfs_core.report import write_report
from pfs_core.report.comparison import write_comparison
from pfs_core.report.graph import write_picture
from pfs_core.structure import Structure
from tests.report.colours import contrast
from tests.report.opened import Opened, check_whole
from tests.report.test_report import FIGURES


@pytest.fixture(scope="module")
def pages(results, digits, tmp_path_factory):
    """The report, a comparison of one budget with itself, what the split says of its images, and a channel graph."""
    folder = tmp_path_factory.mktemp("pages")
    write_report(results, folder / "report", "http://mlflow.test/#/runs/1", "pfs-resnet20/1")
    write_comparison([results], folder / "comparison")
    write_picture(results.structures["pruned"].graph(), "graph", folder / "graph" / "graph.html")
    pages = {name: folder / name / f"{name}.html" for name in ("report", "comparison", "graph")}
    return {**pages, "dataset": digits / "dataset.html"}


@pytest.mark.parametrize("way", ["alone", "framed"])
@pytest.mark.parametrize("width", [1280, 400])
@pytest.mark.parametrize("name", ["report", "comparison", "graph", "dataset"])
def test_a_page_opens_whole_and_alone(browser, pages, name, width, way):
    check_whole(browser, pages[name], len(FIGURES) if name == "report" else 1, width, way)


def test_mlflow_shows_the_report(browser, pages, mlflow_address, tmp_path):
    """Among the artifacts of a run, where MLflow puts it in a frame of its own."""
    client = MlflowClient(mlflow_address)
    experiment = client.create_experiment("pages", artifact_location=tmp_path.as_uri())
    run = client.create_run(experiment).info.run_id
    client.log_artifact(run, str(pages["report"]), "report")
    opened = Opened(browser, 1280)
    opened.page.goto(f"{mlflow_address}/#/experiments/{experiment}/runs/{run}/artifacts/report/report.html")
    inside = opened.page.frame_locator("iframe")
    inside.locator("figure svg").nth(len(FIGURES) - 1).wait_for(timeout=60_000)
    assert inside.locator("h1").inner_text().startswith("resnet20 ")
    for drawing in inside.locator("figure svg").all():
        assert drawing.bounding_box()["width"] > 250


TEXTS = """() => {
  const own = e => [...e.childNodes].some(n => n.nodeType === 3 && n.textContent.trim());
  const seen = e => e.checkVisibility() && !["STYLE", "TITLE"].includes(e.tagName);
  const paper = e => {
    for (let at = e; at; at = at.parentElement) {
      const colour = getComputedStyle(at).backgroundColor;
      if (!colour.endsWith(", 0)")) return colour;
    }
  };
  const ink = e => e.namespaceURI.endsWith("svg") ? getComputedStyle(e).fill : getComputedStyle(e).color;
  return [...document.body.querySelectorAll("*")].filter(e => own(e) && seen(e))
    .map(e => [e.textContent, ink(e), paper(e)]);
}"""
"""Every text with its colour and what is behind it (the cells of the confusion matrix aside)."""


@pytest.mark.parametrize("scheme", ["light", "dark"])
@pytest.mark.parametrize("name", ["report", "comparison"])
def test_letters_stand_out(browser, pages, name, scheme):
    """Contrast of every text, also in figures: at least 4.5."""
    opened = Opened(browser, 1280, scheme)
    opened.page.goto(pages[name].as_uri())
    texts = opened.page.evaluate(TEXTS)
    assert len(texts) > 50
    assert [found for found in texts if contrast(rgb(found[1]), rgb(found[2])) < 4.5] == []


def test_the_explorer_shows_what_the_extraction_cuts(browser, pages, gates, tmp_path):
    """At three budgets, chosen by keyboard in the Kubeflow UI's frame; the command it shows is run."""
    opened = Opened(browser, 1280)
    section = opened.framed(pages["report"]).locator("#explorer")
    for metric, presses in (("macs", 0), ("macs", 17), ("params", 30)):
        section.locator("select").select_option(metric)
        section.locator("input").focus()
        for _ in range(presses):
            opened.page.keyboard.press("ArrowLeft")
        budget = section.locator("output").inner_text()
        command = shlex.split(section.locator("pre").inner_text().splitlines()[0])
        assert command[:4] == ["pfs", "extract", "--gates", "gates"]
        assert (command[4:6], command[6]) == (["--budget", budget], f"structures-{budget}")
        out = tmp_path / f"{budget}-{presses}"
        assert main(["extract", "--gates", str(gates), "--budget", budget, str(out), *command[7:]]) == 0
        found = Structure.load(out / "structure.json")
        shown = dict(re.findall(r"(\S+) (\d+) of \d+", section.locator(".widths").text_content()))
        assert {name: int(width) for name, width in shown.items()} == {name: found.widths[name] for name in shown}
        assert len(shown) == len(found.graph().prunable())
        costs = section.locator(".costs").inner_text()
        assert costs.startswith(f"{found.cost.macs:,} MACs (")
        assert f" {found.cost.params:,} parameters (" in costs
    assert budget.startswith("params=0.")
    assert opened.said == []


def test_what_scrolls_can_be_reached_by_keyboard(browser, pages):
    for name in pages:
        opened = Opened(browser, 400)
        opened.page.goto(pages[name].as_uri())
        scrolling = "[...document.querySelectorAll('*')].filter(e => e.scrollWidth > e.clientWidth + 1 && e.clientWidth"
        scrolling += (
            " && getComputedStyle(e).overflowX === 'auto').map(e => [e.tabIndex, e.getAttribute('aria-label')])"
        )
        found = opened.page.evaluate(scrolling)
        assert found
        assert all(place == 0 and label for place, label in found)


def test_a_comparison_is_read_without_scrolling(browser, pages):
    opened = Opened(browser, 1280)
    opened.page.goto(pages["comparison"].as_uri())
    for box in opened.page.locator(".scroll").all():
        assert box.evaluate("e => e.scrollWidth <= e.clientWidth"), box.get_attribute("aria-label")


def test_it_prints(browser, pages):
    opened = Opened(browser, 1280)
    opened.page.goto(pages["report"].as_uri())
    assert opened.page.pdf(format="A4").startswith(b"%PDF")
    opened.page.emulate_media(media="print")
    opened.page.set_viewport_size({"width": 560, "height": 900})
    assert opened.page.evaluate("document.documentElement.scrollWidth") <= 560
    for box in opened.page.locator(".scroll").all():
        assert box.evaluate("e => e.scrollWidth <= e.clientWidth"), box.get_attribute("aria-label")


def rgb(text):
    return [int(part) for part in re.findall(r"\d+", text)[:3]]
