"""The pipeline on this machine: ``kfp.local`` runs the same definition that is compiled for a cluster.

Run as ``python -m pfs_pipelines.local REQUEST.json PARENT`` in a process of its own, whose output is the full log and
which ends with the process PARENT that has started it; see :mod:`pfs_pipelines.run` for what the user sees.
"""

import logging
import os
import shutil
import signal
import ssl
import sys
import threading
import time
from pathlib import Path
from typing import Any
from urllib.error import HTTPError, URLError

from pfs_pipelines import forked

from pfs_core.errors import UserError
from pfs_core.runtime.environment import mlflow_address
from pfs_core.runtime.progress import STOPPED, user_errors
from pfs_core.storage.artifacts import COMPLETE, read_json, write_json
from pfs_core.storage.local import is_there

logger = logging.getLogger(__package__)

_LEAST_FREE = 2**30  # bytes
_ANSWER_SECONDS = 5
_LOOK_SECONDS = 0.5
RESULTS = {"split": "split", "gates": "search", "structures": "structure", "latency": "latency", "report": "report"}
"""The name of each result, and what kind of folder it is (:func:`pfs_core.storage.artifacts.require_result`)."""


def check(arguments: dict[str, Any], root: Path) -> None:
    """Check what can be checked before anything is started; raises UserError for what is wrong."""
    from pfs_core.config.request import CompressRequest
    from pfs_core.steps import preflight

    check_disk(root)
    check_mlflow(os.environ.get("MLFLOW_TRACKING_URI", ""))
    preflight.check(CompressRequest.from_arguments(arguments))


def first_lines(arguments: dict[str, Any]) -> list[str]:
    """Return what the run will take; just what is asked where the dataset is in object storage, and listing it slow."""
    from pfs_core.config.request import CompressRequest
    from pfs_core.steps.plan import plan, title

    request = CompressRequest.from_arguments(arguments)
    return [title(request)] if request.dataset.startswith("s3://") else plan(request).lines()


def check_disk(root: Path) -> None:
    """Raise UserError unless there is room for the results of a run."""
    place = next(folder for folder in (root, *root.parents) if is_there(folder))
    if (free := shutil.disk_usage(place).free) < _LEAST_FREE:
        raise UserError(
            f"{place} has {free / 2**30:.1f} GiB left on its disk, and a run may need {_LEAST_FREE / 2**30:.0f} GiB; "
            "make room, or name another folder with --out"
        )


def check_mlflow(uri: str) -> None:
    """Raise UserError if ``uri`` is of a server that does not answer; later on, a run gets by without it."""
    from http.client import HTTPException, InvalidURL
    from urllib.request import urlopen

    address = mlflow_address(uri)
    if address.scheme not in ("http", "https"):
        return
    shown = address._replace(netloc=address.netloc.rpartition("@")[2])
    try:
        urlopen(shown._replace(path=f"{address.path.rstrip('/')}/health").geturl(), timeout=_ANSWER_SECONDS).close()  # noqa: S310
        return
    except HTTPError:
        return  # it answers, and says later what it does not like
    except (InvalidURL, OSError, ValueError) as e:
        if _is_https(e):
            return  # it answers, and MLflow has settings of its own for whom to trust
        reason = str(getattr(e, "reason", e))
    except HTTPException:
        reason = "what is there does not speak HTTP"
    raise UserError(
        f"MLflow at {shown.geturl()} does not answer ({reason}); start it, or unset MLFLOW_TRACKING_URI to keep the "
        "runs here"
    )


def _is_https(error: Exception) -> bool:
    """Whether a server of HTTPS has answered, with which this process does not come to terms over certificates."""
    cause = error.reason if isinstance(error, URLError) else error
    return isinstance(cause, ssl.SSLError) and cause.reason != "WRONG_VERSION_NUMBER"  # which is that of HTTP


def run(arguments: dict[str, Any], root: Path, artifact_root: Path) -> None:
    """Run the pipeline below ``root`` and write ``root/outputs.json``: the folder of each result."""
    from kfp import local
    from pfs_pipelines.compress import define
    from pfs_pipelines.pools import Placement, for_form

    from pfs_core import tracking

    forked.call(tracking.make_experiment, artifact_root, arguments["model"])
    try:
        local.init(local.SubprocessRunner(use_venv=False), pipeline_root=str(root))
        define(Placement(local=True))(**for_form(arguments))
    except SystemExit:
        tracking.close_pipeline(succeeded=False, stopped=True)
        raise
    except BaseException:
        tracking.close_pipeline(succeeded=False)
        raise
    write_json(root / "outputs.json", results(root))


def results(root: Path) -> dict[str, str]:
    """The folder of each result of a pipeline that ran below ``root``, where the last attempt has come to its end.

    It is relative to ``root``: whoever moves the results on may find the folder of the runs in another place.
    kfp names the folder of an attempt after the time, so that what the last one has made takes the place of what is
    left of those before.
    """
    found: dict[str, str] = {}
    for folder in (path.parent for path in sorted(root.rglob(COMPLETE))):
        place = str(folder.relative_to(root))
        if (folder / "metrics.json").exists():  # a model has a structure.json too
            found[f"model-{read_json(folder / 'metrics.json')['network']}"] = place
        else:
            found |= {name: place for name, kind in RESULTS.items() if (folder / f"{kind}.json").exists()}
    return found


def end_with(parent: int, thread: int) -> None:
    """Wait until ``parent`` is not the parent of this process any more, and send SIGTERM to one of its threads."""
    while os.getppid() == parent:
        time.sleep(_LOOK_SECONDS)
    signal.pthread_kill(thread, signal.SIGTERM)


def main() -> None:
    """Read the request, check it and run it; SIGTERM or the end of its parent end it with its runs in MLflow closed.

    An exception in this thread would wait for the threads in which kfp runs the steps of a loop, so that SIGTERM goes
    to the steps themselves once there are some.
    """
    signal.signal(signal.SIGTERM, lambda number, frame: sys.exit(STOPPED))
    threading.Thread(target=end_with, args=(int(sys.argv[2]), threading.get_ident()), daemon=True).start()
    request = read_json(sys.argv[1])
    forked.start()
    with user_errors():
        check(request["arguments"], Path(request["root"]))
        arguments = request["arguments"]
        for line in first_lines(arguments):
            logger.info(line)
        logger.info(f"full log: {request['log']}")
    signal.signal(signal.SIGTERM, lambda number, frame: forked.stop())
    run(request["arguments"], Path(request["root"]), Path(request["artifact_root"]))
    sys.stdout.flush()
    sys.stderr.flush()
    os._exit(0)  # all is written, and taking apart what was imported would take seconds


if __name__ == "__main__":
    main()
