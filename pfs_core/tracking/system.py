"""System metrics while a step runs: the curves ``system/...`` of MLflow's own monitor."""

import logging
import threading
from typing import Any


class SystemMetrics:
    """MLflow's monitor of a run. It ends when it cannot reach the server, and :meth:`watch` starts it again: system
    metrics are missing for the duration of the outage.

    Args:
        wanted: whether to run one where ``MLFLOW_ENABLE_SYSTEM_METRICS_LOGGING`` is not set.
    """

    def __init__(self, wanted: bool) -> None:
        from mlflow import environment_variables

        setting = environment_variables.MLFLOW_ENABLE_SYSTEM_METRICS_LOGGING
        self._wanted = bool(setting.get()) if setting.is_set() else wanted
        self._monitor: Any = None

    def watch(self, run: str, earlier: bool) -> None:
        """Start the monitor, if it is wanted and not running; to be called when the server has answered.

        Args:
            run: the id of the run.
            earlier: whether the run may have system metrics already, which then go on.
        """
        if not self._wanted or _alive():
            return
        from mlflow.system_metrics import system_metrics_monitor

        logging.getLogger(system_metrics_monitor.__name__).setLevel(logging.CRITICAL)  # the outbox reports outages
        self._monitor = system_metrics_monitor.SystemMetricsMonitor(run, resume_logging=earlier or bool(self._monitor))
        self._monitor.start()

    def finish(self) -> None:
        """Stop the monitor for good."""
        self._wanted = False
        if self._monitor and _alive():
            self._monitor.finish()


def _alive() -> bool:
    return any(thread.name == "SystemMetricsMonitor" for thread in threading.enumerate())
