"""A network in the form that the runtimes take: a folder with its structure, its weights and, later, its exports."""

from functools import lru_cache
from pathlib import Path

import torch
from safetensors.torch import load_file, save_file
from torch import nn

from pfs_core.nn.batch_statistics import recompute_statistics
from pfs_core.nn.weights import weights_of
from pfs_core.structure import Structure


def write_network(structure: Structure, folder: Path, seed: int) -> None:
    """Write a freshly initialised network of this structure: its latency does not depend on the values of the weights.

    It does depend on denormal numbers, which are slow, and which activations that shrink from layer to layer would
    become. So the statistics of BatchNorm are those of a batch of noise, and activations have their usual size.

    Args:
        structure: the network's structure.
        folder: the folder to create.
        seed: the seed of the weights and of the noise.
    """
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        model = structure.build()
        recompute_statistics(model, [torch.randn(8, *structure.model.input_shape)])
    folder.mkdir()
    structure.save(folder / "structure.json")
    save_file(weights_of(model), folder / "model.safetensors")


@lru_cache(maxsize=8)
def read_network(folder: Path) -> nn.Module:
    """Return the network that :func:`write_network` wrote, in evaluation mode. It is cached: do not change it."""
    model = Structure.load(folder / "structure.json").build()
    model.load_state_dict(load_file(folder / "model.safetensors"))
    return model.eval()


def input_shape(folder: Path) -> tuple[int, int, int]:
    """Return channels, height and width of the images that the network in ``folder`` takes."""
    return Structure.load(folder / "structure.json").model.input_shape
