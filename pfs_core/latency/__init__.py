"""Latency of networks on this machine's CPU measured side by side."""

from pfs_core.latency.benchmarking import benchmark

__all__ = ["benchmark"]
