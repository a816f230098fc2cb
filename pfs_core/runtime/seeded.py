"""Randomness of libraries that draw from torch's global generator, from a seed of one's own."""

import contextlib
from collections.abc import Iterator

import torch


@contextlib.contextmanager
def seeded(*numbers: int) -> Iterator[None]:
    """Seed torch's generator of the CPU by ``numbers`` while the context lasts; it is afterwards as it was before.

    The generators of GPUs, which dropout draws from, are left alone.
    """
    with torch.random.fork_rng(devices=[]):
        seed_again(*numbers)
        yield


def seed_again(*numbers: int) -> None:
    """Seed torch's generator of the CPU by other ``numbers``, in the context of :func:`seeded`."""
    torch.default_generator.manual_seed(hash(numbers))
