"""The pages in a real browser: nothing is asked of the network, nothing is hidden, nothing sticks out."""

import shutil

import pytest

from pfs_core.report import write_report
from pfs_core.report.comparison import write_comparison
from tests.report.test_report import FIGURES

CHROMIUM = shutil.which("chromium")
pytestmark = pytest.mark.skipif(not CHROMIUM, reason="no chromium on this machine")


@pytest.fixture(scope="module")
def browser():
    from playwright.sync_api import sync_playwright

    with sync_playwright() as playwright:
        chromium = playwright.chromium.launch(executable_path=CHROMIUM, args=["--no-sandbox"])
        yield chromium
        chromium.close()


@pytest.fixture(scope="module")
def pages(results, tmp_path_factory):
    """The report and a comparison of one budget with itself."""
    folder = tmp_path_factory.mktemp("pages")
    write_report(results, folder / "report", "http://mlflow.test/#/runs/1", "pfs-resnet20/1")
    write_comparison([results], folder / "comparison")
    return {name: folder / name / f"{name}.html" for name in ("report", "comparison")}


class Opened:
    """A page, what its console said and what it asked for beside itself."""

    def __init__(self, browser, width, scheme="light"):
        self.page = browser.new_context(viewport={"width": width, "height": 900}, color_scheme=scheme).new_page()
        self.said, self.asked = [], []
        self.page.on("console", lambda message: self.said.append(message.text))
        self.page.on("pageerror", lambda error: self.said.append(str(error)))
        self.page.on("request", lambda request: self.asked.append(request.url))


@pytest.mark.parametrize("width", [1280, 400])
@pytest.mark.parametrize("name", ["report", "comparison"])
def test_a_page_opens_whole_and_alone(browser, pages, name, width):
    opened = Opened(browser, width)
    opened.page.goto(pages[name].as_uri())
    assert opened.said == []
    assert opened.asked == [pages[name].as_uri()]
    figures = opened.page.locator("figure svg")
    assert figures.count() == (len(FIGURES) if name == "report" else 1)
    for box in (figure.bounding_box() for figure in figures.all()):
        assert box["width"] > 250
        assert box["height"] > 80
        assert 0 <= box["x"] <= box["x"] + box["width"] <= width
    assert opened.page.evaluate("document.documentElement.scrollWidth") <= width


def test_the_report_opens_in_a_sandboxed_frame(browser, pages):
    """As the Kubeflow UI shows it."""
    opened = Opened(browser, 1280)
    frame = "<iframe id='f' sandbox='allow-scripts' style='width:900px;height:800px'></iframe>"
    opened.page.set_content(frame)
    opened.page.evaluate("html => { document.getElementById('f').srcdoc = html }", pages["report"].read_text())
    inside = opened.page.frame_locator("#f")
    inside.locator("figure svg").nth(len(FIGURES) - 1).wait_for()
    assert inside.locator("h1").inner_text() == "resnet20 macs=0.5"
    assert opened.said == []
    assert [url for url in opened.asked if not url.startswith("about:")] == []


@pytest.mark.parametrize("scheme", ["light", "dark"])
def test_letters_stand_out(browser, pages, scheme):
    """Contrast of text on the page, and of the letters in figures, by the formula of WCAG 2: at least 4.5."""
    opened = Opened(browser, 1280, scheme)
    opened.page.goto(pages["report"].as_uri())
    colour = "e => getComputedStyle(e)[e.tagName === 'text' ? 'fill' : 'color']"
    paper = opened.page.locator("body").evaluate("e => getComputedStyle(e).backgroundColor")
    for selector in ("body", ".note", "dt", "caption", "figure svg g.axes text, figure svg text"):
        found = opened.page.locator(selector).first.evaluate(colour)
        assert contrast(rgb(found), rgb(paper)) >= 4.5, (selector, found, paper)


def test_what_scrolls_can_be_reached_by_keyboard(browser, pages):
    opened = Opened(browser, 400)
    opened.page.goto(pages["report"].as_uri())
    for region in opened.page.locator(".scroll, pre").all():
        assert region.get_attribute("tabindex") == "0"
        assert region.get_attribute("aria-label")


def test_it_prints(browser, pages):
    opened = Opened(browser, 1280)
    opened.page.goto(pages["report"].as_uri())
    assert opened.page.pdf(format="A4").startswith(b"%PDF")
    opened.page.emulate_media(media="print")
    opened.page.set_viewport_size({"width": 700, "height": 900})
    assert opened.page.evaluate("document.documentElement.scrollWidth") <= 700


def rgb(text):
    return [int(part) for part in text.removeprefix("rgb(").removesuffix(")").split(",")]


def contrast(one, other):
    def luminance(colour):
        parts = [c / 255 / 12.92 if c / 255 <= 0.04045 else ((c / 255 + 0.055) / 1.055) ** 2.4 for c in colour]
        return 0.2126 * parts[0] + 0.7152 * parts[1] + 0.0722 * parts[2]

    low, high = sorted((luminance(one), luminance(other)))
    return (high + 0.05) / (low + 0.05)
