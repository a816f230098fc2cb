"""Creating a TrainJob, or finding the one that an earlier start created, and following it to its end."""

import contextlib
import signal
import time
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from typing import Any

from pfs_core.errors import UserError
from pfs_core.runtime.progress import say
from pfs_core.trainjob.manifest import GROUP, PLURAL, VERSION

_NAMESPACE = Path("/var/run/secrets/kubernetes.io/serviceaccount/namespace")
_NODE_0 = "jobset.sigs.k8s.io/jobset-name={name},batch.kubernetes.io/job-completion-index=0"
ATTEMPTS = 8
_FIRST_WAIT = 0.5


class JobFailedError(RuntimeError):
    """The TrainJob ended without a result."""


class Cluster:
    """The Kubernetes API of a namespace; what fails in passing is tried again with growing waits.

    Args:
        namespace: empty for the pod's own, or the one of the kubeconfig.

    Raises:
        UserError: there is neither a cluster around this process nor a kubeconfig.
    """

    def __init__(self, namespace: str = "") -> None:
        from kubernetes import client, config

        try:
            if _NAMESPACE.exists():
                config.load_incluster_config()
            else:
                config.load_kube_config()
        except config.ConfigException as e:
            raise UserError(f"no Kubernetes cluster: {e}; run in a pod, or set KUBECONFIG") from None
        self.namespace = namespace or _own_namespace()
        self._jobs = client.CustomObjectsApi()
        self._pods = client.CoreV1Api()

    def create(self, body: dict[str, Any]) -> None:
        """Create a TrainJob; one of that name that is there was made by an earlier try whose answer got lost."""
        self._tried(
            lambda: self._jobs.create_namespaced_custom_object(*self._path(), body), "create trainjobs", {409: None}
        )

    def get(self, name: str) -> dict[str, Any] | None:
        """A TrainJob as it is now; None if there is none of that name."""
        return self._tried(
            lambda: self._jobs.get_namespaced_custom_object(*self._path(), name), "get trainjobs", {404: None}
        )

    def delete(self, name: str) -> None:
        """Delete a TrainJob with its pods, if it is there."""
        self._tried(
            lambda: self._jobs.delete_namespaced_custom_object(*self._path(), name, propagation_policy="Foreground"),
            "delete trainjobs",
            {404: None},
        )

    def log(self, name: str, seconds: int) -> list[str]:
        """The lines that node 0 wrote in the last seconds, each after its time; none before its pod runs."""
        pods = self._tried(
            lambda: self._pods.list_namespaced_pod(self.namespace, label_selector=_NODE_0.format(name=name)),
            "list pods",
        )
        running = [pod for pod in pods.items if pod.status.phase in ("Running", "Succeeded", "Failed")]
        if not running:
            return []
        newest = max(running, key=lambda pod: pod.metadata.creation_timestamp)
        text = self._tried(
            lambda: self._pods.read_namespaced_pod_log(
                newest.metadata.name, self.namespace, timestamps=True, since_seconds=max(1, seconds)
            ),
            "get pods/log",
            {404: "", 400: ""},
        )
        return text.splitlines()

    def _path(self) -> tuple[str, str, str, str]:
        return GROUP, VERSION, self.namespace, PLURAL

    def _tried(self, request: Callable[[], Any], verb: str, instead: Mapping[int, Any] = {}) -> Any:
        """The answer to a request, or what ``instead`` has for its status."""
        from kubernetes.client.exceptions import ApiException
        from urllib3.exceptions import HTTPError

        wait = _FIRST_WAIT
        for attempt in range(1, ATTEMPTS + 1):
            try:
                return request()
            except ApiException as e:
                if e.status in instead:
                    return instead[e.status]
                if e.status == 403:
                    raise UserError(
                        f"the service account may not {verb} in namespace {self.namespace}; give it a role that may"
                    ) from None
                if e.status == 404:
                    raise UserError(f"the cluster knows no {GROUP}/{VERSION}; install Kubeflow Trainer 2.2") from None
                if e.status not in (409, 410, 429) and e.status < 500:
                    raise UserError(f"the cluster refused to {verb}: {_line(e.body or e.reason)}") from None
                error: Exception = e
            except (HTTPError, OSError) as e:
                error = e
            if attempt < ATTEMPTS:
                time.sleep(wait)
                wait *= 2
        raise JobFailedError(f"the Kubernetes API failed {ATTEMPTS} times to {verb}: {_line(error)}")


def follow(cluster: Cluster, body: dict[str, Any], every: float = 5.0) -> None:
    """Create the TrainJob, or take up the one of that name, print its states and node 0's lines until it is complete.

    One that failed earlier is replaced. If this process is told to stop, the job is deleted.

    Raises:
        UserError: the cluster does not let this process do it, or refuses the manifest.
        JobFailedError: the job failed or vanished.
    """
    name = body["metadata"]["name"]
    if (found := cluster.get(name)) and state(found)[0] == "failed":
        cluster.delete(name)
        while cluster.get(name):
            time.sleep(every)
        found = None
    with _deleted_on_stop(cluster, name):
        if not found:
            cluster.create(body)
        say(f"TrainJob {cluster.namespace}/{name} {'goes on' if found else 'created'}")
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


def _watch(cluster: Cluster, name: str, every: float) -> None:
    """Print what is new of a job until it ends."""
    before, shown, asked = "", "", time.monotonic() - 3600
    while True:
        job = cluster.get(name)
        if job is None:
            raise JobFailedError(f"TrainJob {cluster.namespace}/{name} has been deleted by somebody else")
        now, reason = state(job)
        if now != before:
            say(f"TrainJob {cluster.namespace}/{name} is {now}" + (f": {reason}" if reason else ""))
        before = now
        started = time.monotonic()
        for line in cluster.log(name, int(started - asked) + 30):
            moment, _, text = line.partition(" ")
            if moment > shown:
                shown = moment
                say(text)
        asked = started
        if now == "complete":
            return
        if now == "failed":
            raise JobFailedError(f"TrainJob {cluster.namespace}/{name} failed: {reason}")
        time.sleep(every)


@contextlib.contextmanager
def _deleted_on_stop(cluster: Cluster, name: str) -> Iterator[None]:
    """SIGTERM and Ctrl-C delete the job: nobody would take its result."""

    def stop(number: int, frame: Any) -> None:
        raise SystemExit(128 + number)

    handler = signal.signal(signal.SIGTERM, stop)
    try:
        yield
    except (SystemExit, KeyboardInterrupt):
        cluster.delete(name)
        raise
    finally:
        signal.signal(signal.SIGTERM, handler)


def _own_namespace() -> str:
    """The pod's, or the one of the kubeconfig's context."""
    if _NAMESPACE.exists():
        return _NAMESPACE.read_text().strip()
    from kubernetes import config

    return config.list_kube_config_contexts()[1]["context"].get("namespace", "default")


def _line(error: object) -> str:
    return " ".join(str(error).split())[:300]
