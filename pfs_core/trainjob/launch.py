"""Creating a TrainJob, or finding the one that an earlier try created, and following it to its end."""

import contextlib
import json
import logging
import os
import re
import signal
import time
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from typing import Any

from pfs_core.errors import AccessDeniedError, InvalidError, NotFoundError, UnreachableError, UserError
from pfs_core.storage.retry import retried
from pfs_core.trainjob.manifest import GROUP, PLURAL, SETTINGS, VERSION

logger = logging.getLogger(__package__)

_NAMESPACE = Path("/var/run/secrets/kubernetes.io/serviceaccount/namespace")
_NODE_0 = "jobset.sigs.k8s.io/jobset-name={name},batch.kubernetes.io/job-completion-index=0"
ATTEMPTS = 8
"""How often a request is made whose fault may pass: over a minute where each answer comes at once."""
_FIRST_WAIT = 0.5
_TIMEOUT = (10, 60)
"""Seconds to connect, to answer. A connection may be lost without a word, and the client would wait for ever."""
_NO_ROLE = re.compile(r'\bUser "[^"]*" cannot ')
"""What Kubernetes says where a role is missing. Quotas, policies and webhooks answer 403 too, as Trainer's does where
the runtime is not there."""
_PASSING = (409, 410, 429)
"""Refusals that pass by themselves: a conflict with another writer, an outdated version, too many requests."""


class JobFailedError(RuntimeError):
    """The TrainJob ended without a result."""


class Cluster:
    """The Kubernetes API of a namespace; transient faults are retried with growing waits.

    Args:
        namespace: empty for the namespace of the pod or of the kubeconfig.

    Raises:
        InvalidError: there is neither a cluster around this process nor a kubeconfig.
    """

    def __init__(self, namespace: str = "") -> None:
        from kubernetes import client, config

        try:
            if _in_pod():
                config.load_incluster_config()
            else:
                config.load_kube_config()
        except config.ConfigException as e:
            raise InvalidError(f"no Kubernetes cluster: {e}; run in a pod, or set KUBECONFIG") from None
        self.namespace = namespace or _own_namespace()
        self._jobs = client.CustomObjectsApi()
        self._pods = client.CoreV1Api()

    def create(self, body: dict[str, Any]) -> None:
        """Create a TrainJob; if there is one of that name, an earlier try created it and its answer was lost."""
        self._tried(
            lambda: self._jobs.create_namespaced_custom_object(*self._path(), body, _request_timeout=_TIMEOUT),
            "create trainjobs",
            {409: None},
        )

    def get(self, name: str) -> dict[str, Any] | None:
        """The current TrainJob of a name; None if there is none."""
        result: dict[str, Any] | None = self._tried(
            lambda: self._jobs.get_namespaced_custom_object(*self._path(), name, _request_timeout=_TIMEOUT),
            "get trainjobs",
            {404: None},
        )
        return result

    def delete(self, name: str) -> None:
        """Delete a TrainJob with its pods, if it is there."""
        self._tried(
            lambda: self._jobs.delete_namespaced_custom_object(
                *self._path(), name, propagation_policy="Foreground", _request_timeout=_TIMEOUT
            ),
            "delete trainjobs",
            {404: None},
        )

    def log(self, name: str, seconds: int) -> list[str]:
        """The lines that node 0 wrote in the last ``seconds``, each after its time; none before its pod runs."""
        pods = self._tried(
            lambda: self._pods.list_namespaced_pod(
                self.namespace, label_selector=_NODE_0.format(name=name), _request_timeout=_TIMEOUT
            ),
            "list pods",
        )
        running = [pod for pod in pods.items if pod.status.phase in ("Running", "Succeeded", "Failed")]
        if not running:
            return []
        newest = max(running, key=lambda pod: pod.metadata.creation_timestamp)

        def read() -> bytes:
            answer: bytes = self._pods.read_namespaced_pod_log(
                newest.metadata.name,
                self.namespace,
                timestamps=True,
                since_seconds=max(1, seconds),
                _preload_content=False,  # a line need not be UTF-8
                _request_timeout=_TIMEOUT,
            ).data
            return answer

        text: bytes = self._tried(read, "get pods/log", {404: b"", 400: b""})
        return text.decode("utf-8", "replace").splitlines()

    def _path(self) -> tuple[str, str, str, str]:
        return GROUP, VERSION, self.namespace, PLURAL

    def _tried(self, request: Callable[[], Any], verb: str, instead: Mapping[int, Any] = {}) -> Any:
        """The answer to a request.

        Args:
            request: makes it.
            verb: what the request is for, as a role of Kubernetes would allow it, such as ``get trainjobs``.
            instead: what to return in place of a refusal, by its status.

        Raises:
            AccessDeniedError, NotFoundError, InvalidError: the cluster refuses the request.
            UnreachableError: it failed ``ATTEMPTS`` times.
        """
        from kubernetes.client.exceptions import ApiException
        from urllib3.exceptions import HTTPError

        def transient(error: Exception) -> bool:
            if isinstance(error, ApiException):
                status = error.status or 0
                return status not in instead and (status in _PASSING or status >= 500)
            return isinstance(error, HTTPError | OSError)

        try:
            return retried(request, transient, ATTEMPTS, _FIRST_WAIT)
        except (ApiException, HTTPError, OSError) as e:
            status: int = getattr(e, "status", 0) or 0
            if status in instead:
                return instead[status]
            if transient(e):
                raise UnreachableError(f"the Kubernetes API failed {ATTEMPTS} times to {verb}: {_line(e)}") from None
            raise self._refusal(e, verb) from None

    def _refusal(self, error: Any, verb: str) -> UserError:
        """What it means that the cluster refuses a request."""
        said = _said(error)
        if error.status == 401:
            return AccessDeniedError(f"the cluster does not accept the credentials (401 at {verb}); renew them")
        if error.status == 403 and _NO_ROLE.search(said):
            return AccessDeniedError(
                f"the service account may not {verb} in namespace {self.namespace}; give it a role that may"
            )
        if error.status == 404 and not said.startswith("namespaces "):
            return NotFoundError(f"{GROUP}/{VERSION} is not installed in the cluster; install Kubeflow Trainer 2.2")
        return InvalidError(f"the cluster refused to {verb} in namespace {self.namespace}: {said}")


