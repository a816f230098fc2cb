"""The page people look at: figures, a table and a verdict, from the folders that the steps wrote."""

from pfs_core.report.loading import load_results
from pfs_core.report.page import write_report
from pfs_core.report.results import Results

__all__ = ["Results", "load_results", "write_report"]
