"""``kfp.Client`` with retries, and with one clear line for every error."""

import contextlib
import io
import json
import os
import warnings
from collections.abc import Callable, Iterator
from typing import Any
from urllib.parse import urlencode

import kfp.client
from kfp_server_api.exceptions import ApiException
from pfs_pipelines.credentials import COOKIES, IN_CLUSTER, TOKEN, UI, credentials, endpoint_of, secrets
from pfs_pipelines.names import check_namespace
from pfs_pipelines.workflow import Pod
from urllib3.exceptions import (
    ConnectTimeoutError,
    HTTPError,
    LocationValueError,
    MaxRetryError,
    NewConnectionError,
    SSLError,
)
from urllib3.util import Retry

from pfs_core.errors import AccessDeniedError, InvalidError, NotFoundError, UnreachableError, UserError
from pfs_core.storage.retry import retried

ATTEMPTS = 4
"""How often a GET request is made that the server fails to answer; requests that change something are made once."""
_FIRST_WAIT = 0.5
_NO_LOG = ("{'error_message':", '{"error_message":', "<!doctype", "<html")
"""What a server answers, as if all were well, where a log is gone."""
_TIMEOUT = (10, 60)  # seconds to connect, to answer


class ServerError(RuntimeError):
    """The server failed, not the user: the command ends with exit code 1. The message is one line."""


class ConflictError(UserError):
    """There is already something of the name that was to be created (409)."""


class ForbiddenError(AccessDeniedError):
    """The credentials are good, but do not allow this (403), as in another namespace."""


