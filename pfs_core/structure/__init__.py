"""The structure file, the cut of gates at a budget, and the structures that a search is compared with."""

from pfs_core.structure.proved import refuted_once
from pfs_core.structure.structure import FILES, Structure, extract, unexpanded_graph

__all__ = ["FILES", "Structure", "extract", "refuted_once", "unexpanded_graph"]
