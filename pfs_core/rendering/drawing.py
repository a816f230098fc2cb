"""How pages look, and how figures get into them."""

import io
from importlib.resources import files
from typing import Any

from jinja2 import Environment, FunctionLoader, StrictUndefined
from matplotlib.figure import Figure

INK = "#101112"
"""Lines and letters; on a page they take the colour of its text, which is light where the page is dark."""

STYLE: Any = {
    "svg.fonttype": "none",
    "svg.hashsalt": "pfs",
    "text.parse_math": False,  # a class may be called "$5_$10"
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
    """A figure as an ``<svg>`` element; the same figure gives the same text."""
    text = io.StringIO()
    figure.savefig(text, format="svg", metadata={"Date": None, "Creator": None})
    return text.getvalue()[text.getvalue().index("<svg") :].replace(INK, "currentColor")


def render_page(package: str, template: str, **values: Any) -> str:
    """A page from a Jinja template of a package.

    The template can put the shared style in with ``{{ style | safe }}`` and import the macros of ``parts.html``.
    """
    environment = Environment(
        loader=FunctionLoader(lambda name: _text(__package__, name)),
        autoescape=True,
        undefined=StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    return environment.from_string(_text(package, template)).render(style=_text(__package__, "page.css"), **values)


def _text(package: str, name: str) -> str:
    return files(package).joinpath(name).read_text(encoding="utf-8")
