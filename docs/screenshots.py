"""Takes the pictures of MLflow's pages and of the newest report on the runs of a folder; needs chromium on the PATH.

    python docs/screenshots.py pfs-runs

docs/report.png, mlflow-runs.png (pipelines, the steps of one below it), mlflow-sorted.png (pipelines by what they lost)
and mlflow.png (runs compared).
"""

import json
import shutil
import socket
import subprocess
import sys
import time
import urllib.request
from pathlib import Path
from urllib.parse import quote, urlencode

import mlflow
from mlflow import MlflowClient
from playwright.sync_api import Page, sync_playwright

HERE = Path(__file__).parent
COLUMNS = (
    "Dataset",
    "Source",
    "Models",
    "accuracy_drop",
    "pruned_test_accuracy",
    "pruned_macs",
    "pruned_latency_ratio",
)
"""Three that MLflow shows and four that it does not."""
NO_ASSISTANT = """
localStorage.setItem("mlflow.assistant.fab.autoOpenedOnFirstLoad_v1", "true");
localStorage.setItem("mlflow.assistant.panelOpen_v1", "false");
"""
"""The pane beside the runs, which MLflow opens at the first visit, stays closed."""


def main(folder: Path) -> None:
    """Serve the folder's store and take the pictures."""
    store = f"sqlite:///{folder.resolve() / 'mlflow.db'}"
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        address = f"http://127.0.0.1:{free.getsockname()[1]}"
    command = [sys.executable, "-m", "mlflow", "ui", "--backend-store-uri", store, "--port", address.rpartition(":")[2]]
    with subprocess.Popen(command) as server, sync_playwright() as playwright:  # noqa: S603
        try:
            wait(f"{address}/health")
            chromium = playwright.chromium.launch(executable_path=shutil.which("chromium"), args=["--no-sandbox"])
            context = chromium.new_context(viewport={"width": 1700, "height": 600}, base_url=address)
            context.add_init_script(NO_ASSISTANT)
            page = context.new_page()
            mlflow.set_tracking_uri(address)
            pictures(page, newest(folder))
        finally:
            server.terminate()


def wait(address: str) -> None:
    """Until the server answers."""
    for _ in range(300):
        try:
            urllib.request.urlopen(address).close()  # noqa: S310
            return
        except OSError:
            time.sleep(0.2)
    raise TimeoutError(address)


def newest(folder: Path) -> Path:
    """The newest report."""
    return max(folder.glob("*/report/report.html"), key=lambda path: path.stat().st_mtime)


def pictures(page: Page, report: Path) -> None:
    """All of them."""
    client = MlflowClient()
    runs = client.search_runs([e.experiment_id for e in client.search_experiments()], "tags.`pfs.step` = 'pipeline'")
    experiment = runs[0].info.experiment_id
    runs = [run for run in runs if run.info.experiment_id == experiment]
    page.goto(f"/#/experiments/{experiment}/runs")
    page.locator("[row-index='0'] .ag-cell button").first.click(timeout=60_000)
    edge = page.locator(".ag-header-cell", has_text="Run Name").locator(".ag-header-cell-resize").bounding_box()
    assert edge
    page.mouse.move(edge["x"] + 2, edge["y"] + 10)
    page.mouse.down()
    page.mouse.move(edge["x"] + 150, edge["y"] + 10, steps=5)
    page.mouse.up()
    page.mouse.move(5, 5)
    save(page, "mlflow-runs")
    sort = {
        "searchFilter": "tags.`pfs.step` = 'pipeline'",
        "orderByKey": "metrics.`accuracy_drop`",
        "orderByAsc": "true",
    }
    page.goto(f"/#/experiments/{experiment}/runs?{urlencode(sort, quote_via=quote)}")
    page.get_by_role("button", name="Columns", exact=True).click(timeout=60_000)
    for name in COLUMNS:
        page.get_by_placeholder("Search columns").fill(name)
        page.get_by_test_id("column-selector-tree").get_by_text(name, exact=True).click()
    page.keyboard.press("Escape")
    page.set_viewport_size({"width": 1700, "height": 420})
    save(page, "mlflow-sorted")
    compared = json.dumps([run.info.run_id for run in runs[:3]])
    page.goto(f"/#/compare-runs?runs={compared}&experiments={json.dumps([experiment])}")
    page.get_by_text("Visualizations").click(timeout=60_000)  # closes them: the tables are below
    page.set_viewport_size({"width": 1300, "height": 1070})
    for table in range(2):  # parameters and metrics
        page.get_by_role("switch", name="Show diff only").nth(table).click()
    save(page, "mlflow")
    page.set_viewport_size({"width": 1200, "height": 900})
    page.goto(report.resolve().as_uri())
    save(page, "report")


def save(page: Page, name: str) -> None:
    """Once nothing moves any more."""
    page.wait_for_timeout(2000)
    page.screenshot(path=HERE / f"{name}.png")


if __name__ == "__main__":
    main(Path(sys.argv[1]))
