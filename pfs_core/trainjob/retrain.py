"""A retraining as a TrainJob: upload the inputs, follow the job, download the model."""

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import pfs_core
from pfs_core.storage import open_storage
from pfs_core.storage.artifacts import check_out
from pfs_core.storage.digests import file_digest, json_digest
from pfs_core.training.metrics import TrainingMetrics
from pfs_core.trainjob.launch import Cluster, follow
from pfs_core.trainjob.manifest import TrainJob, manifest
from pfs_core.trainjob.shared import get_folder, has_folder, put_job


def retrain_on_cluster(
    job: TrainJob,
    structure: Path,
    split: Path,
    out: Path,
    settings: Mapping[str, Any],
    run_id: str = "",
    initial: Path | None = None,
) -> TrainingMetrics:
    """Train a structure on the nodes of a cluster and write the ``model`` folder.

    The job's name and the place of its files are derived from the inputs, the image and the version, so that a
    restarted launcher finds them.

    Args:
        job: where and on how many nodes.
        structure: a structure file.
        split: a ``split`` folder.
        out: the folder to write.
        settings: ``recipe``, ``settings`` and ``seed`` of :func:`pfs_core.steps.retrain`.
        run_id: the MLflow run that the training is recorded in; empty for a new one.
        initial: a file with the weights to start from; None for fresh ones.

    Returns:
        The content of ``metrics.json``.

    Raises:
        UserError: the shared address cannot be written, or as :func:`pfs_core.trainjob.launch.follow`.
        JobFailedError: the job failed.
    """
    check_out(out, "metrics")
    program = {"version": pfs_core.__version__, "image": job.image}
    inputs = {"structure": file_digest(structure), "split": file_digest(split / "split.json"), **program, **settings}
    inputs |= {"initial": file_digest(initial)} if initial else {}
    key = json_digest(inputs, 16)
    address = f"{job.shared.rstrip('/')}/{key}"
    put_job(open_storage(address), structure, split, settings, initial)
    model = f"{address}/model"
    body = manifest(job, f"pfs-retrain-{key}", address, run_id)
    follow(Cluster(job.namespace), body, has_result=lambda: has_folder(model))
    get_folder(model, out, "metrics")
    return TrainingMetrics.load(out / "metrics.json")
