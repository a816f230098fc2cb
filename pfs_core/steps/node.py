"""The program of every process of a TrainJob: ``torchrun --max-restarts 3 -m pfs_core.steps.node ADDRESS``.

The inputs are read from below ADDRESS; the checkpoints and the model are written there.
"""

import hashlib
import json
import os
import sys
import tempfile
import time
from pathlib import Path

from pfs_core import steps
from pfs_core.runtime.logs import first_process
from pfs_core.runtime.progress import user_errors
from pfs_core.storage import open_storage
from pfs_core.structure.inherited_weights import FILE as INHERITED
from pfs_core.tracking.refused import switch_off_if_refused
from pfs_core.training.finished import ROOT, until_safe
from pfs_core.trainjob.shared import JOB, get_file, get_folder, put_folder


def run(address: str, scratch: Path) -> None:
    """Train the structure at ``address`` on its split; process 0 uploads the model.

    Args:
        address: a path or ``s3://`` address that all nodes can reach.
        scratch: a folder on the disk of this node, which its processes share.
    """
    inputs = scratch / hashlib.sha256(address.encode()).hexdigest()[:16]
    if os.environ.get("LOCAL_RANK", "0") == "0":
        fetch(address, inputs)
    # The other processes of the node wait; there is no process group yet that they could wait with.
    while not (inputs / JOB).exists():
        time.sleep(0.1)
    os.environ.setdefault(ROOT, f"{address}/checkpoints")
    job = json.loads((inputs / JOB).read_text())
    out = inputs / "model"
    if first_process():
        switch_off_if_refused()  # the launcher records the result
    with until_safe():  # if the model does not arrive, the next start goes on from the last checkpoint
        steps.retrain(inputs / "structure.json", inputs / "split", out, job["recipe"], job["settings"], job["seed"])
        if first_process():
            put_folder(open_storage(address), "model", out)


def fetch(address: str, inputs: Path) -> None:
    """Copy the inputs to this node, unless an earlier start has done so.

    ``job.json`` is copied last: where it exists, all inputs do.
    """
    if (inputs / JOB).exists():
        return
    inputs.mkdir(parents=True, exist_ok=True)
    for name in ("structure.json", INHERITED):
        get_file(address, name, inputs)
    get_folder(f"{address}/split", inputs / "split", "split")
    get_file(address, JOB, inputs)


if __name__ == "__main__":
    with user_errors():
        run(sys.argv[1], Path(tempfile.gettempdir()) / "pfs")
