"""What benchmarks/paper.py found, as a table a file and as tables for people."""

import argparse
import json
import os
import re
from collections.abc import Callable, Mapping, Sequence
from itertools import combinations
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pyarrow.parquet as pq

from pfs_core.errors import UserError
from pfs_core.runtime.progress import user_errors
from pfs_core.storage.artifacts import COMPLETE, read_json
from pfs_core.structure import Structure

KEY = ("experiment", "scale", "method", "seed")
"""What a cell is known by."""
BASE = re.compile(r"(?P<experiment>.+)-scale(?P<scale>.+)-seed(?P<seed>\d+)")
COSTS = "cost.json"
"""In a ``structures`` folder: what it took to choose the structure, where no search says so."""
COST = ("seconds", "device_seconds", "forward_images", "backward_images")


def collect(out: Path, results: Path) -> None:
    """Add a row for each finished cell in ``out`` to the Parquet file ``results``; a cell that is there is replaced.

    Raises:
        UserError: ``out`` has no finished cell.
    """
    rows = [row(done.parents[1]) for done in sorted(out.glob(f"*-seed*/*/model/{COMPLETE}"))]
    add_rows(results, rows, KEY, f"{out} has no trained network yet; make one with: python benchmarks/paper.py run")


def cells_command(
    description: str | None,
    add_options: Callable[[argparse.ArgumentParser], None],
    run: Callable[[argparse.Namespace], None],
    collect: Callable[[Path, Path], None],
    tables: Callable[[pd.DataFrame], Mapping[str, str]],
) -> None:
    """The command line of a benchmark whose cells are run, collected in a file of results, and shown.

    Args:
        description: what ``--help`` says.
        add_options: adds the options of the part ``run``.
        run: runs the cells that are asked for and missing.
        collect: adds the finished cells of a folder to a file of results.
        tables: makes ``{mark: Markdown}`` of the results.
    """
    parser = argparse.ArgumentParser(description=description, formatter_class=argparse.RawDescriptionHelpFormatter)
    parts = parser.add_subparsers(dest="part", required=True)
    run_parser = parts.add_parser("run", help="run the cells that are missing")
    collect_parser = parts.add_parser("collect", help="add the finished cells of a folder to a file of results")
    table_parser = parts.add_parser("table", help="print the tables of a file of results")
    for with_out in (run_parser, collect_parser):
        with_out.add_argument("--out", type=Path, required=True)
    for with_results in (collect_parser, table_parser):
        with_results.add_argument("--results", type=Path, required=True)
    table_parser.add_argument("--docs", type=Path)
    add_options(run_parser)
    a = parser.parse_args()
    with user_errors():
        if a.part == "run":
            run(a)
        elif a.part == "collect":
            collect(a.out, a.results)
        else:
            for mark, text in tables(load_results(a.results, parser.prog)).items():
                print(f"\n{text}")
                if a.docs:
                    put(a.docs, mark, text)


def add_rows(results: Path, rows: Sequence[Mapping[str, Any]], key: Sequence[str], missing: str) -> None:
    """Add rows to a Parquet file, in place of those with the same ``key``.

    Raises:
        UserError: there is no row; it says what is ``missing``.
    """
    if not rows:
        raise UserError(missing)
    frame = pd.DataFrame(rows)
    if results.exists():
        frame = pd.concat([pd.read_parquet(results), frame]).drop_duplicates(list(key), keep="last")
    aside = results.with_name(f".{os.getpid()}-{results.name}")
    frame.sort_values(list(key)).to_parquet(aside, index=False)
    aside.replace(results)


def load_results(results: Path, command: str) -> pd.DataFrame:
    """The rows of a file that ``command collect`` wrote; UserError where there is none."""
    if not results.exists():
        raise UserError(
            f"{results} is not there; make it with: python benchmarks/{command} collect --results {results}"
        )
    return pd.read_parquet(results)


def row(folder: Path) -> dict[str, Any]:
    """What one cell came to."""
    base = BASE.fullmatch(folder.parent.name)
    assert base
    metrics, structure = read_json(folder / "model" / "metrics.json"), Structure.load(folder / "model/structure.json")
    cost = stage_costs(folder)
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
        "retrain_device_seconds": metrics["cost"]["retrain"]["device_seconds"],
        **stages,
        "search_steps": search_steps(folder / "gates"),
        "kept": json.dumps(kept_shares(structure)),
        "pfs_version": metrics["pfs_version"],
        **read_json(folder / "machine.json"),
    }


