"""docs/networks.md from the measurements of networks.py."""

import textwrap
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any

Row = Mapping[str, Any]

PAGE = """# What can be pruned in the networks of torchvision and timm

{command}

What Torch-Pruning leaves was measured once, when this table was first made; all else is of the package as it is.

- *Trace*, *proof*: seconds of a processor, one thread, for one of each (n = 1).
- *MACs prunable*: the share of the MACs in layers that read or write a prunable group, under the policies `inner` and
  `all` (which prunes residual streams too).
- *Proved*: of the groups that a trace lets change, those for which the proof on the network itself holds: resized, it
  runs in both modes and costs what the closed form says; random channels masked, it computes what it computes without
  them. Where fewer are proved than tried, the others stay as they are, and `pfs inspect` names the reason.
- *Difference*: the largest one between masked and removed channels in float64, relative to the largest output.
- *At half*: the share of the MACs that is left when every prunable group of the policy `all` keeps half of its
  channels.
- *Torch-Pruning*: the same of its `MetaPruner` asked for half of all channels, on the same network.

## In short

{summary}

## torchvision

{torchvision}

## timm

The smaller networks of every convolutional family, and of every kind in it.

{timm}

## Less than 80% prunable

{reasons}

## Where Torch-Pruning prunes more

Networks of which Torch-Pruning leaves less than nine tenths of what is left here. Behind a LayerNorm, a GroupNorm or a
standardised weight it removes channels too; the network then computes something else than with these channels at 0,
which is what gates are learned by, so that they stay here.

{behind}
"""
HEADER = (
    "| network | MACs | trace, s | proof, s | MACs prunable, `inner` | `all` | proved | difference | at half | "
    "Torch-Pruning |\n| --- |" + " ---: |" * 9
)
MOST = 0.8


def write_page(rows: list[Row], docs: Path) -> None:
    """Write the page of the networks that have been measured."""
    by_source = {
        source: [r for r in rows if r["network"].startswith(f"{source}:")] for source in ("torchvision", "timm")
    }
    tables = {source: "\n".join([HEADER, *map(_line, found)]) for source, found in by_source.items()}
    machines = ", ".join(sorted({f"{row['cpu']} with torch {row['torch']}" for row in rows}))
    command = (
        "`python benchmarks/networks.py measure --timm --results benchmarks/results/networks.jsonl`, later `again`, "
        f"then `page`; on {machines}, at the network's published images."
    )
    page = PAGE.format(
        command=textwrap.fill(command, 120, break_on_hyphens=False),
        summary="\n".join(_summary(source, found) for source, found in by_source.items()),
        reasons=_reasons(rows),
        behind=_behind(rows),
        **tables,
    )
    docs.write_text(page, encoding="utf-8")


def _line(row: Row) -> str:
    name = row["network"].partition(":")[2]
    if "refused" in row:
        return f"| {name} | not traced: {row['refused']} |" + " |" * 8
    refuted = len(row["refuted"])
    cells = (
        name, f"{row['macs']:,}", row["trace_s"], row["proof_s"], f"{row['share_inner']:.1%}",
        f"{row['share_all']:.1%}", f"{row['groups'] - refuted} of {row['groups']}", f"{row['difference'] or 0.0:.0e}",
        f"{row['half']:.1%}", _torch_pruning(row),
    )  # fmt: skip
    return "| " + " | ".join(map(str, cells)) + " |"


def _torch_pruning(row: Row) -> str:
    theirs = row["torch_pruning"]
    return f"{theirs['half']:.1%}" if "half" in theirs else "fails"


def _summary(source: str, rows: list[Row]) -> str:
    traced = [row for row in rows if "refused" not in row]
    inner = sum(row["share_inner"] >= MOST for row in traced)
    either = sum(row["share_all"] >= MOST for row in traced)
    halved = sum(row["torch_pruning"].get("half", 1) <= HALVED for row in traced)
    failed = sum("error" in row["torch_pruning"] for row in traced)
    ours = sum(row["half"] <= HALVED for row in traced)
    worst = max((row["difference"] or 0.0 for row in traced), default=0.0)
    proofs = sorted(row["proof_s"] for row in traced)
    traces = sorted(row["trace_s"] for row in traced)
    summary = (
        f"- {source}: {len(traced)} of {len(rows)} traced; at least 80% of the MACs prunable in {inner} (`inner`) and "
        f"{either} (`all`). Half of all channels leaves at most half of the MACs in {ours}; by Torch-Pruning in "
        f"{halved}, and it fails on {failed}. The largest difference is {worst:.0e}. Traces take {_middle(traces)} s, "
        f"proofs {_middle(proofs)} s (median; at most {_last(traces)} and {_last(proofs)})."
    )
    return textwrap.fill(summary, 120, subsequent_indent="  ", break_on_hyphens=False)


HALVED = 0.5


def _middle(values: list[float]) -> float:
    return values[len(values) // 2] if values else 0.0


def _last(values: list[float]) -> float:
    return values[-1] if values else 0.0


def _reasons(rows: Iterable[Row]) -> str:
    found = [
        f"| {row['network']} | {row['share_inner']:.1%} | {row['share_all']:.1%} | {row['reason_inner']} |"
        for row in rows
        if "refused" not in row and row["share_inner"] < MOST
    ]
    return "\n".join(
        ["| network | `inner` | `all` | reason of most of the rest |", "| --- | ---: | ---: | --- |", *found]
    )


def _behind(rows: Iterable[Row]) -> str:
    found = [
        f"| {row['network']} | {row['half']:.1%} | {row['torch_pruning']['half']:.1%} | {row['reason_all']} |"
        for row in rows
        if row.get("torch_pruning", {}).get("half", 1) < 0.9 * row.get("half", 0)
    ]
    return "\n".join(["| network | here | Torch-Pruning | reason here |", "| --- | ---: | ---: | --- |", *found])
