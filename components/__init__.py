"""The pipeline's steps as Kubeflow components, one a file: a signature, a docstring and one call into pfs_core."""

from components.benchmark_latency import benchmark_latency
from components.extract_structure import extract_structure
from components.report import report
from components.retrain import retrain
from components.search_gates import search_gates
from components.split_data import split_data

__all__ = ["benchmark_latency", "extract_structure", "report", "retrain", "search_gates", "split_data"]
