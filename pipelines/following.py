"""A run as a person follows it: a line when a step starts, ends, waits or fails, and why."""

import re
import time
from collections.abc import Callable, Mapping, Sequence
from datetime import datetime
from typing import Any

from pfs_pipelines.client import Client, ServerError
from pfs_pipelines.workflow import Pod, Step, plain, step_titles, steps

from pfs_core.errors import UnreachableError, UserError

ENDED = ("SUCCEEDED", "FAILED", "CANCELED", "SKIPPED")
EVERY = 5.0
"""Seconds between two requests for the state of a run."""
LOG_LOOKS = 4
"""How often the last logs of a run are looked for."""
PATIENCE = 20
"""How many of them in a row may fail."""
UNEXPLAINED = 30.0
"""Seconds that a pod may wait before it is said why."""

_REMEDIES = {
    r"Insufficient \S*gpu": "no node has a free GPU: where_gpu_count=0 and where_gpu_count_retrain=0 search and train "
    "on CPUs",
    r"Insufficient (cpu|memory)": "no node has as much left: ask for less with where_gpu_cpu, where_cpu_cores, "
    "where_latency_cores or the parameters where_..._memory",
    r"untolerated taint": "no node may be used: tolerate its taint with where_gpu_tolerations, "
    "where_cpu_tolerations or where_latency_tolerations",
    r"node affinity|node selector": "no node has the labels of where_gpu_node_selector, "
    "where_cpu_node_selector or where_latency_node_selector",
    r"ImagePull|ErrImage|InvalidImageName|pull policy": "the image cannot be pulled: is PFS_IMAGE pushed, and may "
    "nodes pull it?",
    r"(?i)persistentvolumeclaim|unbound": "the claim of --data-volume is missing or not bound",
    r"(?i)configmap|secret": "check where_config_map and where_secret: what they name must be in the run's namespace",
    r"may not be specified when value is not empty": "this package clashes with variables that the cluster adds: "
    "compile it anew with this version",
    r"exceeded quota": "the namespace's quota is used up: wait for other runs, or ask for less with where_gpu_cpu, "
    "where_cpu_cores, where_latency_cores or the parameters where_..._memory",
    r"ephemeral-storage": "the node's disk is full: make room on it, or choose others with where_gpu_node_selector, "
    "where_cpu_node_selector or where_latency_node_selector",
    r"OOMKilled|exit code 137|low on resource: memory": "it took more memory than it may: raise "
    "where_gpu_memory, where_cpu_memory or where_latency_memory",
}
_STATES = {"RUNNING": "running", "SUCCEEDED": "done", "FAILED": "failed", "PENDING": "running"}
_FOREIGN = re.compile(r"[IWEF]\d{4} \d\d:|\[KFP Executor |time=\"")
"""The start of a line that Kubeflow's launcher or Argo's executor has written into the log of a step."""
_EXCEPTION = re.compile(r"[A-Za-z_][\w.]*(Error|Exception|Interrupt|Exit)\b")
REPORT = "report"
"""The task whose log ends with what came out of the run."""


def remedy(reason: str) -> str:
    """Return what helps a pod that waits or was refused for a reason; empty where nothing is known.

    >>> remedy("Unschedulable: 0/1 nodes are available: 1 Insufficient nvidia.com/gpu.")
    'no node has a free GPU: where_gpu_count=0 and where_gpu_count_retrain=0 search and train on CPUs'
    """
    return next((text for pattern, text in _REMEDIES.items() if re.search(pattern, reason)), "")


def own_lines(log: str) -> list[str]:
    """Return the lines of a pod's log that the step itself has written, without Kubeflow's around them."""
    lines, depth = [], 0
    for line in log.splitlines():
        if depth or line == "{":  # the executor's input, as indented JSON
            depth = 0 if line == "}" else 1
        elif line.strip() and not _FOREIGN.match(line):
            lines.append(line.rstrip())
    return lines