def stage_costs(folder: Path) -> dict[str, dict[str, float]]:
    """What it took to choose the structure of a cell, by stage; nothing for the dense network."""
    if (searched := folder / "gates" / "search.json").exists():
        return dict(read_json(searched)["cost"])
    return dict(read_json(folder / "structures" / COSTS)) if (folder / "structures").exists() else {}


def search_steps(gates: Path) -> int:
    """How many steps the gates were learned for; 0 for methods that learn none."""
    if not gates.exists() or read_json(gates / "search.json")["method"] != "pfs":
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
    """A row a method. Times are of processors or GPUs; of cells that lack one, the column is empty."""
    first = found.iloc[0]
    machines = ", ".join(sorted({f"{c.cpu}, {c.threads} thread(s), torch {c.torch}" for c in found.itertuples()}))
    steps = found.search_steps[found.search_steps > 0]
    lines = [
        f"{first.experiment}, scale {first.scale:g}: {first.train_rows:,} images, {_range(found.epochs, 'epochs')}, "
        f"{_range(steps, 'steps')} of the gate search, n = {_seeds(found)}; {machines}, {first.precision}",
        "",
        "| method | n | test accuracy | by seed | spread | points over uniform | MACs | parameters "
        "| search, s | before it, s | cost, PFS = 1 | all with training, s |",
        "| --- | ---: | ---: | --- | ---: | ---: | ---: | ---: | ---: | ---: | ---: | ---: |",
    ]
    by_seed = found.set_index(["method", "seed"]).test_accuracy
    whole = found.assign(cost=found.pretrain_device_seconds + found.search_device_seconds)
    pfs = whole[whole.method == "pfs"].cost.mean()
    for method in [method for method in order if method in set(found.method)]:
        of = whole[whole.method == method].sort_values("seed")
        accuracy, spread = of.test_accuracy, f"{of.test_accuracy.std():.2%}" if len(of) > 1 else ""
        costs = [of.search_device_seconds.mean(), of.pretrain_device_seconds.mean()]
        times = [f"{seconds:,.0f}" for seconds in costs] if of.cost.mean() >= 1 else ["", ""]
        paired = [seed for seed in of.seed if method != "uniform" and ("uniform", seed) in by_seed.index]
        over = difference(np.array([by_seed[method, seed] - by_seed["uniform", seed] for seed in paired]))
        ratio = f"{of.cost.mean() / pfs:.1f}" if of.cost.mean() >= 1 and pfs > 0 else ""
        total = (of.cost + of.get("retrain_device_seconds", float("nan"))).mean(skipna=False)  # older rows lack it
        lines.append(
            f"| {method} | {len(of)} | {accuracy.mean():.2%} | {', '.join(f'{a:.2%}' for a in accuracy)} | {spread} "
            f"| {over} | {of.macs.mean() / of.dense_macs.iloc[0]:.1%} | {of.params.mean():,.0f} "
            f"| {times[0]} | {times[1]} | {ratio} | {'' if np.isnan(total) else f'{total:,.0f}'} |"
        )
    return lines


def difference(points: np.ndarray) -> str:
    """The mean difference in points, with its 95% interval (Student's t over seeds) where there are several."""
    if len(points) == 0:
        return ""
    if len(points) == 1:
        return f"{100 * points[0]:+.2f}"
    from scipy.stats import t

    half = t.ppf(0.975, len(points) - 1) * points.std(ddof=1) / np.sqrt(len(points))
    return f"{100 * points.mean():+.2f} [{100 * (points.mean() - half):+.2f}, {100 * (points.mean() + half):+.2f}]"


def _range(counts: pd.Series, what: str) -> str:
    """How many: one number, or the least and the most (of epochs, what scratch-B made of the dense network's)."""
    ends = dict.fromkeys([counts.min(), counts.max()]) if len(counts) else [0]
    return f"{' to '.join(f'{count:,.0f}' for count in ends)} {what}"


def _seeds(found: pd.DataFrame) -> str:
    """How many seeds the methods have, which differ while cells are missing."""
    counts = sorted(set(found.groupby("method").seed.nunique()))
    return " to ".join(map(str, dict.fromkeys([counts[0], counts[-1]])))


def likenesses(found: pd.DataFrame) -> list[str]:
    """Correlation and overlap of the kept shares, between seeds of a method and between methods at the same seed.

    A method that prunes residual streams too, as Torch-Pruning does, has other groups than one that does not: their
    structures are not compared.
    """
    kept = {(row.method, row.seed): np.array(json.loads(row.kept)) for row in found.itertuples()}
    pairs: dict[str, list[tuple[float, float]]] = {}
    for one, other in combinations(sorted(kept), 2):
        if len(kept[one]) != len(kept[other]):
            continue
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
