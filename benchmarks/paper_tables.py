"""What benchmarks/paper.py found, as a table a file and as tables for people."""

import json
import os
import re
from collections.abc import Sequence
from itertools import combinations
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pyarrow.parquet as pq

from pfs_core.errors import UserError
from pfs_core.storage.artifacts import COMPLETE, read_json
from pfs_core.structure import Structure

KEY = ("experiment", "scale", "method", "seed")
"""What a cell is known by."""
BASE = re.compile(r"(?P<experiment>.+)-scale(?P<scale>.+)-seed(?P<seed>\d+)")
COST = ("seconds", "device_seconds", "forward_images", "backward_images")


def collect(out: Path, results: Path) -> None:
    """Add a row for each finished cell in ``out`` to the Parquet file ``results``; a cell that is there is replaced.

    Raises:
        UserError: ``out`` has no finished cell.
    """
    rows = [row(done.parents[1]) for done in sorted(out.glob(f"*-seed*/*/model/{COMPLETE}"))]
    if not rows:
        raise UserError(f"{out} has no trained network yet; make one with: python benchmarks/paper.py run --out {out}")
    frame = pd.DataFrame(rows)
    if results.exists():
        frame = pd.concat([pd.read_parquet(results), frame]).drop_duplicates(list(KEY), keep="last")
    aside = results.with_name(f".{os.getpid()}-{results.name}")
    frame.sort_values(list(KEY)).to_parquet(aside, index=False)
    aside.replace(results)


def load_results(results: Path) -> pd.DataFrame:
    """The rows of a file that :func:`collect` wrote; UserError where there is none."""
    if not results.exists():
        raise UserError(f"{results} is not there; make it with: python benchmarks/paper.py collect --results {results}")
    return pd.read_parquet(results)


def row(folder: Path) -> dict[str, Any]:
    """What one cell came to."""
    base = BASE.fullmatch(folder.parent.name)
    assert base
    metrics, structure = read_json(folder / "model" / "metrics.json"), Structure.load(folder / "model/structure.json")
    searched = read_json(folder / "gates" / "search.json") if (folder / "gates").exists() else {"cost": {}}
    cost = searched["cost"]
    stages = {f"{stage}_{key}": cost.get(stage, {}).get(key, 0.0) for stage in ("pretrain", "search") for key in COST}
    return {
        "experiment": base["experiment"],
        "scale": float(base["scale"]),
        "method": folder.name,
        "seed": int(base["seed"]),
        "epochs": metrics["epochs"],
        "train_rows": metrics["train_rows"],
        "precision": metrics["precision"],
        "test_accuracy": metrics["test_accuracy"],
        "macs": metrics["macs"],
        "params": metrics["params"],
        "dense_macs": structure.reference.macs,
        "retrain_seconds": metrics["seconds"],
        **stages,
        "search_steps": search_steps(folder / "gates", searched),
        "kept": json.dumps(kept_shares(structure)),
        "pfs_version": metrics["pfs_version"],
        **read_json(folder / "machine.json"),
    }


def search_steps(gates: Path, searched: dict[str, Any]) -> int:
    """How many steps the gates were learned for; 0 for methods that learn none."""
    if searched.get("method") != "pfs":
        return 0
    return int(pq.read_table(gates / "history.parquet", columns=["step"])["step"].to_pylist()[-1])


def kept_shares(structure: Structure) -> list[float]:
    """The share of its published width that each prunable group keeps."""
    return [structure.widths[group.name] / group.width for group in structure.graph().prunable()]


def tables(frame: pd.DataFrame, order: Sequence[str]) -> dict[str, str]:
    """``{"resnet20 0.05": Markdown}``: accuracy and cost of the methods, and how alike their structures are."""
    found = frame.groupby(["experiment", "scale"])
    return {
        f"{experiment} {scale:g}": "\n".join([*methods(cells, order), "", *likenesses(cells[cells.method != "dense"])])
        for (experiment, scale), cells in found
    }


