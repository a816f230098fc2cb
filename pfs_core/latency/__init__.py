"""The latency of networks on this machine's CPU: measured side by side, or predicted from their widths."""

from pfs_core.latency.benchmarking import benchmark

__all__ = ["benchmark"]
