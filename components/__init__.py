"""The pipeline's steps as Kubeflow components, one a file: a signature, a docstring and one call into pfs_core."""

from components.benchmark_latency import benchmark_latency
from components.check_request import check_request
from components.close_run import close_run
from components.compare_budgets import compare_budgets
from components.compare_methods import compare_methods
from components.extract_structure import extract_structure
from components.find_requests import find_requests
from components.finish_request import finish_request
from components.plan_comparison import plan_comparison
from components.report import report
from components.retrain import retrain
from components.search_gates import search_gates
from components.split_data import split_data

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