def last_word(log: str) -> str:
    """Return the line of a log that says why a step failed: its error, its exception, or else its last line."""
    lines = own_lines(log)
    errors = [line.removeprefix("error: ") for line in lines if line.startswith("error: ")]
    exceptions = [line for line in lines if _EXCEPTION.match(line)]
    return (errors or exceptions or lines or [""])[-1]


def duration(seconds: float) -> str:
    """Return a duration as text.

    >>> duration(41.0), duration(252)
    ('41 s', '4:12')
    """
    whole = round(seconds)
    return f"{whole} s" if whole < 60 else f"{whole // 60}:{whole % 60:02}"


class Progress:
    """What has been shown of a run so far.

    Args:
        client: the client of the server.
        run_id: the run.
        spec: the specification of its pipeline.
        show: shows a line.
        live: whether to show what running steps log, too.
    """

    def __init__(
        self, client: Client, run_id: str, spec: Mapping[str, Any], show: Callable[[str], None], live: bool = False
    ) -> None:
        self._client, self._run_id, self._spec, self._show, self._live = client, run_id, spec, show, live
        self._shown: dict[tuple[str, ...], tuple[Any, ...]] = {}
        self._waits: dict[tuple[str, ...], float] = {}
        self._logged: dict[Pod, int] = {}
        self._failed: list[Step] = []
        self._report: Step | None = None  # the step whose log ends with the result, once it is done

    def follow(self) -> str:
        """Wait for the run and show what happens in it; returns its last state.

        A server that fails or does not answer is asked again.

        Raises:
            AccessDeniedError: the credentials are no longer valid.
            NotFoundError: the run is gone.
            ServerError: the server failed ``PATIENCE`` times in a row.
        """
        state, failed = "", 0
        while True:
            try:
                run = self._client.has(self._client.get_run(self._run_id), "run_id")
                self.look(run)
                failed = 0
            except (ServerError, UnreachableError) as e:
                failed += 1
                if failed == PATIENCE:
                    raise ServerError(f"{e}; the run goes on") from None
                if failed == 1:
                    self._show(f"{e}; still waiting")
                time.sleep(EVERY)
                continue
            except UserError as e:
                raise type(e)(f"{e}; the run goes on") from None
            if run.state and run.state != state:
                state = run.state
                self._show(f"run: {ending(run)}")
            if state in ENDED:
                for line in self._last_lines(state):
                    self._show(line)
                return state
            time.sleep(EVERY)

    def _last_lines(self, state: str) -> list[str]:
        """Return the lines of the report, or a line for each step that has failed.

        The server may take some seconds to store the last logs.
        """
        wanted = [self._report] if self._report and state == "SUCCEEDED" else self._failed
        for _ in range(LOG_LOOKS):
            if all(self._client.log(self._run_id, step.pods[-1]) for step in wanted if step.pods and not step.driver):
                break
            time.sleep(EVERY)
        if state != "SUCCEEDED":
            return [described(self._client, self._run_id, step) for step in wanted]
        pods = self._report.pods if self._report else ()
        return own_lines(self._client.log(self._run_id, pods[-1])) if pods else []

    def look(self, run: Any) -> None:
        """Show what has changed since the last look."""
        terminated = terminated_at(run)
        for step in steps_of(self._client, run, self._spec):
            news = (step.state, len(step.pods), step.reason if step.state == "waiting" else "")
            new = news != self._shown.get(step.path)
            if self._live and (new or step.state == "running"):
                self._tail(step)
            if new and not self._is_early(step):
                self._shown[step.path] = news
                line = described(self._client, self._run_id, step, terminated)
                self._show(line)
                if step.state == "failed" and not ended_with(step, terminated):
                    self._failed.append(step)
            if step.path[-1:] == (REPORT,) and step.state in ("done", "cached"):
                self._report = step

    def _is_early(self, step: Step) -> bool:
        """Whether a step waits, and not yet for long enough or without a known reason."""
        if step.state != "waiting":
            self._waits.pop(step.path, None)
            return False
        since = self._waits.setdefault(step.path, time.monotonic())
        return not step.reason or time.monotonic() - since < UNEXPLAINED

    def _tail(self, step: Step) -> None:
        """Show what a step has logged since the last look, in the pod that runs and in those that have ended since."""
        for pod in step.pods[-2:]:
            lines = own_lines(self._client.log(self._run_id, pod))
            for line in lines[self._logged.get(pod, 0) :]:
                self._show(f"  {step.title} | {line}")
            self._logged[pod] = max(len(lines), self._logged.get(pod, 0))


