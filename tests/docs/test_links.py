"""Links between the pages lead somewhere, as a forge shows them; make docs checks the same for the site."""

import re
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
PAGES = [ROOT / name for name in ("README.md", "CONTRIBUTING.md", "CHANGELOG.md")] + sorted(ROOT.glob("docs/**/*.md"))
CODE = re.compile(r"^```.*?^```$|``.+?``|`[^`\n]*`", re.MULTILINE | re.DOTALL)
LINK = re.compile(r"\[[^\]]*\]\(([^)\s]+)\)")
HEADING = re.compile(r"^#+ +(.+)$", re.MULTILINE)


def links(page):
    """The links of a page to files and headings; those to elsewhere have a colon."""
    return [target for target in LINK.findall(CODE.sub("", page.read_text())) if ":" not in target]


def anchors(page):
    """The headings of a page as a forge names them in links."""
    text = re.sub(r"^```.*?^```$", "", page.read_text(), flags=re.MULTILINE | re.DOTALL)
    return {re.sub(r"[^\w\- ]", "", heading.lower()).replace(" ", "-") for heading in HEADING.findall(text)}


@pytest.mark.parametrize("page", PAGES, ids=lambda page: str(page.relative_to(ROOT)))
def test_every_link_leads_somewhere(page):
    for target in links(page):
        path, _, anchor = target.partition("#")
        file = page.parent / path if path else page
        assert file.exists(), target
        assert not anchor or anchor in anchors(file), target


def test_files_named_in_the_guide_for_contributors_exist():
    named = re.findall(r"`((?:pfs_core|components|pipelines|tests|benchmarks)/[\w/.]*)`", PAGES[1].read_text())
    assert len(named) > 20
    assert not [name for name in named if not (ROOT / name).exists()]


def test_links_are_found():
    assert "docs/using.md#datasets" in links(ROOT / "README.md")
    assert "datasets" in anchors(ROOT / "docs/using.md")
