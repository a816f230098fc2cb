"""A Kubernetes API over HTTP on loopback, as much of it as a launcher uses; it fails by plan."""

import json
import threading
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer

SAYS = {
    403: 'trainjobs.trainer.kubeflow.org is forbidden: User "system:serviceaccount:team:default-editor" cannot create '
    'resource "trainjobs" in API group "trainer.kubeflow.org" in the namespace "team"',
    404: "the server could not find the requested resource",
}
"""What a cluster says with a status."""
JOBS = "/apis/trainer.kubeflow.org/v1alpha1/namespaces/team/trainjobs"


class Api:
    """TrainJobs that go through ``course``, a step at every look.

    Attributes:
        course: (status, lines that node 0 has written) at each look; the last one stays.
        jobs: manifests by name.
        faults: statuses to answer with before anything else, perhaps with a message; None to cut the connection;
            "silent" to let it stand for 20 seconds.
        lost: how many more jobs are created whose answer gets lost.
        lingers: how many looks a job that is being deleted is still there for.
        calls: method and path of every request.
    """

    def __init__(self, course=()):
        self.course, self.jobs, self.faults, self.calls = list(course), {}, [], []
        self.looks = self.lost = self.lingers = 0
        self.closed = threading.Event()
        api = self

        class Handler(BaseHTTPRequestHandler):
            def log_message(self, *_):
                pass

            def do_GET(self):
                api.answer(self, "GET")

            def do_POST(self):
                api.answer(self, "POST")

            def do_DELETE(self):
                api.answer(self, "DELETE")

        self._server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
        self.address = f"http://127.0.0.1:{self._server.server_port}"
        threading.Thread(target=self._server.serve_forever, daemon=True).start()

    def close(self):
        self.closed.set()
        self._server.shutdown()
        self._server.server_close()

    def now(self):
        """Status and lines at this look."""
        return self.course[min(max(self.looks, 1), len(self.course)) - 1]

    def answer(self, request, method):
        path = request.path.partition("?")[0]
        self.calls.append((method, path))
        length = int(request.headers.get("Content-Length") or 0)
        body = json.loads(request.rfile.read(length)) if length else None
        if self.faults:
            fault = self.faults.pop(0)
            if fault == "silent":
                self.closed.wait(20)
            if fault in (None, "silent"):
                request.connection.close()
                return None
            status, message = fault if isinstance(fault, tuple) else (fault, SAYS.get(fault, "planned"))
            return self.send(request, status, {"kind": "Status", "message": message, "code": status})
        if path.endswith("/log"):
            return self.send(request, 200, "".join(f"{line}\n" for line in self.now()[1]), "text/plain")
        if path.endswith("/pods"):
            return self.send(request, 200, {"kind": "PodList", "items": self.pods()})
        if method == "POST":
            if body["metadata"]["name"] in self.jobs:
                return self.send(request, 409, {"kind": "Status", "code": 409})
            self.jobs[body["metadata"]["name"]] = body
            if self.lost:
                self.lost -= 1
                return self.send(request, 504, {"kind": "Status", "code": 504})
            return self.send(request, 201, body)
        name = path.rpartition("/")[2]
        if name not in self.jobs:
            return self.send(request, 404, {"kind": "Status", "code": 404})
        if method == "DELETE":
            job = self.jobs[name]
            self.jobs[name] = {**job, "metadata": {**job["metadata"], "deletionTimestamp": "2026-01-01T00:00:00Z"}}
        if "deletionTimestamp" in self.jobs[name]["metadata"]:
            self.lingers -= 1
            if self.lingers < 0:
                self.jobs.pop(name)
                return self.send(request, 200 if method == "DELETE" else 404, {"kind": "Status"})
        if method == "DELETE":
            return self.send(request, 200, self.jobs[name])
        self.looks += 1
        return self.send(request, 200, {**self.jobs[name], "status": self.now()[0]})

    def pods(self):
        pod = {"metadata": {"name": "node-0", "creationTimestamp": "2026-01-01T00:00:00Z"}, "spec": {"containers": []}}
        running = [{**pod, "status": {"phase": "Running"}}]
        pending = [{**pod, "status": {"phase": "Pending"}}]
        return running if self.now()[1] else pending

    def send(self, request, status, body, kind="application/json"):
        data = (body if isinstance(body, str) else json.dumps(body)).encode("utf-8", "surrogateescape")
        request.send_response(status)
        request.send_header("Content-Type", kind)
        request.send_header("Content-Length", str(len(data)))
        request.end_headers()
        request.wfile.write(data)
