"""Learning one gate a channel on frozen random weights."""

from pfs_core.search.folder import load_gates
from pfs_core.search.gates import Gates
from pfs_core.search.loop import search

__all__ = ["Gates", "load_gates", "search"]
