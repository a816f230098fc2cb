"""Pruning from Scratch (Wang et al. 2020): one gate per channel, learned on frozen random weights."""

from pfs_core.methods.pfs.gates import Gates
from pfs_core.methods.pfs.search import search

__all__ = ["Gates", "search"]