class Client(kfp.client.Client):
    """Kubeflow Pipelines at an endpoint.

    Args:
        endpoint: empty for the environment's, or for the cluster that this process runs in.
        namespace: empty for a single-user installation, or for the pod's own.

    Raises:
        UnreachableError: nothing answers at the endpoint; here as in every call.
        AccessDeniedError: credentials are missing, or do not allow the request.
        UserError: no endpoint is given, or it is not one of Kubeflow Pipelines.
        ServerError: the server failed.
    """

    def __init__(self, endpoint: str = "", namespace: str = "") -> None:
        self.endpoint = endpoint_of(endpoint)
        check_namespace("--namespace", namespace)
        self._guarded = False
        known = credentials(in_cluster=self.endpoint == IN_CLUSTER)
        with warnings.catch_warnings(action="ignore", category=FutureWarning):
            super().__init__(
                host=self.endpoint, namespace=namespace, ssl_ca_cert=os.environ.get("SSL_CERT_FILE"), **known
            )
        if namespace:
            self.set_user_namespace(namespace)
        if self.get_kfp_healthz().multi_user and not self.namespace:
            raise InvalidError(f"{self.endpoint} serves many users; say which namespace is yours: --namespace NAME")

    @property
    def namespace(self) -> str:
        """The user's namespace; empty where there is a single user."""
        return self.get_user_namespace() or ""

    def link(self, page: str) -> str:
        """The address of a page of the UI, e.g. ``runs/details/ID``."""
        return f"{(os.environ.get(UI) or self.endpoint).rstrip('/')}/#/{page}"

    def set_user_namespace(self, namespace: str) -> None:
        """Remember the namespace in this process, not in the user's home."""
        self._context_setting["namespace"] = namespace.strip()

    def get_kfp_healthz(self, sleep_duration: int = 0) -> Any:
        """The server's description of itself; the first request, which shows whether it is the right kind of server."""
        if not self._guarded:
            api = self._healthz_api.api_client
            api.request = _readable(api.request)
            api.call_api = self._guard(api.call_api)
            once = Retry(connect=0, read=0, other=0, redirect=3)
            api.rest_client.pool_manager.connection_pool_kw["retries"] = once
            self._guarded = True
        health = self._healthz_api.healthz_service_get_healthz()
        self.has(health, "multi_user")
        return health

    def workflow(self, run_id: str) -> dict[str, Any]:
        """Return ``status`` of the workflow of a run, which names its pods; empty where the server does not tell."""
        try:
            answer = self._get(f"/apis/v1beta1/runs/{run_id}", "object")
            manifest = json.loads(answer["pipeline_runtime"]["workflow_manifest"])
            status: dict[str, Any] = manifest["status"]
        except (NotFoundError, KeyError, TypeError, ValueError):
            return {}
        return status

    def log(self, run_id: str, pod: Pod) -> str:
        """Return the log of a pod of a run; empty where the server has none.

        The API reads what the workflow has archived, by the node's id, and the pod itself, by its name, only where it
        serves many users. The server of the UI, which passes on what is for the API, reads the pod.
        """
        paths = [f"/apis/v1alpha1/runs/{run_id}/nodes/{name}/log" for name in dict.fromkeys(pod)]
        query = {"podname": pod.name, "runid": run_id}
        if self.namespace:
            query["podnamespace"] = self.namespace
        for path in [*paths, f"/k8s/pod/logs?{urlencode(query)}"]:
            with contextlib.suppress(UserError, ServerError):
                text: str = self._get(path, "str") or ""
                if text and not text.lower().startswith(_NO_LOG):
                    return text
        return ""

    def _get(self, path: str, kind: str) -> Any:
        """Return what the server answers to a request that kfp has no method for."""
        api = self._run_api.api_client
        data, *_ = api.call_api(path, "GET", response_type=kind, auth_settings=["Bearer"])
        return data

    def has(self, answer: Any, *fields: str) -> Any:
        """Return ``answer``, which must have these fields.

        Raises:
            InvalidError: it has not, so that this is another kind of server.
        """
        for field in fields:
            if getattr(answer, field, None) is None:
                raise self._foreign(f"its answer has no {field}")
        return answer

    def _guard(self, call: Callable[..., Any]) -> Callable[..., Any]:
        def guarded(path: str, method: str, *arguments: Any, **options: Any) -> Any:
            data_only = options.pop("_return_http_data_only", False)
            options["_request_timeout"] = options.get("_request_timeout") or _TIMEOUT
            attempts = ATTEMPTS if method == "GET" else 1

            def once() -> tuple[Any, int, Any]:
                with self._explained(f"{method} {path}"):
                    result: tuple[Any, int, Any] = call(path, method, *arguments, **options)
                    return result

            data, status, headers = retried(once, lambda e: isinstance(e, ServerError), attempts, _FIRST_WAIT)
            if "html" in (headers.get("Content-Type") or ""):
                raise self._foreign(f"it answers with a web page, perhaps a login; set {TOKEN} or {COOKIES}")
            return data if data_only else (data, status, headers)

        return guarded

    @contextlib.contextmanager
    def _explained(self, request: str) -> Iterator[None]:
        """Turn whatever goes wrong in a request into UserError or ServerError."""
        try:
            yield
        except UserError:
            raise
        except ApiException as e:
            raise self._refusal(e, request) from None
        except MaxRetryError as e:
            raise self._unreachable(e.reason) from None
        except LocationValueError:
            raise InvalidError(f"{self.endpoint} is not an address; check --endpoint") from None
        except HTTPError as e:
            raise ServerError(f"{self.endpoint} broke off at {request} ({type(e).__name__})") from None
        except (ValueError, TypeError, AttributeError, KeyError):  # while kfp reads the answer
            raise self._foreign("its answer cannot be read") from None

    def _refusal(self, error: ApiException, request: str) -> Exception:
        """The error for a status that is not 2xx."""
        said = _said(error.body)
        where = f" in namespace {self.namespace}" if self.namespace else ""
        status = error.status or 0
        if not status or (status == 404 and request.endswith("/healthz")):
            return self._foreign("its answer cannot be read" if not status else "it has no /apis/v2beta1/healthz")
        if status == 429 or status >= 500:
            return ServerError(f"{self.endpoint} failed ({status} at {request}){said}")
        login = f"set {TOKEN} or {COOKIES} to fresh ones"
        refusals: dict[int, Exception] = {
            401: AccessDeniedError(f"{self.endpoint} needs credentials, or different ones (401); {login}"),
            403: ForbiddenError(f"not allowed{where} (403 at {request}){said}; check {TOKEN} and --namespace"),
            404: NotFoundError(f"not found{where} (404 at {request}){said}"),
            409: ConflictError(f"exists already{where} (409 at {request}){said}; choose another name"),
        }
        return refusals.get(status, InvalidError(f"{self.endpoint} refuses ({status} at {request}){said}"))

    def _unreachable(self, reason: Any) -> Exception:
        if isinstance(reason, SSLError):
            return UnreachableError(f"{self.endpoint} cannot be trusted: {_clean(str(reason))}; set SSL_CERT_FILE")
        if isinstance(reason, NewConnectionError | ConnectTimeoutError):
            return UnreachableError(f"nothing answers at {self.endpoint}; check --endpoint and the network")
        return ServerError(f"{self.endpoint} does not answer ({type(reason).__name__})")

    def _foreign(self, reason: str) -> UserError:
        """The error for a server that is something else."""
        return InvalidError(f"{self.endpoint} does not answer as Kubeflow Pipelines 2: {reason}; check --endpoint")


def _readable(request: Callable[..., Any]) -> Callable[..., Any]:
    """Make text of what a server answers, of which logs and proxies' pages need not be all: kfp takes UTF-8 alone."""

    def readable(*arguments: Any, **options: Any) -> Any:
        try:
            answer = request(*arguments, **options)
        except ApiException as e:
            e.body = _utf8(e.body or b"")
            raise
        answer.data = _utf8(answer.data)
        return answer

    return readable


def _utf8(data: bytes) -> bytes:
    return data.decode("utf-8", "replace").encode()


@contextlib.contextmanager
def quiet() -> Iterator[None]:
    """Suppress the links that kfp prints."""
    with contextlib.redirect_stdout(io.StringIO()):
        yield


def equals(field: str, value: str) -> str:
    """A filter of the API for entries whose field has this value."""
    return json.dumps({"predicates": [{"operation": "EQUALS", "key": field, "stringValue": value}]})


def _said(body: str | None) -> str:
    """The server's own message, as ``: message``; empty where it is none."""
    try:
        answer = json.loads(body or "")
        text = answer.get("message") or answer.get("error_message") or answer.get("error") or ""
    except (ValueError, AttributeError):
        return ""
    return f": {_clean(str(text))}" if text else ""


def _clean(text: str) -> str:
    """One line of at most 300 characters without secrets."""
    for secret in secrets():
        text = text.replace(secret, "***")
    text = " ".join(text.split())
    return text if len(text) <= 300 else f"{text[:300]}..."
