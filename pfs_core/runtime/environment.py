"""What a step reads from environment variables: servers, credentials, cache folders and the version of the code."""

import os
import shutil
import subprocess
import uuid
from functools import cache
from pathlib import Path
from urllib.parse import SplitResult, urlsplit

from pfs_core.errors import UserError

SERVERS = (
    "MLFLOW_TRACKING_URI",
    "MLFLOW_UI_URL",
    "MLFLOW_EXPERIMENT_NAME",
    "MLFLOW_TRACKING_SERVER_CERT_PATH",
    "MLFLOW_S3_ENDPOINT_URL",
    "AWS_ENDPOINT_URL",
    "AWS_DEFAULT_REGION",
    "AWS_REQUEST_CHECKSUM_CALCULATION",
    "AWS_CA_BUNDLE",
)
"""Variables that say where servers are and how to reach them; none of them is a secret."""
SECRETS = (
    "AWS_ACCESS_KEY_ID",
    "AWS_SECRET_ACCESS_KEY",
    "AWS_SESSION_TOKEN",
    "MLFLOW_TRACKING_USERNAME",
    "MLFLOW_TRACKING_PASSWORD",
    "MLFLOW_TRACKING_TOKEN",
)
"""Variables that hold credentials."""


OURS = "PFS_"
"""Stands before the names of MLflow's variables in the pods of a package (:func:`in_a_pod`)."""
MLFLOW_LOGIN = ("MLFLOW_TRACKING_USERNAME", "MLFLOW_TRACKING_PASSWORD", "MLFLOW_TRACKING_TOKEN", "MLFLOW_TRACKING_AUTH")

_OF_A_SERVER = (
    "MLFLOW_UI_URL",
    "MLFLOW_TRACKING_SERVER_CERT_PATH",
    "MLFLOW_S3_ENDPOINT_URL",
    "MLFLOW_EXPERIMENT_NAME",
)
"""Variables that are of one MLflow server and of no other."""


def in_a_pod(name: str) -> str:
    """Return the name of a variable of :data:`SERVERS` or :data:`SECRETS` in the pods of a package's steps.

    Kubeflow's MLflow plugin may set MLflow's own names there; a pod in which both do is refused.

    >>> in_a_pod("MLFLOW_TRACKING_URI"), in_a_pod("AWS_ENDPOINT_URL")
    ('PFS_MLFLOW_TRACKING_URI', 'AWS_ENDPOINT_URL')
    """
    return f"{OURS}{name}" if name.startswith("MLFLOW_") else name


def is_kubeflows(run: str) -> bool:
    """Return whether an id in ``KFP_RUN_ID`` is one of Kubeflow, and not that of a local run, which has more to it."""
    try:
        return str(uuid.UUID(run)) == run
    except ValueError:
        return False


def adopt_mlflow() -> None:
    """Give MLflow's variables their own names, as far as nobody else has set them.

    What Kubeflow's plugin has set wins. What belongs to our server is left out where the plugin names another address,
    and our login where it brings one.
    """
    ours = {n: os.environ[in_a_pod(n)] for n in (*SERVERS, *SECRETS) if in_a_pod(n) != n and in_a_pod(n) in os.environ}
    not_theirs: set[str] = set()
    if not mlflow_is_ours():
        not_theirs |= {*MLFLOW_LOGIN, *_OF_A_SERVER}
    if any(name in os.environ for name in MLFLOW_LOGIN):
        not_theirs |= set(MLFLOW_LOGIN)
    ours = {name: value for name, value in ours.items() if name not in not_theirs}
    for name, value in ours.items():
        os.environ.setdefault(name, value)


def mlflow_is_ours() -> bool:
    """Return whether the MLflow in use is the one that the package names, or the package names none."""
    ours = os.environ.get(in_a_pod("MLFLOW_TRACKING_URI"))
    return ours is None or os.environ.get("MLFLOW_TRACKING_URI", ours).rstrip("/") == ours.rstrip("/")


def mlflow_address(uri: str) -> SplitResult:
    """Return the parts of the address in ``MLFLOW_TRACKING_URI``, which may hold a login; UserError if it is none."""
    try:
        return urlsplit(uri)
    except ValueError as e:
        raise UserError(f"MLFLOW_TRACKING_URI is no address ({e}); write for example http://localhost:5000") from None


def cache_folder(variable: str) -> Path:
    """Return the folder for files that can be made or downloaded again.

    Args:
        variable: the environment variable that names it; where that is not set, it is ``~/.cache/pfs``.
    """
    return Path(os.environ.get(variable) or Path.home() / ".cache" / "pfs")


@cache
def git_commit() -> str:
    """Return the commit of the code: ``PFS_GIT_COMMIT``, which an image sets, or that of the current folder.

    It is empty where neither is known.
    """
    if given := os.environ.get("PFS_GIT_COMMIT"):
        return given
    if not (git := shutil.which("git")):
        return ""
    done = subprocess.run([git, "rev-parse", "HEAD"], capture_output=True, text=True, check=False)  # noqa: S603
    return done.stdout.strip() if done.returncode == 0 else ""


def code() -> dict[str, str]:
    """Return ``git_commit`` and ``image`` of the code that runs, without those that are not known."""
    known = {"git_commit": git_commit(), "image": os.environ.get("PFS_IMAGE", "")}
    return {key: value for key, value in known.items() if value}
