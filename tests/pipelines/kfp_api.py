"""The v2beta1 API of Kubeflow Pipelines over HTTP on loopback: it keeps what it is given, checks it, fails by plan."""

import email
import json
import re
import threading
from datetime import datetime
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from urllib.parse import parse_qs, urlsplit

import kfp_server_api
import yaml
from google.protobuf import json_format
from kfp.pipeline_spec import pipeline_spec_pb2

PREFIX = "/apis/v2beta1"
INT64 = ("max_concurrency", "interval_second")  # JSON has them as text, and protobuf reads both
PLAIN = {"str": str, "bool": bool, "int": int, "float": (int, float), "object": object}


class RefusedError(Exception):
    """An answer that is not 200."""

    def __init__(self, status, message):
        super().__init__(message)
        self.status = status


class KfpApi:
    """A single-user installation, or one of many users if it has ``namespaces``.

    Attributes:
        pipelines, versions, experiments, runs, schedules: what there is, by id, each as the API shows it.
        packages: bytes by version id.
        course: the states that a run goes through, one a look; the last one stays.
        task_course: (task, state) at each look, likewise.
        faults: (start of "METHOD PATH", what); what is a status, "html", "latin", a proxy's page with 502, "cut", or
            ("done", status) for an answer that is lost although the request was carried out. Each happens once, at
            the first request that it fits.
        token: what must come as bearer, if anything.
        recorded: runs, by id, as a live server has answered; they do not change.
        workflows: the status of the workflow of a run, by its id; logs: archived, of nodes.
        pod_logs: of pods by their names, as the server of the UI reads them; None where the endpoint is the API's own.
        lost: ids of schedules whose resource the cluster has no longer, as after its namespace was deleted.
        calls: "METHOD PATH" of every request; headers: the last one's.
    """

    def __init__(self, namespaces=(), token=""):
        self.namespaces, self.token = namespaces, token
        self.pipelines, self.versions, self.experiments, self.runs, self.schedules = {}, {}, {}, {}, {}
        self.packages, self.calls, self.faults, self.headers, self.looks = {}, [], [], {}, {}
        self.recorded, self.workflows, self.logs, self.pod_logs = {}, {}, {}, None
        self.course, self.task_course = ["PENDING", "RUNNING", "SUCCEEDED"], []
        self.enabled_at_once, self.lost = 0, set()
        self.page = 2  # entries at most, so that pages are turned
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
        self.endpoint = f"http://127.0.0.1:{self._server.server_port}"
        threading.Thread(target=self._server.serve_forever, args=(0.01,), daemon=True).start()

    def close(self):
        self._server.shutdown()
        self._server.server_close()

    def answer(self, request, method):
        body = request.rfile.read(int(request.headers.get("Content-Length") or 0))
        parts = urlsplit(request.path)
        call = f"{method} {parts.path}"
        self.calls.append(call)
        self.headers = dict(request.headers)
        planned = next((fault for fault in self.faults if call.startswith(fault[0])), None)
        what = planned[1] if planned else None
        if planned:
            self.faults.remove(planned)
        try:
            if what == "cut":
                request.connection.close()
                return
            if what == "html":
                send(request, 200, "<!doctype html><title>Sign in</title>", "text/html; charset=utf-8")
                return
            if what == "latin":
                send(request, 502, "<title>Zugriff nicht m\udcf6glich</title>", "text/html")
                return
            if isinstance(what, int):
                raise RefusedError(what, f"planned, with {request.headers.get('Authorization')}")
            query = {key: values[0] for key, values in parse_qs(parts.query).items()}
            found = self.carry_out(method, parts.path, query, body, request.headers)
            if isinstance(what, tuple):
                raise RefusedError(what[1], "planned, but done")
            send(request, 200, found, "text/plain" if isinstance(found, str) else "application/json")
        except RefusedError as e:
            send(request, e.status, {"error": str(e), "code": 3, "message": str(e), "details": []})

    def carry_out(self, method, path, query, body, headers):
        """What a request does; the answer."""
        if self.token and headers.get("Authorization") != f"Bearer {self.token}":
            raise RefusedError(401, "Unauthenticated")
        if found := re.fullmatch(r"/apis/v1beta1/runs/([^/]+)", path):
            manifest = {"status": self.found(self.workflows, found[1])}
            return {"run": {"id": found[1]}, "pipeline_runtime": {"workflow_manifest": json.dumps(manifest)}}
        if found := re.fullmatch(r"/apis/v1alpha1/runs/([^/]+)/nodes/([^/]+)/log", path):
            gone = {"error_message": "BadRequestError: Failed to read logs for run", "error_details": "NoSuchKey"}
            return self.logs.get(found[2], gone)
        if path == "/k8s/pod/logs" and self.pod_logs is not None:
            return self.found(self.pod_logs, query["podname"])
        if not path.startswith(PREFIX):
            raise RefusedError(404, "Not Found")
        kind, *rest = path.removeprefix(PREFIX).strip("/").replace(":", "/").split("/")
        match method, kind, rest:
            case "GET", "healthz", []:
                return {"commit_sha": "unknown", "tag_name": "2.17.0", "multi_user": bool(self.namespaces)}
            case "GET", "experiments" | "pipelines" | "runs" | "recurringruns", []:
                return self.listed(kind, query, self.held(kind).values())
            case "GET", "pipelines", [pipeline, "versions"]:
                versions = [v for v in self.versions.values() if v["pipeline_id"] == pipeline]
                return self.listed("pipeline_versions", {**query, "namespace": "any"}, versions)
            case "POST", "experiments", []:
                return self.add("experiment", self.read(body, kfp_server_api.V2beta1Experiment))
            case "POST", "pipelines", []:
                return self.add_pipeline(self.read(body, kfp_server_api.V2beta1Pipeline))
            case "POST", "pipelines", ["upload_version"]:
                return self.upload(query, body, headers["Content-Type"])
            case "POST", "runs", []:
                return self.add_run(self.read(body, kfp_server_api.V2beta1Run))
            case "GET", "pipelines", [_, "versions", version]:
                spec = list(yaml.safe_load_all(self.packages[version]))
                return {**self.found(self.versions, version), "pipeline_spec": {"pipeline_spec": spec[0]}}
            case "POST", "runs", [run, "terminate"]:
                self.found(self.runs, run)["state"] = "CANCELING"
                return {}
            case "GET", "runs", [run]:
                return self.recorded[run] if run in self.recorded else self.look(run)
            case "POST", "recurringruns", []:
                return self.add_schedule(self.read(body, kfp_server_api.V2beta1RecurringRun))
            case "POST", "recurringruns", [schedule, "enable" | "disable" as mode]:
                if schedule in self.lost:
                    wrong = f"Failed to change recurring run's {schedule} mode to enable:{mode == 'enable'}".lower()
                    raise RefusedError(500, f'{wrong}: scheduledworkflows.kubeflow.org "daily7x9k" not found')
                self.found(self.schedules, schedule)["mode"] = mode.upper()
                self.enabled_at_once = max(self.enabled_at_once, len(self.enabled()))
                return {}
            case "DELETE", "recurringruns", [schedule]:
                self.found(self.schedules, schedule)
                del self.schedules[schedule]
                return {}
        raise RefusedError(404, f"no route {method} {path}")

    def held(self, kind):
        return {**vars(self), "recurringruns": self.schedules}[kind]

    def found(self, held, key):
        if key not in held:
            raise RefusedError(404, f"ResourceNotFoundError: {key} not found")
        return held[key]

    def enabled(self):
        return [s["display_name"] for s in self.schedules.values() if s["mode"] == "ENABLE"]

    def listed(self, kind, query, entries):
        """A page of a list; of a filter, what the client uses of it."""
        if self.namespaces and query.get("namespace") not in (*self.namespaces, "any"):
            raise RefusedError(400, "a namespace is required in multi-user mode")
        entries = [entry for entry in entries if (entry.get("namespace") or "") in ("", query.get("namespace"))]
        for predicate in json.loads(query.get("filter", "{}")).get("predicates", []):
            if predicate["operation"] not in ("EQUALS", 1):  # protobuf reads names and numbers
                raise RefusedError(400, f"operation {predicate['operation']}")
            entries = [entry for entry in entries if entry.get(predicate["key"]) == predicate["stringValue"]]
        if query.get("sort_by", "").endswith(" desc"):
            entries.sort(key=lambda entry: entry[query["sort_by"].split()[0]], reverse=True)
        first = int(query.get("page_token") or 0)
        answer = self.a_page(kind, query, [dict(entry) for entry in entries], first)
        for entry in entries:  # what was ended has ended at the next look
            if entry.get("state") == "CANCELING":
                entry["state"] = "FAILED"
        return answer

    def a_page(self, kind, query, entries, first):
        last = first + min(self.page, int(query.get("page_size") or self.page))
        field = {"recurringruns": "recurringRuns"}.get(kind, kind)
        more = {"next_page_token": str(last)} if last < len(entries) else {}
        return {field: entries[first:last], **more} if entries else {}

    def read(self, body, model):
        """A request's body, which must be what ``model`` says."""
        values = json.loads(body)
        check(values, model.__name__, model.__name__)
        return values

    def in_namespace(self, values):
        if self.namespaces and values.get("namespace") not in self.namespaces:
            raise RefusedError(403, f"User is not authorized in namespace {values.get('namespace')!r}")

    def add(self, kind, values):
        """Keep something new; its name may be taken."""
        if kind != "run":
            self.in_namespace(values)
        held = {"recurring_run": self.schedules}.get(kind) if kind == "recurring_run" else vars(self)[f"{kind}s"]
        if not values.get("display_name"):
            raise RefusedError(400, f"{kind}: display_name is required")
        key = f"{kind}-{len(self.calls)}"
        held[key] = {**values, f"{kind}_id": key, "created_at": f"2026-01-01T00:00:{len(self.calls) % 60:02}Z"}
        return held[key]

    def add_pipeline(self, values):
        if not values.get("name"):
            raise RefusedError(400, "name is required")
        names = [(pipeline["name"], pipeline.get("namespace")) for pipeline in self.pipelines.values()]
        if (values["name"], values.get("namespace")) in names:
            raise RefusedError(409, "Already exist error")
        return self.add("pipeline", values)

    def upload(self, query, body, content_type):
        pipeline = self.found(self.pipelines, query["pipelineid"])
        if any(v["name"] == query["name"] for v in self.versions.values() if v["pipeline_id"] == query["pipelineid"]):
            raise RefusedError(409, "Already exist error")
        message = email.message_from_bytes(f"Content-Type: {content_type}\r\n\r\n".encode() + body)
        data = message.get_payload()[0].get_payload(decode=True)
        json_format.ParseDict(next(yaml.safe_load_all(data)), pipeline_spec_pb2.PipelineSpec())
        key = f"version-{len(self.calls)}"
        ids = {"pipeline_id": pipeline["pipeline_id"], "pipeline_version_id": key}
        self.versions[key] = {**ids, "name": query["name"], "display_name": query["name"]}
        self.packages[key] = data
        return self.versions[key]

    def sourced(self, values):
        """A run needs an experiment, and either a version or a package."""
        self.found(self.experiments, values["experiment_id"])
        reference, spec = values.get("pipeline_version_reference"), values.get("pipeline_spec")
        if bool(reference) == bool(spec):
            raise RefusedError(400, "exactly one of pipeline_spec and pipeline_version_reference is required")
        if reference:
            version = self.found(self.versions, reference["pipeline_version_id"])
            if version["pipeline_id"] != reference["pipeline_id"]:
                raise RefusedError(400, "the version is another pipeline's")
        else:
            json_format.ParseDict(spec.get("pipeline_spec", spec), pipeline_spec_pb2.PipelineSpec())

    def add_run(self, values):
        self.sourced(values)
        return self.add("run", {**values, "state": "PENDING"})

    def add_schedule(self, values):
        self.sourced(values)
        if not 1 <= int(values["max_concurrency"]) <= 10:
            raise RefusedError(400, "Max concurrency must be at least 1 and at most 10")
        if len(values["trigger"]["cron_schedule"]["cron"].split()) != 6:
            raise RefusedError(400, "Schedule cron is not a supported format")
        namespace = self.experiments[values["experiment_id"]].get("namespace")
        made = self.add("recurring_run", {**values, "namespace": namespace})
        self.enabled_at_once = max(self.enabled_at_once, len(self.enabled()))
        return {**made, "max_concurrency": str(made["max_concurrency"])}

    def look(self, key):
        run = self.found(self.runs, key)
        looks = self.looks[key] = self.looks.get(key, 0) + 1
        run["state"] = self.course[min(looks, len(self.course)) - 1]
        if run["state"] == "FAILED":
            run["error"] = {"code": 13, "message": "search-gates ended\nwith code 1"}
        details = [
            {
                "run_id": key,
                "task_id": f"task-{task}",
                "display_name": task,
                "state": state,
                "start_time": "2026-01-01T00:00:00Z",
                **({"end_time": "2026-01-01T00:01:10Z"} if state == "SUCCEEDED" else {}),
            }
            for task, state in dict(self.task_course[:looks]).items()
        ]
        return {**run, "run_details": {"task_details": details}} if details else run


