"""The seed of everything that is random."""

from pfs_core.errors import InvalidError

LARGEST_SEED = 2**32 - 1
"""Every generator takes it: those of Python, NumPy (the older one too) and torch, which are also given some more than
it. Kubeflow's parameters, which are floats, hold it exactly."""


def check_seed(seed: int) -> int:
    """Return a seed; InvalidError if it is no whole number within the bounds."""
    if not isinstance(seed, int) or isinstance(seed, bool) or not 0 <= seed <= LARGEST_SEED:
        raise InvalidError(f"the seed must be a whole number from 0 to {LARGEST_SEED} (got {seed!r})")
    return seed


def part_seed(seed: int, parts: int, number: int) -> int:
    """Return the seed of one of several parts of a search, of its weights and of the order of its images.

    Searches of different seeds have no part in common, and the only part of a search has the seed itself.

    Args:
        seed: the seed of the search.
        parts: how many parts it has.
        number: which of them, counted from 1.

    >>> [part_seed(3, 2, number) for number in (1, 2)], part_seed(3, 1, 1)
    ([6, 7], 3)
    """
    return seed * parts + number - 1
