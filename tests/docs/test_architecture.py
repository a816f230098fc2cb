"""The page on the architecture says which packages there are, in the order in which they import each other."""

import re
import tomllib
from pathlib import Path

ROOT = Path(__file__).parents[2]


def listed():
    """The entries below ``pfs_core/`` in the block of the section on folders, in order."""
    page = (ROOT / "docs/architecture.md").read_text()
    section = page.partition("\n## Folders\n")[2].partition("\n## ")[0]
    block = section.split("```")[1].partition("\npfs_core/")[2]
    return re.findall(r"^  ([\w.]+/?) ", block, re.MULTILINE)


def test_the_folders_are_those_of_the_tree():
    library = ROOT / "pfs_core"
    packages = {f"{path.parent.name}/" for path in library.glob("*/__init__.py")}
    modules = {path.name for path in library.glob("*.py")} - {"__init__.py"}
    assert sorted(listed()) == sorted(packages | modules)


def test_they_are_in_the_order_of_their_layers():
    contracts = tomllib.loads((ROOT / "pyproject.toml").read_text())["tool"]["importlinter"]["contracts"]
    (layers,) = (contract["layers"] for contract in contracts if contract["type"] == "layers")
    layer = {name.strip().removeprefix("pfs_core."): i for i, names in enumerate(layers) for name in names.split(":")}
    found = [layer[re.sub(r"/$|\.py$", "", name)] for name in listed()]
    assert found == sorted(found)
