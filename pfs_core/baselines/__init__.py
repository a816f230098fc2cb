"""Structures to compare a search against; each baseline is a chooser of widths over the same channel graph."""

from pfs_core.baselines.uniform import dense, expanded, uniform

__all__ = ["dense", "expanded", "uniform"]
