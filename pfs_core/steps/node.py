"""What every process of a TrainJob runs: ``torchrun -m pfs_core.steps.node ADDRESS``.

The inputs lie below ADDRESS, the checkpoints and the model go there. The first process of a node fetches the inputs to
the node's own disk.
"""

import hashlib
import json
import os
import sys
import tempfile
import time
from pathlib import Path

from pfs_core import steps
from pfs_core.runtime.progress import first_process, user_errors
from pfs_core.storage import open_storage
from pfs_core.structure.inherited_weights import FILE as INHERITED
from pfs_core.training.checkpoints import ROOT
from pfs_core.trainjob.shared import JOB, get_file, get_folder, put_folder


def run(address: str, scratch: Path) -> None:
    """Train the structure at ``address`` on its split; process 0 puts the model there.

    Args:
        address: a path or ``s3://`` address that every node reaches.
        scratch: a folder of this node.
    """
    inputs = scratch / hashlib.sha256(address.encode()).hexdigest()[:16]
    if os.environ.get("LOCAL_RANK", "0") == "0":
        fetch(address, inputs)
    while not (inputs / JOB).exists():
        time.sleep(0.1)
    os.environ.setdefault(ROOT, f"{address}/checkpoints")
    job = json.loads((inputs / JOB).read_text())
    out = inputs / "model"
    steps.retrain(inputs / "structure.json", inputs / "split", out, job["recipe"], job["settings"], job["seed"])
    if first_process():
        put_folder(open_storage(address), "model", out)


def fetch(address: str, inputs: Path) -> None:
    """Copy the inputs here, ``job.json`` last, unless an earlier start has done so."""
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
