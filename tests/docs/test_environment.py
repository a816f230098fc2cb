"""The table of environment variables has those that the code reads."""

import re
from pathlib import Path

ROOT = Path(__file__).parents[2]


def test_every_variable_of_ours_is_in_the_table():
    code = [
        path.read_text() for folder in ("pfs_core", "pipelines", "components") for path in (ROOT / folder).rglob("*.py")
    ]
    read = {name for text in code for name in re.findall(r"\"(PFS_[A-Z_]+)\"", text)}
    table = (ROOT / "docs" / "using.md").read_text().partition("## The environment")[2]
    assert read == set(re.findall(r"`(PFS_[A-Z_]+)`", table))
