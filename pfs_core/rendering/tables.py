"""Tables of text: for the terminal, as Markdown and as LaTeX. The first column is names, the others are numbers."""

from collections.abc import Sequence

from tabulate import tabulate

Cells = Sequence[Sequence[str]]


def text_table(header: Sequence[str], rows: Cells) -> list[str]:
    """Lines of a table for the terminal."""
    return _table([header, *rows], "plain", len(header)).splitlines()


def markdown_table(header: Sequence[str], rows: Cells) -> list[str]:
    """Lines of a table in Markdown."""
    return _table(rows, "pipe", len(header), header).splitlines()


def latex_table(header: Sequence[str], rows: Cells) -> str:
    """A table for a paper, with the rules of the package booktabs; TeX's own characters are escaped."""
    return _table(rows, "latex_booktabs", len(header), header) + "\n"


def _table(rows: Cells, form: str, columns: int, header: Sequence[str] = ()) -> str:
    """The cells as they are: text that looks like a number keeps its digits."""
    sides = ("left", *["right"] * (columns - 1))
    return tabulate(rows, header, tablefmt=form, colalign=sides, disable_numparse=True)
