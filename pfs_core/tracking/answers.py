"""What the answers of a tracking server mean: that it cannot do something now, or that it refuses it."""

from typing import TYPE_CHECKING
from urllib.parse import urlsplit

from pfs_core.errors import one_line

if TYPE_CHECKING:
    from mlflow.exceptions import MlflowException

_NO_JSON = "API request to endpoint was successful but the response body was not in a valid JSON format"
"""What MLflow's client says, as of a server that fails, of a page that a proxy has answered with 200."""


def unsent(error: Exception) -> bool:
    """Whether a call may wait: no answer, a server that cannot do it now, or a login that is not valid any more."""
    from mlflow.exceptions import MlflowException

    if isinstance(error, MlflowException):
        status = _status(error)
        return status >= 500 or status in (401, 403, 408, 429)
    # requests' errors are OSErrors; files go to an object store through boto3
    return isinstance(error, OSError) or type(error).__module__.split(".")[0] in ("botocore", "boto3")


def refusal(error: Exception) -> str:
    """Why the server refused a call, in one line; empty if it has not refused it."""
    from mlflow.exceptions import MlflowException

    if not isinstance(error, MlflowException):
        return ""
    if str(error).startswith(_NO_JSON):
        return "it answers with a web page, perhaps a login"
    status = _status(error)
    return plain(one_line(error))[:300] if 400 <= status < 500 and status not in (408, 429) else ""


def _status(error: "MlflowException") -> int:
    """Return the status of an answer.

    MLflow's client takes whatever comes as JSON without MLflow's own codes for a failure of the server. It is a gateway
    in front of it that answers so, and what it means by it is the status, for which it is asked once more.
    """
    import mlflow
    from mlflow.exceptions import RestException
    from mlflow.utils.credentials import get_default_host_creds
    from mlflow.utils.rest_utils import http_request

    if not isinstance(error, RestException) or "error_code" in error.json:
        return int(error.get_http_status_code())
    try:
        answer = http_request(
            get_default_host_creds(mlflow.get_tracking_uri()),
            "/api/2.0/mlflow/experiments/search",
            "GET",
            raise_on_status=False,
        )
    except Exception:  # as in an outage
        return 503
    return answer.status_code if answer.status_code != 200 else 503


def plain(text: str) -> str:
    """``text`` without the login that the store's address may hold."""
    import mlflow

    login = urlsplit(mlflow.get_tracking_uri()).netloc.rpartition("@")[0]
    return text.replace(f"{login}@", "") if login else text


def server() -> str:
    """The server with a space before it, without a login; empty where the store is none."""
    import mlflow

    uri = urlsplit(mlflow.get_tracking_uri())
    return f" at {uri.scheme}://{uri.netloc.rpartition('@')[2]}" if uri.scheme in ("http", "https") else ""
