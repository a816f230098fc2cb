"""Docstrings as the site shows them."""

from pathlib import Path

import griffe
import pytest

EXTENSION = Path(__file__).parents[2] / "docs/docstrings.py"
MODULES = {
    "__init__.py": '''"""The package.

>>> double(2)
4
"""
from package.inner import double

__all__ = ["double"]
''',
    "inner.py": '''"""See :func:`double`, :func:`~package.inner.double` and :class:`elsewhere.Thing`."""


def double(x: int) -> dict:
    """Twice.

    Returns:
        ``{x: 2x}``, see ``x``.
    """
''',
}


@pytest.fixture(scope="module")
def package(tmp_path_factory):
    folder = tmp_path_factory.mktemp("docstrings")
    (folder / "package").mkdir()
    for name, text in MODULES.items():
        (folder / "package" / name).write_text(text)
    extensions = griffe.load_extensions(str(EXTENSION))
    return griffe.load("package", search_paths=[folder], extensions=extensions, allow_inspection=False)


def reference(path, text):
    return f'<autoref identifier="{path}" optional><code>{text}</code></autoref>'


def test_a_role_is_a_link_to_what_it_names(package):
    assert package["inner"].docstring.value == (
        f"See {reference('package.inner.double', 'double')}, {reference('package.inner.double', 'double')} "
        f"and {reference('elsewhere.Thing', 'elsewhere.Thing')}."
    )


def test_an_example_is_code(package):
    assert "```pycon\n>>> double(2)\n4\n```" in package.docstring.value


def test_what_a_package_exports_is_named_there_and_documented_in_its_module(package):
    assert f"`from package import` {reference('package.inner.double', 'double')}" in package.docstring.value
    assert package.exports is None


def test_a_colon_in_code_ends_no_type(package):
    (returned,) = package["inner.double"].docstring.parse("google", returns_named_value=False)[1].value
    assert returned.description == "<code>&#123;x&#58; 2x&#125;</code>, see ``x``."
    assert str(returned.annotation) == "dict"
