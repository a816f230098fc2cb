"""What the machine does while a step runs, as curves ``system/...`` of MLflow's own monitor."""

import logging
import threading
from typing import Any


class SystemMetrics:
    """MLflow's monitor of a run. It ends when it cannot reach the server; :meth:`watch` starts it again.

    Args:
        wanted: whether to have one where ``MLFLOW_ENABLE_SYSTEM_METRICS_LOGGING`` is not set.
    """

    def __init__(self, wanted: bool) -> None:
        from mlflow import environment_variables

        setting = environment_variables.MLFLOW_ENABLE_SYSTEM_METRICS_LOGGING
        self._wanted = bool(setting.get()) if setting.is_set() else wanted
        self._monitor: Any = None

    def watch(self, run: str, earlier: bool) -> None:
        """Have a monitor, after a call that the server has answered. ``earlier``: the run may have such curves."""
        if not self._wanted or _alive():
            return
        from mlflow.system_metrics import system_metrics_monitor

        logging.getLogger(system_metrics_monitor.__name__).setLevel(logging.CRITICAL)  # an outage is said elsewhere
        self._monitor = system_metrics_monitor.SystemMetricsMonitor(run, resume_logging=earlier or bool(self._monitor))
        self._monitor.start()

    def finish(self) -> None:
        """End it for good."""
        self._wanted = False
        if self._monitor and _alive():
            self._monitor.finish()


def _alive() -> bool:
    return any(thread.name == "SystemMetricsMonitor" for thread in threading.enumerate())
