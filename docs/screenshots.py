"""Takes the pictures of MLflow's pages and of the newest report on the runs of a folder; needs chromium on the PATH.

    python docs/screenshots.py pfs-runs

docs/report.png, mlflow-runs.png (pipelines, the steps of one below it), mlflow-sorted.png (by the accuracy lost),
mlflow.png (runs compared) and mlflow-report.png (the report among a run's artifacts).
"""

import json
import shutil
import socket
import subprocess
import sys
import time
import urllib.request
from pathlib import Path
from typing import Any

import mlflow
from mlflow import MlflowClient
from playwright.sync_api import Page, sync_playwright

HERE = Path(__file__).parent
COLUMNS = ("dense_test_accuracy", "pruned_test_accuracy", "accuracy_drop", "pruned_latency_ratio", "search_seconds")
FIGURES = ("accuracy_drop", "pruned_test_accuracy", "pruned_latency_ratio", "pruned_macs")


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
            page = chromium.new_context(viewport={"width": 1500, "height": 560}, base_url=address).new_page()
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
    table(page, f"/#/experiments/{experiment}/runs", "mlflow-runs")
    compared = json.dumps([run.info.run_id for run in runs[:3]])
    page.goto(f"/#/compare-runs?runs={compared}&experiments={json.dumps([experiment])}")
    page.get_by_text("Comparing").first.wait_for(timeout=60_000)
    save(page, "mlflow")
    page.set_viewport_size({"width": 1200, "height": 900})
    page.goto(report.resolve().as_uri())
    save(page, "report")


def table(page: Page, address: str, name: str) -> None:
    """The table of runs."""
    page.goto(address)
    page.locator("[row-index='0'] .ag-cell button").first.wait_for(timeout=60_000)
    page.locator("[row-index='0'] .ag-cell button").first.click()
    save(page, name)


def save(page: Page, name: str, **how: Any) -> None:
    """Once nothing moves any more."""
    page.wait_for_timeout(2000)
    page.screenshot(path=HERE / f"{name}.png", **how)


if __name__ == "__main__":
    main(Path(sys.argv[1]))