def check(value, kind, where):
    """Refuse a value that is not of a type as ``openapi_types`` of the API's models name it."""

    def require(condition, reason):
        if not condition:
            raise RefusedError(400, f"{where}: {reason} (got {value!r})")

    if kind in PLAIN:
        ok = isinstance(value, PLAIN[kind]) or (where.rpartition(".")[2] in INT64 and isinstance(value, int))
        require(ok, f"must be {kind}")
    elif kind == "datetime":
        datetime.fromisoformat(value)
    elif found := re.fullmatch(r"list\[(.*)\]", kind):
        for i, item in enumerate(value):
            check(item, found[1], f"{where}[{i}]")
    elif found := re.fullmatch(r"dict\(str, (.*)\)", kind):
        for name, item in value.items():
            check(item, found[1], f"{where}[{name}]")
    elif hasattr(model := getattr(kfp_server_api, kind), "allowable_values"):
        require(value in model.allowable_values, f"must be one of {model.allowable_values}")
    else:
        require(isinstance(value, dict), "must be an object")
        types = {model.attribute_map[name]: type_ for name, type_ in model.openapi_types.items()}
        for name, item in value.items():
            require(name in types, f"unknown field {name}")
            check(item, types[name], f"{where}.{name}")


def send(request, status, body, kind="application/json"):
    data = (body if isinstance(body, str) else json.dumps(body)).encode("utf-8", "surrogateescape")
    request.send_response(status)
    request.send_header("Content-Type", kind)
    request.send_header("Content-Length", str(len(data)))
    request.end_headers()
    request.wfile.write(data)
