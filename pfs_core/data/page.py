"""A page that shows a dataset: some images of each class, how many there are, and their sizes."""

from collections import Counter
from collections.abc import Mapping, Sequence

import matplotlib as mpl
import numpy as np
from matplotlib.figure import Figure
from torch import Tensor

from pfs_core.data.split_info import CLASSES, EACH
from pfs_core.rendering.drawing import STYLE, render_page, shortened, svg_text
from pfs_core.rendering.pictures import png_text

_COLOURS = {"train": "#1f6fb4", "validation": "#d1810f", "test": "#7a7a7a"}


def dataset_page(
    title: str,
    facts: Sequence[str],
    class_names: Sequence[str],
    rows_per_class: Mapping[str, Sequence[int]],
    samples: Sequence[tuple[int, Tensor]],
    sizes: Mapping[tuple[int, int], int] | None = None,
    faults: Sequence[str] = (),
) -> str:
    """Return the page as HTML that needs no other files.

    Args:
        title: the heading.
        facts: sentences to list below the heading.
        class_names: the names of the classes.
        rows_per_class: ``{part: number of rows of each class}``.
        samples: labels and images, uint8 [C, H, W]; the first ``EACH`` images of the first ``CLASSES`` classes that
            occur are shown.
        sizes: the number of images of each (width, height), if it is known.
        faults: what is wrong with the dataset, one sentence per fault.
    """
    shown: dict[int, list[str]] = {}
    for label, image in samples:
        if label in shown or len(shown) < CLASSES:
            row = shown.setdefault(label, [])
            if len(row) < EACH:
                row.append(png_text(image))
    with mpl.rc_context(STYLE):
        drawings = [
            ("Rows of each class", balance_words(rows_per_class), svg_text(balance(class_names, rows_per_class)), True)
        ]
        if sizes and len(sizes) > 1:
            words = (
                f"{len(sizes):,} sizes, the shorter side between {min(map(min, sizes)):,} and {max(map(min, sizes)):,}."
            )
            drawings.append(("Image sizes", words, svg_text(_sizes(sizes)), True))
    return render_page(
        __package__,
        "page.html",
        title=title,
        facts=facts,
        faults=faults,
        samples=[(class_names[label], images) for label, images in sorted(shown.items())],
        drawings=drawings,
    )


def balance(class_names: Sequence[str], rows_per_class: Mapping[str, Sequence[int]]) -> Figure:
    """Draw the number of rows of each class as bars, with the parts stacked."""
    figure = Figure(figsize=(9.6, 2.8), layout="constrained")
    ax = figure.subplots()
    below, x = np.zeros(len(class_names)), np.arange(len(class_names))
    for part, counts in rows_per_class.items():
        ax.bar(x, counts, bottom=below, width=0.9, color=_COLOURS[part], label=part)
        below += np.asarray(counts)
    if len(class_names) <= 2 * CLASSES:
        ax.set_xticks(x, list(map(shortened, class_names)), rotation=45, ha="right", fontsize=8)
    else:
        ax.set_xlabel("class")
    ax.set_ylabel("rows")
    ax.legend(ncols=3, loc="lower left", bbox_to_anchor=(0, 1))
    return figure


def balance_words(rows_per_class: Mapping[str, Sequence[int]]) -> str:
    """Describe in a sentence how many images a class has, all parts together.

    >>> balance_words({"train": [10, 20, 30], "test": [1, 2, 3]})
    'Between 11 and 33 images per class, median 22.'
    """
    counts = [sum(rows) for rows in zip(*rows_per_class.values(), strict=True)]
    return f"Between {min(counts):,} and {max(counts):,} images per class, median {np.median(counts):,.0f}."


def _sizes(sizes: Mapping[tuple[int, int], int]) -> Figure:
    """Draw a histogram of the shorter sides of the images."""
    figure = Figure(figsize=(9.6, 2.4), layout="constrained")
    ax = figure.subplots()
    shorter: Counter[int] = Counter()
    for (width, height), count in sizes.items():
        shorter[min(width, height)] += count
    ax.hist(list(shorter), weights=list(shorter.values()), bins=40, color=_COLOURS["train"])
    ax.set_xlabel("shorter side, pixels")
    ax.set_ylabel("images")
    return figure
