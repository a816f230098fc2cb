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
