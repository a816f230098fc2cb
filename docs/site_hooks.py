"""What mkdocs needs beside the pages of this folder: the pages of the root folder, and links that stay on the site."""

import re
from pathlib import Path, PurePosixPath

from mkdocs.config.defaults import MkDocsConfig
from mkdocs.structure.files import File, Files
from mkdocs.structure.pages import Page

DOCS = Path(__file__).parent
PAGES = {"README.md": "index.md", "CONTRIBUTING.md": "contributing.md", "CHANGELOG.md": "changelog.md"}
"""The files of the root folder that are pages of the site, and what they are called there."""
LINK = re.compile(r"\[(?P<text>[^\]]*)\]\((?P<target>[^):#]+)(?P<anchor>#[^)]*)?\)")


def on_files(files: Files, config: MkDocsConfig) -> Files:
    """Add the pages of the root folder, with links as they are from ``docs/``."""
    for name, page in PAGES.items():
        text = (DOCS.parent / name).read_text(encoding="utf-8")
        files.append(File.generated(config, page, content=LINK.sub(_from_docs, text)))
    return files


def _from_docs(link: re.Match) -> str:
    path = PurePosixPath(link["target"])
    target = path.relative_to("docs") if path.is_relative_to("docs") else "../" / path
    return f"[{link['text']}]({target}{link['anchor'] or ''})"


def on_page_markdown(markdown: str, page: Page, config: MkDocsConfig, files: Files) -> str:
    """Leave of a link to a file that is no part of the site, such as code, the text alone."""
    folder = (DOCS / page.file.src_uri).parent

    def on_site(link: re.Match) -> str:
        path = (folder / link["target"]).resolve()
        if path.parent == DOCS.parent and path.name in PAGES:
            return f"[{link['text']}]({'../' * page.file.src_uri.count('/')}{PAGES[path.name]}{link['anchor'] or ''})"
        outside = not path.is_relative_to(DOCS) or files.get_file_from_path(path.relative_to(DOCS).as_posix()) is None
        return link["text"] if path.exists() and outside else link[0]

    return LINK.sub(on_site, markdown)
