"""The address of Kubeflow Pipelines, and the credentials for it from the environment or a file of the pod."""

import os
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

from kfp.client.token_credentials_base import TokenCredentialsBase

from pfs_core.errors import UserError

ENDPOINT, UI = "KF_PIPELINES_ENDPOINT", "KF_PIPELINES_UI_ENDPOINT"
TOKEN, COOKIES, TOKEN_FILE = "KF_PIPELINES_TOKEN", "KF_PIPELINES_COOKIES", "KF_PIPELINES_SA_TOKEN_PATH"
IN_CLUSTER = "http://ml-pipeline.kubeflow.svc.cluster.local:8888"
_POD_TOKEN = "/var/run/secrets/kubeflow/pipelines/token"  # noqa: S105 - a path


def endpoint_of(given: str) -> str:
    """Return the address of the API.

    It is the one that the user gave, else that of the environment variable, else, in a pod, the service of the cluster.

    Raises:
        UserError: there is none, it is not an http(s) address, or it holds a password.
    """
    endpoint = (given or os.environ.get(ENDPOINT, "")).strip().rstrip("/")
    if not endpoint:
        if "KUBERNETES_SERVICE_HOST" in os.environ:
            return IN_CLUSTER
        raise UserError(f"no Kubeflow Pipelines to talk to; give --endpoint URL or set {ENDPOINT}")
    try:
        parts = urlsplit(endpoint)
        valid = parts.scheme in ("http", "https") and parts.hostname and parts.port != 0 and " " not in endpoint
    except ValueError:
        valid = False
    if not valid or any(sign in endpoint for sign in "@?#"):
        wanted = "https://HOST/pipeline or http://HOST:PORT, without password, ? and #"
        raise UserError(f"the endpoint must be an address such as {wanted}; credentials go to {TOKEN} or {COOKIES}")
    return endpoint


def credentials(in_cluster: bool) -> dict[str, Any]:
    """Return the arguments of ``kfp.Client`` that identify the user.

    Args:
        in_cluster: whether the address is that of the service in the cluster of this pod, to which the token file that
            Kubeflow mounts in pods may be sent.

    Raises:
        UserError: a token or cookie has characters that cannot be sent, or a token file cannot be read.
    """
    arguments: dict[str, Any] = {}
    if cookies := _sendable(os.environ.get(COOKIES, ""), COOKIES, " "):
        arguments["cookies"] = cookies
    if token := _sendable(os.environ.get(TOKEN, ""), TOKEN):
        return {**arguments, "existing_token": token}
    path = os.environ.get(TOKEN_FILE) or (_POD_TOKEN if in_cluster and Path(_POD_TOKEN).exists() else "")
    return {**arguments, "credentials": _TokenFile(Path(path))} if path else arguments


def secrets() -> list[str]:
    """Return the texts that no message may show: tokens, cookies, and the values within cookies."""
    token, cookies = os.environ.get(TOKEN, "").strip(), os.environ.get(COOKIES, "").strip()
    values = [token, cookies]
    path = Path(os.environ.get(TOKEN_FILE) or _POD_TOKEN)
    if path.is_file() and os.access(path, os.R_OK):
        values.append(path.read_text(encoding="utf-8", errors="replace").strip())
    values += [cookie.strip().partition("=")[2] for cookie in cookies.split(";")]
    # Shorter values are no secrets, and hiding them would garble ordinary words.
    return [value for value in values if len(value) >= 6]


def _sendable(text: str, source: str, also: str = "") -> str:
    """Strip a value, and check that it has only characters that a header can have, or those in ``also``.

    Raises:
        UserError: it has others; ``source`` is what the message calls the value.
    """
    text = text.strip()
    if not all("!" <= letter <= "~" or letter in also for letter in text):
        raise UserError(f"{source} holds characters that no header can (a line break?); set it to the value alone")
    return text


class _TokenFile(TokenCredentialsBase):
    """Sends the token in a file. The file is read again for every request, since Kubernetes renews such tokens."""

    def __init__(self, path: Path) -> None:
        self._path = path
        self._token()

    def refresh_api_key_hook(self, config: Any) -> None:
        """Put the token into the configuration of the client, which calls this before every request."""
        config.api_key["authorization"] = self._token()

    def _token(self) -> str:
        try:
            return _sendable(self._path.read_text(encoding="utf-8"), str(self._path))
        except (OSError, UnicodeDecodeError):
            raise UserError(f"{TOKEN_FILE}: the token file {self._path} cannot be read") from None
