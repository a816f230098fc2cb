"""What benchmarks/certainty.py found, as a table a file and as tables for people."""

import re
from collections.abc import Mapping, Sequence
from functools import partial
from itertools import combinations
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import pandas as pd
import torch
from paper_tables import add_rows, likeness
from torch import Tensor

from pfs_core.channels import ChannelGraph
from pfs_core.config.seed import part_seed
from pfs_core.config.spec import Budget, ModelSpec
from pfs_core.methods.gates_folder import load_gates
from pfs_core.methods.pfs.config import PfsConfig
from pfs_core.methods.pfs.draws import mean_profile
from pfs_core.methods.random.config import RandomConfig
from pfs_core.methods.random.search import random_gates
from pfs_core.storage.artifacts import COMPLETE, read_json
from pfs_core.structure import unexpanded_graph
from pfs_core.structure.budget_cut import equal_gates, prune_to_budget

KIND = ("network", "budget", "train_rows", "epochs")
"""What cells have in common that are compared."""
KEY = (*KIND, "precision", "weights", "order")
"""What a cell is known by."""
CELL = re.compile(r"weights(?P<weights>\d+)-order(?P<order>\d+)")
DRAWS = (1, 2, 4)
SHOWN = 5
"""Cells in a matrix."""
RANDOM = 20
"""Random structures that searches are compared with."""


class Cell(NamedTuple):
    """A search, or the mean of several.

    Attributes:
        precision: number format.
        weights: seed of the weights.
        order: seed of the order of the images.
        gates: ``{group: float32 [gates]}``, in the order of the graph's groups.
        widths: what a cut at the budget keeps of each group, int [groups].
        shares: the same as shares of the published widths, float [groups].
    """

    precision: str
    weights: int
    order: int
    gates: Mapping[str, Tensor]
    widths: np.ndarray
    shares: np.ndarray


def collect(out: Path, results: Path) -> None:
    """Add a row for each finished cell in ``out`` to the Parquet file ``results``; a cell that is there is replaced.

    Raises:
        UserError: ``out`` has no finished cell.
    """
    rows = [row(done.parents[1]) for done in sorted(out.glob(f"*/weights*-order*/gates/{COMPLETE}"))]
    add_rows(results, rows, KEY, f"{out} has no search yet; make one with: python benchmarks/certainty.py run")


def row(folder: Path) -> dict[str, Any]:
    """What one cell came to."""
    cell = CELL.fullmatch(folder.name)
    assert cell
    gates, info = load_gates(folder / "gates")
    return {
        "network": info.model.name,
        "budget": info.budget,
        "train_rows": info.cost["search"].backward_images // info.config_as(PfsConfig).epochs,
        "epochs": info.config_as(PfsConfig).epochs,
        "precision": info.precision,
        "weights": int(cell["weights"]),
        "order": int(cell["order"]),
        "steps": info.steps,
        "device_seconds": info.cost["search"].device_seconds,
        "model": info.model.model_dump_json(),
        "groups": list(gates),
        "gates": [values.numpy() for values in gates.values()],
        "pfs_version": info.pfs_version,
        **read_json(folder / "machine.json"),
    }


def tables(frame: pd.DataFrame) -> dict[str, str]:
    """``{"certainty resnet20 macs=0.5 45000 10": Markdown}``: how alike searches are, and those of several draws."""
    found = {}
    for (network, budget, rows, epochs), of in frame.groupby(list(KIND)):
        first = of.iloc[0]
        spec = ModelSpec.model_validate_json(first.model)
        graph = unexpanded_graph(spec)
        cut = partial(cell_of, graph, spec, Budget.from_text(budget))
        cells = [
            cut(r.precision, r.weights, r.order, {g: torch.tensor(v) for g, v in zip(r.groups, r.gates, strict=True)})
            for r in of.itertuples()
        ]
        machines = ", ".join(sorted({f"{r.cpu}, {r.threads} thread(s), torch {r.torch}" for r in of.itertuples()}))
        minutes = of.groupby("precision").device_seconds.median() / 60
        lines = [
            f"{network}, {budget}: {rows:,} images, {epochs} epochs ({first.steps:,} steps), n = {len(cells)} searches "
            f"of {', '.join(f'{m:.1f} min in {precision}' for precision, m in minutes.items())}; {machines}",
            *("", *compared(cells), *yardsticks(cells, cut, graph, graph.expanded(spec.expand, spec.expand_stream))),
            *("", *by_draws(cells, cut)),
        ]
        for precision in sorted({cell.precision for cell in cells}):
            mine = [cell for cell in cells if cell.precision == precision]
            lines += matrix(f"{precision}, by weights", [(c.weights, c) for c in mine if c.order == 0])
            lines += matrix(f"{precision}, by order", [(c.order, c) for c in mine if c.weights == 0])
        found[f"certainty {network} {budget} {rows} {epochs}"] = "\n".join(lines)
    return found


def cell_of(
    graph: ChannelGraph,
    spec: ModelSpec,
    budget: Budget,
    precision: str,
    weights: int,
    order: int,
    gates: Mapping[str, Tensor],
) -> Cell:
    """Cut gates at the budget, to any width."""
    kept, _ = prune_to_budget(graph, gates, budget, graph.expanded(spec.expand, spec.expand_stream))
    groups = graph.prunable()
    widths = np.array([kept[group.name] for group in groups])
    in_order = {group.name: gates[group.name] for group in groups}
    return Cell(precision, weights, order, in_order, widths, widths / [group.width for group in groups])


