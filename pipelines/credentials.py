"""How to reach Kubeflow Pipelines: its address, and the secrets that only the environment and a pod's files hold."""

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
    """The address of the API: what the user gave, else the variable's, else the service in the cluster around us.

    Raises:
        UserError: there is none, or it is not an http(s) address, or it holds a password.
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
    """The arguments of ``kfp.Client`` that say who we are; the token file is read again for every request.

    Raises:
        UserError: a token or cookie could not be sent, or there is no such token file.
    """
    given: dict[str, Any] = {}
    if cookies := _sendable(os.environ.get(COOKIES, ""), COOKIES, " "):
        given["cookies"] = cookies
    if token := _sendable(os.environ.get(TOKEN, ""), TOKEN):
        return {**given, "existing_token": token}
    path = os.environ.get(TOKEN_FILE) or (_POD_TOKEN if in_cluster and Path(_POD_TOKEN).exists() else "")
    return {**given, "credentials": _TokenFile(Path(path))} if path else given


def secrets() -> list[str]:
    """What no message may show."""
    path = Path(os.environ.get(TOKEN_FILE) or _POD_TOKEN)
    held = [os.environ.get(TOKEN, ""), os.environ.get(COOKIES, "")]
    if path.is_file() and os.access(path, os.R_OK):
        held.append(path.read_text(encoding="utf-8", errors="replace"))
    values = [secret.strip() for secret in held]
    values += [part.strip().partition("=")[2] for part in values[1].split(";")]
    return [value for value in values if len(value) >= 6]  # what is shorter is a word like any


def _sendable(text: str, source: str, but: str = "") -> str:
    text = text.strip()
    if not all("!" <= letter <= "~" or letter in but for letter in text):
        raise UserError(f"{source} holds characters that no header can (a line break?); set it to the value alone")
    return text


class _TokenFile(TokenCredentialsBase):
    def __init__(self, path: Path) -> None:
        self._path = path
        self._token()

    def refresh_api_key_hook(self, config: Any) -> None:
        config.api_key["authorization"] = self._token()

    def _token(self) -> str:
        try:
            return _sendable(self._path.read_text(encoding="utf-8"), str(self._path))
        except (OSError, UnicodeDecodeError):
            raise UserError(f"{TOKEN_FILE}: the token file {self._path} cannot be read") from None
