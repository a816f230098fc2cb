"""Training by two processes that torchrun starts, on the CPU."""

import os
import subprocess
import sys
from pathlib import Path

import pyarrow.parquet as pq
import pytest
import torch
from safetensors.torch import load_file

from pfs_core.config.stages import RetrainConfig
from pfs_core.errors import UserError
from pfs_core.runtime.distributed import Ranks
from pfs_core.storage.artifacts import read_json
from pfs_core.training import checkpoints
from pfs_core.training.fit import parallel, with_shared_statistics
from tests.training.ranks import train

ROOT = Path(__file__).parents[2]
SEPARATE = "tests.training.factories:separate"


def trained(network, split, out, *settings, restarts=0, seconds="60"):
    """Run a training by two processes to its end; what it printed."""
    environment = os.environ | {
        "CUDA_VISIBLE_DEVICES": "",
        "OMP_NUM_THREADS": "1",
        "PYTHONPATH": str(ROOT),
        checkpoints.SECONDS: seconds,
    }
    command = [sys.executable, "-m", "torch.distributed.run", "--standalone", "--nproc-per-node=2"]
    command += [f"--max-restarts={restarts}", "--monitor-interval=0.1"]
    command += [str(ROOT / "tests/training/ranks.py"), network, str(split), str(out), *settings]
    done = subprocess.run(command, env=environment, capture_output=True, text=True, check=False, timeout=300)
    assert done.returncode == 0, done.stdout + done.stderr
    return done.stdout


def history(folder):
    return pq.read_table(folder / "history.parquet").to_pylist()


@pytest.mark.parametrize(
    "changes",
    [
        (),
        *(
            pytest.param(settings, marks=pytest.mark.slow)
            for settings in (
                ('augment="randaugment"', "random_erasing=0.5", 'class_weights="balanced"'),
                ('augment="trivialaugment"', "balanced_sampling=true"),
            )
        ),
    ],
)
def test_two_processes_learn_what_one_learns(digits, tmp_path, changes):
    """The gradient of the batch is that of its two shares, of which one has an image more."""
    settings = ("train_on_validation=false", "accumulate=2", "batch_size=127", *changes)
    train(SEPARATE, digits, tmp_path / "one", *settings)
    said = trained(SEPARATE, digits, tmp_path / "two", *settings)
    one, two = history(tmp_path / "one"), history(tmp_path / "two")
    for row, other in zip(one, two, strict=True):
        assert other == pytest.approx(row, rel=1e-4)
    assert one[1]["loss"] < one[0]["loss"]
    ours, theirs = (load_file(tmp_path / name / "model.safetensors") for name in ("one", "two"))
    for name, weights in ours.items():
        torch.testing.assert_close(theirs[name], weights, rtol=1e-3, atol=1e-5)
    metrics = [read_json(tmp_path / name / "metrics.json") for name in ("one", "two")]
    assert [m["processes"] for m in metrics] == [1, 2]
    assert metrics[0]["confusion_matrix"] == metrics[1]["confusion_matrix"]
    assert said.count("epoch 1/2") == 1


@pytest.mark.slow
def test_a_killed_process_is_started_again_and_all_go_on(digits, tmp_path):
    """With BatchNorm, an average of the weights and a validation; bit for bit what an undisturbed training gives."""
    settings = ("ema=0.9", "train_on_validation=false")
    trained("resnet20", digits, tmp_path / "whole", *settings)
    said = trained("resnet20", digits, tmp_path / "out", *settings, "die_at=14", restarts=2, seconds="0")
    assert (tmp_path / "out.died").exists()
    assert "going on from checkpoint" in said
    for name in ("model.safetensors", "best.safetensors", "history.parquet"):
        assert (tmp_path / "out" / name).read_bytes() == (tmp_path / "whole" / name).read_bytes(), name


def test_batches_too_small_for_the_processes_are_refused():
    with pytest.raises(UserError, match=r"retrain.batch_size=8 is of all 3 processes together; give at least 12"):
        parallel(
            torch.nn.Linear(1, 1), torch.device("cpu"), Ranks(0, 3, torch.device("cpu")),
            RetrainConfig(epochs=1, batch_size=8, accumulate=2),
        )  # fmt: skip


def test_shared_statistics_need_gpus():
    with pytest.raises(UserError, match=r"retrain.sync_bn=true needs GPUs"):
        with_shared_statistics(torch.nn.BatchNorm2d(2), torch.device("cpu"))
    model = torch.nn.Sequential(torch.nn.BatchNorm2d(2))
    shared = with_shared_statistics(model, torch.device("cuda"))
    assert type(shared[0]) is torch.nn.SyncBatchNorm
    assert shared[0].weight is model[0].weight
