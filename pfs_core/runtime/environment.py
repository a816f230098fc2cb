"""What the environment of a step says, wherever it runs: where servers are, how to log in to them, which code it is."""

import os
import shutil
import subprocess
from functools import cache

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
"""None of them is a secret."""
SECRETS = (
    "AWS_ACCESS_KEY_ID",
    "AWS_SECRET_ACCESS_KEY",
    "AWS_SESSION_TOKEN",
    "MLFLOW_TRACKING_USERNAME",
    "MLFLOW_TRACKING_PASSWORD",
    "MLFLOW_TRACKING_TOKEN",
)


@cache
def git_commit() -> str:
    """``PFS_GIT_COMMIT``, as an image says it of itself, else the commit of the current folder; empty without one."""
    if given := os.environ.get("PFS_GIT_COMMIT"):
        return given
    if not (git := shutil.which("git")):
        return ""
    done = subprocess.run([git, "rev-parse", "HEAD"], capture_output=True, text=True, check=False)  # noqa: S603
    return done.stdout.strip() if done.returncode == 0 else ""


def code() -> dict[str, str]:
    """Which code runs: ``git_commit`` and ``image``, as far as they are known."""
    known = {"git_commit": git_commit(), "image": os.environ.get("PFS_IMAGE", "")}
    return {key: value for key, value in known.items() if value}
