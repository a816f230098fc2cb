"""A Kubeflow Pipelines that is there to be used: runs are started, watched with a limit, and ended."""

import os
import time
from dataclasses import dataclass, field

from pfs_pipelines.client import Client
from pfs_pipelines.compiled import load_package
from pfs_pipelines.following import ENDED, described, steps_of, terminated_at
from pfs_pipelines.submit import experiment_id, start, start_uncached, upload

EVERY = 5.0
EXPERIMENT = "pfs-tests"
SMALL = {
    "dataset": "digits",
    "recipe": "demo",
    "where_gpu_count": "0",
    "where_gpu_count_retrain": "0",
    "where_gpu_cpu": "0.5",
    "where_gpu_memory": "9Gi",
    "where_cpu_cores": "0.5",
    "where_cpu_memory": "2Gi",
    "where_latency_cores": "1",
    "where_latency_memory": "2Gi",
}
"""CPU pools of half a core, on which the demonstration takes about six minutes."""


@dataclass
class Backend:
    """The server, and what is started on it.

    Attributes:
        client: its client.
        started: the ids of the runs that were started, to be ended if a test fails.
        specs: the specification of the pipeline of each.
    """

    client: Client
    started: list[str] = field(default_factory=list)
    specs: dict[str, dict] = field(default_factory=dict)

    def start(self, pipeline, name, cached=True, **parameters):
        """Start a run without the checks of ``pfs submit``; returns its id."""
        package = load_package(pipeline)
        known = {key: value for key, value in {**SMALL, **parameters}.items() if key in package.parameters}
        experiment = experiment_id(self.client, EXPERIMENT)
        version = upload(self.client, package)
        if cached:
            run = start(self.client, version, experiment, f"test {name}", known)
        else:
            run = start_uncached(self.client, package, experiment, f"test {name}", known)
        self.specs[run] = package.documents[0]
        self.started.append(run)
        return run

    def run(self, run_id):
        """The run as the server tells of it."""
        return self.client.get_run(run_id)

    def steps(self, run_id):
        """The steps of a run, by title."""
        return {step.title: step for step in steps_of(self.client, self.run(run_id), self.specs[run_id])}

    def told(self, run_id):
        """What ``pfs status`` says of a run, for the message of a wait that took too long."""
        run = self.run(run_id)
        lines = [described(self.client, run_id, s, terminated_at(run)) for s in self.steps(run_id).values()]
        return "\n".join([f"run {run_id}: {run.state}", *lines])

    def wait(self, run_id, until, what, minutes):
        """Wait until ``until()`` is true and return that value; fails after some minutes with what there is to see."""
        deadline = time.monotonic() + 60 * minutes
        while not (found := until()):
            assert time.monotonic() < deadline, f"waited {minutes} minutes for {what}\n{self.told(run_id)}"
            state = self.run(run_id).state
            if state in ENDED:
                found = until()
                assert found, f"the run ended before {what}\n{self.told(run_id)}"
                return found
            time.sleep(EVERY)
        return found

    def ended(self, run_id, minutes=30):
        """Wait until a run has ended; returns its last state."""
        return self.wait(run_id, lambda: self._ending(run_id), "its end", minutes)

    def _ending(self, run_id):
        state = self.run(run_id).state
        return state if state in ENDED else ""

    def reached(self, run_id, title, *states, minutes=15):
        """Wait until a step is in one of these states; returns the step."""

        def there():
            step = self.steps(run_id).get(title)
            return step if step and step.state in states else None

        return self.wait(run_id, there, f"{title} to be {' or '.join(states)}", minutes)

    def terminate(self, run_id):
        """End a run, as the button of the UI does."""
        self.client.terminate_run(run_id)


def optional(name, reason):
    """The value of a variable that some tests need; skips the test where it is not set."""
    import pytest

    if not (value := os.environ.get(name)):
        pytest.skip(f"{name} is not set: {reason}")
    return value
