"""Tables of text are aligned, and no character in them means something to their readers."""

from pfs_core.rendering.tables import latex_table, markdown_table, text_table

HEADER, ROWS = ("network", "MACs"), [("dense", "1,000"), ("pruned", "5.10")]


def test_a_table_for_the_terminal_is_aligned():
    assert text_table(HEADER, ROWS) == ["network   MACs", "dense    1,000", "pruned    5.10"]


def test_markdown_aligns_numbers_to_the_right():
    assert markdown_table(HEADER, ROWS) == [
        "| network   |   MACs |",
        "|:----------|-------:|",
        "| dense     |  1,000 |",
        "| pruned    |   5.10 |",
    ]


def test_latex_leaves_no_character_that_means_something_to_tex():
    table = latex_table(["a_b", "50%"], [[r"\x{y}", "~1^2 & $3 #4"]])
    header, row = (line.replace(" ", "") for line in table.splitlines() if line.endswith(r"\\"))
    assert header == r"a\_b&50\%\\"
    assert row == r"\textbackslash{}x\{y\}&\textasciitilde{}1\^{}2\&\$3\#4\\"
