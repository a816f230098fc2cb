"""Latency of networks on this machine's CPU at batch size 1, measured side by side."""

from pfs_core.latency.benchmark import benchmark

__all__ = ["benchmark"]
