"""Tables as text: for the terminal, in Markdown and in LaTeX. The first column holds names, the others numbers."""

from collections.abc import Sequence

from tabulate import tabulate

Cells = Sequence[Sequence[str]]


def text_table(header: Sequence[str], rows: Cells) -> list[str]:
    """Return the lines of a table for the terminal.

    >>> for line in text_table(["network", "MACs"], [["dense", "40,813"], ["pruned", "9,870"]]):
    ...     print(line)
    network    MACs
    dense    40,813
    pruned    9,870
    """
    return _table([header, *rows], "plain", len(header)).splitlines()


def markdown_table(header: Sequence[str], rows: Cells) -> list[str]:
    """Return the lines of a table in Markdown."""
    return _table(rows, "pipe", len(header), header).splitlines()


def latex_table(header: Sequence[str], rows: Cells) -> str:
    """Return a table for a paper, with the rules of the package booktabs; TeX's special characters are escaped."""
    return _table(rows, "latex_booktabs", len(header), header) + "\n"


def _table(rows: Cells, form: str, columns: int, header: Sequence[str] = ()) -> str:
    """Return a table of the cells as they are."""
    # Without disable_numparse, text that looks like a number would be parsed, and "0.10" printed as 0.1.
    sides = ("left", *["right"] * (columns - 1))
    text: str = tabulate(rows, header, tablefmt=form, colalign=sides, disable_numparse=True)
    return text
