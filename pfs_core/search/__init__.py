"""Learning one gate a channel on frozen random weights."""

from pfs_core.search.gates import Gates
from pfs_core.search.loop import load_gates, search

__all__ = ["Gates", "load_gates", "search"]