def follow(
    cluster: Cluster, body: dict[str, Any], every: float = 5.0, has_result: Callable[[], bool] = lambda: True
) -> None:
    """Create the TrainJob, or resume following the one of that name; log its states and node 0's lines to its end.

    A job that failed earlier, is being deleted, is done and has no result any more, or was made with other settings and
    is not done is replaced. If this process is told to stop, the job is deleted.

    Args:
        cluster: where.
        body: the manifest.
        every: seconds between two looks.
        has_result: whether what a job that is done has made is still there.

    Raises:
        AccessDeniedError, InvalidError: the cluster does not let this process do it, or refuses the manifest.
        UnreachableError: the Kubernetes API stays away.
        JobFailedError: the job failed or vanished.
    """
    name = body["metadata"]["name"]
    if (found := cluster.get(name)) and (reason := _in_the_way(found, body, has_result)):
        logger.info(f"TrainJob {cluster.namespace}/{name} {reason}; it is replaced when it is gone")
        cluster.delete(name)
        while cluster.get(name):
            time.sleep(every)
        found = None
    with _deleted_on_stop(cluster, name):
        if not found:
            cluster.create(body)
        logger.info(f"TrainJob {cluster.namespace}/{name} {'goes on' if found else 'created'}")
        _watch(cluster, name, every)


def state(job: dict[str, Any]) -> tuple[str, str]:
    """``created``, ``suspended``, ``running``, ``complete`` or ``failed``, and the reason that the job gives."""
    status = job.get("status", {})
    conditions = {c["type"]: c for c in status.get("conditions", []) if c["status"] == "True"}
    for kind in ("Failed", "Complete", "Suspended"):
        if kind in conditions:
            return kind.lower(), conditions[kind].get("message", "")
    nodes = [jobs for jobs in status.get("jobsStatus", []) if jobs["name"] == "node"]
    return ("running" if any(jobs.get("active") or jobs.get("ready") for jobs in nodes) else "created"), ""


def _in_the_way(found: dict[str, Any], body: dict[str, Any], has_result: Callable[[], bool]) -> str:
    """Why the job of a name cannot be followed in place of ``body``; empty if it can, or is done."""
    now, reason = state(found)
    if now == "failed":
        return f"failed earlier: {reason}"
    if now == "complete":
        return "" if has_result() else "is done, and its result is gone"
    if found["metadata"].get("deletionTimestamp"):
        return "is being deleted"
    settings = [job["metadata"].get("annotations", {}).get(SETTINGS) for job in (found, body)]
    return "was made with other settings" if settings[0] != settings[1] else ""


def _watch(cluster: Cluster, name: str, every: float) -> None:
    """Log what is new of a job until it ends."""
    before, shown, asked = "", "", time.monotonic() - 3600
    while True:
        job = cluster.get(name)
        if job is None:
            raise JobFailedError(f"TrainJob {cluster.namespace}/{name} has been deleted by somebody else")
        now, reason = state(job)
        if now != before:
            logger.info(f"TrainJob {cluster.namespace}/{name} is {now}" + (f": {reason}" if reason else ""))
        before = now
        started = time.monotonic()
        for line in cluster.log(name, int(started - asked) + 30):
            moment, _, text = line.partition(" ")
            if moment > shown:
                shown = moment
                logger.info(text)
        asked = started
        if now == "complete":
            return
        if now == "failed":
            raise JobFailedError(f"TrainJob {cluster.namespace}/{name} failed: {reason}")
        time.sleep(every)


@contextlib.contextmanager
def _deleted_on_stop(cluster: Cluster, name: str) -> Iterator[None]:
    """Delete the job on SIGTERM and Ctrl-C: without this process nobody would collect its result."""

    def stop(number: int, frame: Any) -> None:
        signal.signal(signal.SIGTERM, signal.SIG_IGN)  # a second one must not keep the job from being deleted
        raise SystemExit(128 + number)

    handler = signal.signal(signal.SIGTERM, stop)
    try:
        yield
    except (SystemExit, KeyboardInterrupt):
        cluster.delete(name)
        raise
    finally:
        signal.signal(signal.SIGTERM, handler)


def _in_pod() -> bool:
    """Whether Kubernetes runs this process: it sets the variable, and mounts what belongs to it."""
    return "KUBERNETES_SERVICE_HOST" in os.environ and _NAMESPACE.exists()


def _own_namespace() -> str:
    """The namespace of the pod or of the kubeconfig's context."""
    if _in_pod():
        return _NAMESPACE.read_text().strip()
    from kubernetes import config

    text: str = config.list_kube_config_contexts()[1]["context"].get("namespace", "default")
    return text


def _said(error: Any) -> str:
    """The message of a refusal: that of the Kubernetes API, or else what came in its place."""
    try:
        return _line(json.loads(error.body)["message"])
    except (ValueError, TypeError, KeyError):
        return _line(error.body or error.reason)


def _line(error: object) -> str:
    return " ".join(str(error).split())[:300]