def compared(cells: Sequence[Cell]) -> list[str]:
    """How alike two searches are, by what is different between them."""
    pairs: dict[str, list[tuple[Cell, Cell]]] = {}
    for one, other in combinations(cells, 2):
        if what := difference(one, other):
            pairs.setdefault(what, []).append((one, other))
    header = [
        "| two searches that differ in | pairs | overlap of widths | correlation of widths | difference, channels "
        "| channels kept by both |",
        "| --- | ---: | ---: | ---: | ---: | ---: |",
    ]
    rows = []
    for what, alike in sorted(pairs.items()):
        shared = [shared_channels(*pair) for pair in alike if pair[0].weights == pair[1].weights]
        both = f"{np.mean(shared):.1%}" if shared else ""
        rows.append(f"| {what} | {len(alike)} | {' | '.join(_means(alike))} | {both} |")
    return header + rows


def yardsticks(cells: Sequence[Cell], cut: Any, graph: ChannelGraph, expanded: Mapping[str, int]) -> list[str]:
    """How alike structures are that no search chose: rows for the table of :func:`compared`."""
    even = cut("", 0, 0, equal_gates(graph, expanded))
    drawn = [cut("", seed, seed, random_gates(graph, expanded, RandomConfig().lowest, seed)) for seed in range(RANDOM)]
    overlap, _, apart = _means([(cell, even) for cell in cells])  # shares that are all alike correlate with nothing
    random = " | ".join(_means(pairs := list(combinations(drawn, 2))))
    return [
        f"| *a search and uniform widths* | {len(cells)} | {overlap} |  | {apart} |  |",
        f"| *random widths, two draws* | {len(pairs)} | {random} |  |",
    ]


def difference(one: Cell, other: Cell) -> str:
    """In what two cells differ, in words; empty where they are not to be compared."""
    if one.precision != other.precision:
        same = (one.weights, one.order) == (other.weights, other.order)
        return "bf16 and fp32" if same else ""
    if one.weights == other.weights:
        return f"order of the images, {one.precision}"
    if one.order == other.order:
        return f"weights, {one.precision}"
    seeds = one.weights == one.order and other.weights == other.order
    return f"seed (both), {one.precision}" if seeds else ""


def by_draws(cells: Sequence[Cell], cut: Any) -> list[str]:
    """How alike the structures of two seeds are where each is averaged over several draws."""
    header = [
        "| draws | structures | overlap of widths | correlation of widths | difference, channels | spread of a width |",
        "| ---: | ---: | ---: | ---: | ---: | ---: |",
    ]
    rows = []
    for precision in sorted({cell.precision for cell in cells}):
        single = {cell.weights: cell for cell in cells if cell.precision == precision and cell.weights == cell.order}
        for draws in DRAWS:
            wanted = [[part_seed(seed, draws, number) for number in range(1, draws + 1)] for seed in range(len(single))]
            means = [
                cut(precision, seed, seed, mean_profile([single[draw].gates for draw in seeds]))
                for seed, seeds in enumerate(wanted)
                if set(seeds) <= single.keys()
            ]
            if len(means) > 1:
                spread = np.std([cell.shares for cell in means], axis=0, ddof=1).mean()
                alike = " | ".join(_means(list(combinations(means, 2))))
                rows.append(f"| {draws}, {precision} | {len(means)} | {alike} | {spread:.1%} |")
    return header + rows if rows else []


def _means(pairs: Sequence[tuple[Cell, Cell]]) -> list[str]:
    """Overlap, correlation and mean absolute difference of widths, averaged over pairs."""
    alike = np.array([likeness(one.shares, other.shares) for one, other in pairs])
    apart = np.mean([np.abs(one.widths - other.widths).mean() for one, other in pairs])
    return [f"{alike[:, 1].mean():.1%}", f"{alike[:, 0].mean():.2f}", f"{apart:.1f}"]


def shared_channels(one: Cell, other: Cell) -> float:
    """Of the channels that two cuts of the same weights keep, the share that both keep (of the smaller number)."""
    both = 0
    for group, width, other_width in zip(one.gates, one.widths, other.widths, strict=True):
        largest = [cell.gates[group].argsort(descending=True, stable=True) for cell in (one, other)]
        both += len(set(largest[0][:width].tolist()) & set(largest[1][:other_width].tolist()))
    return both / min(one.widths.sum(), other.widths.sum())


def matrix(name: str, found: Sequence[tuple[int, Cell]]) -> list[str]:
    """Correlations of widths above the diagonal, overlaps below it, of the first cells by their seed."""
    shown = sorted(found, key=lambda pair: pair[0])[:SHOWN]
    if len(shown) < 2:
        return []
    lines = ["", f"| {name} | {' | '.join(str(seed) for seed, _ in shown)} |", f"| ---: |{' ---: |' * len(shown)}"]
    for i, (seed, one) in enumerate(shown):
        values = ["" if i == j else _either(one, other, i < j) for j, (_, other) in enumerate(shown)]
        lines.append(f"| {seed} | {' | '.join(values)} |")
    return lines


def _either(one: Cell, other: Cell, above: bool) -> str:
    correlation, overlap = likeness(one.shares, other.shares)
    return f"{correlation:.2f}" if above else f"{overlap:.1%}"
