"""The steps as the command line and the pipeline run them."""

from pfs_core.config.overrides import STAGES, parse_settings
from pfs_core.steps.folders import confusion, structure_file
from pfs_core.steps.lifecycle import check, close, find_requests, finish_request, plan_comparison
from pfs_core.steps.reporting import compare, compare_methods, report
from pfs_core.steps.training_steps import benchmark, extract, retrain, search, split

__all__ = [
    "STAGES",
    "benchmark",
    "check",
    "close",
    "compare",
    "compare_methods",
    "confusion",
    "extract",
    "find_requests",
    "finish_request",
    "parse_settings",
    "plan_comparison",
    "report",
    "retrain",
    "search",
    "split",
    "structure_file",
]
