"""The steps as Kubeflow components, one per file: a signature, a docstring and one call into pfs_core."""

from pfs_components.benchmark_latency import benchmark_latency
from pfs_components.check_request import check_request
from pfs_components.close_run import close_run
from pfs_components.compare_budgets import compare_budgets
from pfs_components.compare_methods import compare_methods
from pfs_components.extract_structure import extract_structure
from pfs_components.find_requests import find_requests
from pfs_components.finish_request import finish_request
from pfs_components.plan_comparison import plan_comparison
from pfs_components.report import report
from pfs_components.retrain import retrain
from pfs_components.search_gates import search_gates
from pfs_components.split_data import split_data

__all__ = [
    "benchmark_latency",
    "check_request",
    "close_run",
    "compare_budgets",
    "compare_methods",
    "extract_structure",
    "find_requests",
    "finish_request",
    "plan_comparison",
    "report",
    "retrain",
    "search_gates",
    "split_data",
]
