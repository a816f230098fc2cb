"""A network as the runtimes are given it: a folder with its structure, its weights and, once made, its exports."""

from functools import lru_cache
from pathlib import Path

import torch
from safetensors.torch import load_file, save_file
from torch import nn
from torch.nn.modules.batchnorm import _BatchNorm

from pfs_core.structure import Structure


def write_network(structure: Structure, folder: Path, seed: int) -> None:
    """Write a freshly initialised network of this structure; latency does not depend on what the weights are.

    The statistics of BatchNorm are those of some noise, so that activations are of the usual size: numbers that fade
    from layer to layer would become denormal, and slow.
    """
    torch.manual_seed(seed)
    model = structure.build()
    norms = [module for module in model.modules() if isinstance(module, _BatchNorm)]
    for norm in norms:
        norm.reset_running_stats()
        norm.momentum = None  # the average of all batches, here of one
    with torch.no_grad():
        model.train()(torch.randn(8, *structure.model.input_shape))
    folder.mkdir()
    structure.save(folder / "structure.json")
    save_file(model.state_dict(), folder / "model.safetensors")


@lru_cache(maxsize=8)
def read_network(folder: Path) -> nn.Module:
    """The network of :func:`write_network`, in evaluation mode; to be copied by whoever runs it."""
    model = Structure.load(folder / "structure.json").build()
    model.load_state_dict(load_file(folder / "model.safetensors"))
    return model.eval()


def input_shape(folder: Path) -> tuple[int, int, int]:
    """Channels, height, width of its images."""
    return Structure.load(folder / "structure.json").model.input_shape