def described(client: Client, run_id: str, step: Step, terminated: datetime | None = None) -> str:
    """Return a line about a step; for one that failed, with what its log says.

    Args:
        client: the client of the server.
        run_id: the run.
        step: the step.
        terminated: when somebody has ended the run, if somebody has.
    """
    if step.state == "cached":
        return f"{step.title}: from the cache"
    if step.state == "done":
        return f"{step.title}: done" + (f" in {duration(step.seconds)}" if step.seconds is not None else "")
    if step.state == "waiting":
        return f"{step.title}: waiting{_because(step.reason)}"
    if step.state == "failed" and ended_with(step, terminated):
        return f"{step.title}: ended with the run"
    if step.state in ("failed", "again"):
        word = last_word(client.log(run_id, step.pods[-1])) if step.pods and not step.driver else ""
        why = f" ({step.reason})" if step.reason and word else _because(step.reason)
        what = "failed, tried again" if step.state == "again" else "failed"
        prepared = " while Kubeflow prepared it" if step.driver else ""
        return f"{step.title}: {what}{prepared}{why}{f': {word}' if word else ''}"
    tries = f", try {len(step.pods)}" if len(step.pods) > 1 else ""
    return f"{step.title}: running{tries}"


def _because(reason: str) -> str:
    """Return a reason with what helps, to be put behind what happened."""
    parts = filter(None, [reason, remedy(reason)])
    return "".join(f": {part}" for part in parts)


def steps_of(client: Client, run: Any, spec: Mapping[str, Any]) -> list[Step]:
    """Return the steps of a run, as far as the server tells of its workflow."""
    parameters = (run.runtime_config and run.runtime_config.parameters) or {}
    status = client.workflow(run.run_id)
    if status.get("nodes") or status.get("compressedNodes"):
        return steps(status, spec, parameters)
    return _steps_of_details((run.run_details and run.run_details.task_details) or [], spec)


def _steps_of_details(details: Sequence[Any], spec: Mapping[str, Any]) -> list[Step]:
    """Return the steps as the run itself lists them: by name, without the rounds of loops, reasons and pods."""
    latest: dict[str, Any] = {}
    titles = step_titles(spec)
    for task in sorted((task for task in details if task.start_time), key=lambda task: task.start_time):
        name = plain(task.display_name or "")
        if name in titles and task.state in _STATES:
            latest[name] = task
    return [Step((name,), titles[name], _STATES[task.state], "", _lasted(task), ()) for name, task in latest.items()]


def _lasted(task: Any) -> float | None:
    return (task.end_time - task.start_time).total_seconds() if task.end_time else None


def terminated_at(run: Any) -> datetime | None:
    """Return when somebody has ended a run, which Kubeflow then calls failed.

    It is None if nobody has, or if somebody has started it again since, by Kubeflow's *Retry*.
    """
    ended = None
    for entry in run.state_history or []:
        if entry.state == "CANCELING":
            ended = entry.update_time
        elif entry.state in ("PENDING", "RUNNING"):
            ended = None
    return ended


def ended_with(step: Step, terminated: datetime | None) -> bool:
    """Return whether a step that failed did so because its run was ended."""
    return terminated is not None and (not step.ended or datetime.fromisoformat(step.ended) >= terminated)


def ending(run: Any) -> str:
    """Return the state of a run, with the duration of one that has ended and with what Kubeflow says of its error."""
    text = run.state or "PENDING"
    if run.state in ENDED and run.created_at and run.finished_at and run.finished_at > run.created_at:
        text += f" after {duration((run.finished_at - run.created_at).total_seconds())}"
    if run.state == "FAILED" and terminated_at(run):
        text += " (it was terminated)"
    if run.error and run.error.message:
        text += f" ({' '.join(run.error.message.split())})"
    return text