def methods(found: pd.DataFrame, order: Sequence[str]) -> list[str]:
    """A row a method."""
    first = found.iloc[0]
    machines = ", ".join(sorted({f"{c.cpu}, {c.threads} thread(s), torch {c.torch}" for c in found.itertuples()}))
    lines = [
        f"{first.experiment}, scale {first.scale:g}: {first.train_rows:,} images, {_epochs(found)}, "
        f"{found.search_steps.max():,} steps of the gate search, n = {_seeds(found)}; {machines}, {first.precision}",
        "",
        "| method | test accuracy | by seed | spread | MACs | parameters | search, s | before it, s | cost, PFS = 1 |",
        "| --- | ---: | --- | ---: | ---: | ---: | ---: | ---: | ---: |",
    ]
    whole = found.assign(cost=found.pretrain_device_seconds + found.search_device_seconds)
    pfs = whole[whole.method == "pfs"].cost.mean()
    for method in [method for method in order if method in set(found.method)]:
        of = whole[whole.method == method].sort_values("seed")
        accuracy, spread = of.test_accuracy, f"{of.test_accuracy.std():.2%}" if len(of) > 1 else ""
        searched, before = of.search_device_seconds.mean(), of.pretrain_device_seconds.mean()
        lines.append(
            f"| {method} | {accuracy.mean():.2%} | {', '.join(f'{a:.2%}' for a in accuracy)} | {spread} "
            f"| {of.macs.mean() / of.dense_macs.iloc[0]:.1%} | {of.params.mean():,.0f} | "
            + (f"{searched:,.0f} | {before:,.0f} | {of.cost.mean() / pfs:.1f} |" if of.cost.mean() >= 1 else "| | |")
        )
    return lines


def _epochs(found: pd.DataFrame) -> str:
    """Epochs of the dense network, or of the others, and what they became under scratch-B."""
    counts = sorted(set(found.epochs))
    return f"{counts[0]} epochs" if len(counts) == 1 else f"{counts[0]} to {counts[-1]} epochs"


def _seeds(found: pd.DataFrame) -> str:
    """How many seeds the methods have, which differ while cells are missing."""
    counts = sorted(set(found.groupby("method").seed.nunique()))
    return " to ".join(map(str, dict.fromkeys([counts[0], counts[-1]])))


def likenesses(found: pd.DataFrame) -> list[str]:
    """Correlation and overlap of the kept shares, between seeds of a method and between methods at the same seed."""
    kept = {(row.method, row.seed): np.array(json.loads(row.kept)) for row in found.itertuples()}
    pairs: dict[str, list[tuple[float, float]]] = {}
    for one, other in combinations(sorted(kept), 2):
        if one[0] == other[0]:
            pairs.setdefault(f"{one[0]}, two seeds", []).append(likeness(kept[one], kept[other]))
        elif one[1] == other[1]:
            pairs.setdefault(f"{one[0]} and {other[0]}", []).append(likeness(kept[one], kept[other]))
    means = {name: np.mean(values, axis=0) for name, values in pairs.items()}
    rows = [f"| {name} | {correlation:.2f} | {overlap:.1%} |" for name, (correlation, overlap) in means.items()]
    header = ["| structures | correlation of widths | overlap of channels |", "| --- | ---: | ---: |"]
    return [*header, *rows] if rows else []


def likeness(one: np.ndarray, other: np.ndarray) -> tuple[float, float]:
    """Pearson's correlation of two structures' kept shares, and what is in both of what is in either."""
    flat = one.std() == 0 or other.std() == 0
    correlation = float("nan") if flat else float(np.corrcoef(one, other)[0, 1])
    return correlation, float(np.minimum(one, other).sum() / np.maximum(one, other).sum())


def put(page: Path, mark: str, text: str) -> None:
    """Put ``text`` between the marks of a Markdown page.

    Raises:
        UserError: the page does not have them once.
    """
    begin, end = f"<!-- paper: {mark} -->\n", "<!-- end -->"
    whole = page.read_text()
    before, _, rest = whole.partition(begin)
    if whole.count(begin) != 1 or end not in rest or "<!-- paper:" in rest.partition(end)[0]:
        raise UserError(f"{page} needs the lines '{begin.strip()}' and '{end}', between which the table goes")
    page.write_text(f"{before}{begin}\n{text}\n\n{end}{rest.partition(end)[2]}")
