"""``report.json``: the report for programs."""

from typing import ClassVar, Literal

from pydantic import Field

from pfs_core.report.network_row import NetworkRow
from pfs_core.report.results import Results
from pfs_core.report.verdict import verdict
from pfs_core.storage.result_file import ResultFile


class ReportSummary(ResultFile):
    """The content of ``report.json``."""

    made_again_by: ClassVar[str] = "write the report again"

    schema_: Literal["pfs.report/2"] = Field(default="pfs.report/2", alias="schema")
    verdict: list[str]
    """The run in a few lines."""
    table: list[NetworkRow]
    figures: dict[str, int | float]
    """The final figures by a flat name."""
    registered: str
    """``NAME/VERSION`` in the model registry; empty if the network is not there."""


def summarise(results: Results, registered: str) -> ReportSummary:
    """The summary of a run."""
    return ReportSummary(
        verdict=verdict(results), table=results.table(), figures=results.figures(), registered=registered
    )
