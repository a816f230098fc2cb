"""What torchrun starts in tests/training/test_distributed.py: one process of a training.

torchrun ... tests/training/ranks.py NETWORK SPLIT OUT [key=value ...]
"""

import json
import os
import signal
import sys
from pathlib import Path

import torch

from pfs_core.channels import trace
from pfs_core.config.spec import Budget, ModelSpec
from pfs_core.config.stages import RetrainConfig
from pfs_core.models import build_model
from pfs_core.runtime.logs import log_to_terminal
from pfs_core.structure import Structure
from pfs_core.training.loop_state import LoopState
from pfs_core.training.retrain import retrain


def structure(network):
    """The whole of a network for the digits."""
    spec = ModelSpec(name=network, input_shape=(1, 8, 8), num_classes=10)
    graph = trace(build_model(spec), spec.input_shape)
    return Structure.from_widths(spec, graph, graph.widths(), Budget(target=1.0), {"method": "dense"})


def die_once(marker, step):
    """Kill the second process when it has done a step, the first time that it gets there."""
    add = LoopState.add

    def dying(self, sums, rows):
        add(self, sums, rows)
        if self.step == step and os.environ["RANK"] == "1" and not marker.exists():
            marker.touch()
            os.kill(os.getpid(), signal.SIGKILL)

    LoopState.add = dying


def train(network, split, out, *settings):
    """One process of a training, or all of it."""
    values = {key: json.loads(value) for key, value in (pair.split("=") for pair in settings)}
    if step := values.pop("die_at", None):
        die_once(Path(f"{out}.died"), step)
    recipe = RetrainConfig(**{"epochs": 2, "batch_size": 128, "precision": "fp32", "scratch_b": False} | values)
    retrain(structure(network), split, out, recipe, seed=0)


if __name__ == "__main__":
    log_to_terminal()
    torch.set_num_threads(1)
    train(*sys.argv[1:])
