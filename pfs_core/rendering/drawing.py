"""The style of pages and figures, and the rendering of both."""

import io
import warnings
from functools import partial
from importlib.resources import files
from typing import Any

from jinja2 import ChoiceLoader, Environment, FunctionLoader, StrictUndefined
from matplotlib.figure import Figure

_LETTERS = 24
INK = "#101112"
"""The colour of lines and letters in figures. On a page it is replaced by the page's own, so that dark pages work."""

STYLE: Any = {
    # Text stays text and identifiers follow from a fixed salt: the same figure is the same file.
    "svg.fonttype": "none",
    "svg.hashsalt": "pfs",
    "text.parse_math": False,  # a class of the dataset may be called "$5_$10"
    "font.family": "sans-serif",
    "font.size": 9,
    "figure.facecolor": "none",
    "axes.facecolor": "none",
    "axes.spines.top": False,
    "axes.spines.right": False,
    "axes.grid": True,
    "axes.grid.axis": "y",
    "axes.axisbelow": True,
    "grid.color": "#808080",
    "grid.alpha": 0.3,
    "legend.frameon": False,
    **dict.fromkeys(("text.color", "axes.labelcolor", "axes.edgecolor", "xtick.color", "ytick.color"), INK),
}


def svg_text(figure: Figure) -> str:
    """Return a figure as an ``<svg>`` element; the same figure gives the same text."""
    text = io.StringIO()
    with warnings.catch_warnings():
        warnings.filterwarnings("ignore", "Glyph .* missing")  # text stays text, and browsers have more fonts
        figure.savefig(text, format="svg", metadata={"Date": None, "Creator": None})
    return text.getvalue()[text.getvalue().index("<svg") :].replace(INK, "currentColor")


def shortened(name: str) -> str:
    """Return a name that leaves room for the figure beside it.

    >>> shortened("cat"), shortened("a" * 25)
    ('cat', 'aaaaaaaaaaaaaaaaaaaaaaa\u2026')
    """
    return name if len(name) <= _LETTERS else f"{name[: _LETTERS - 1]}\u2026"


def render_page(package: str, template: str, **values: Any) -> str:
    """Render a page from a Jinja template.

    The template can insert the shared style with ``{{ style | safe }}``, and import and include other files of its own
    package and the macros of ``parts.html``.

    Args:
        package: the package that the template is in.
        template: the file name of the template.
        values: the variables of the template; a variable that is missing is an error.
    """
    environment = Environment(
        loader=ChoiceLoader([FunctionLoader(partial(_found, place)) for place in (package, __package__)]),
        autoescape=True,
        undefined=StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    return environment.get_template(template).render(style=_text(__package__, "page.css"), **values)


def _text(package: str, name: str) -> str:
    """Return the content of a file in a package."""
    return files(package).joinpath(name).read_text(encoding="utf-8")


def _found(package: str, name: str) -> str | None:
    """Return the content of a file in a package, None if there is none."""
    return _text(package, name) if files(package).joinpath(name).is_file() else None
