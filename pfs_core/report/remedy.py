"""Why a network may not be faster than the dense one, and which setting helps."""

import math
from collections.abc import Sequence

from pfs_core.report.results import RUNTIME_NAMES
from pfs_core.structure import Structure


def remedy(structure: Structure, runtime: str, flags: Sequence[str]) -> str:
    """Return why a network may not be faster than the dense one, and which setting helps.

    Args:
        structure: the network.
        runtime: in which it was measured.
        flags: the instruction sets of the machine.
    """
    cut_for_it = structure.block > 1 and runtime == _cut_for(structure)
    block = structure.block if cut_for_it else usual_block(runtime, flags)
    used, examples = _blocks_used(structure, block)
    asked_in_it = f" --set extract.runtime={runtime}" if runtime in ("eager", "openvino") else ""
    if structure.block == 1 and used < 1:
        blocks = block if runtime == "aotinductor" else f"auto{asked_in_it}"  # no extraction measures in that
        why = f"{RUNTIME_NAMES[runtime]} computes channels in blocks of {block}; {examples}"
        return f"{why}: try --set extract.blocks={blocks}."
    graph, left_streams = structure.graph(), structure.policy == "inner"
    model = structure.model
    if left_streams and model.expand > 1 and model.expand_stream is None and graph.widen_stream:
        return "The search widened the residual streams, which are not pruned: try --set search.expand_stream=1."
    whole = [g for g in graph.groups if g.resizable and structure.widths[g.name] >= g.width]
    names = f" ({', '.join(g.name for g in whole[:3])}{', ...' if len(whole) > 3 else ''})" if whole else ""
    streams = " --set search.policy=all" if left_streams and any(group.stream for group in whole) else ""
    unfilled = f" or where blocks are not full: {examples}" if used < 1 else ""
    return (
        f"Most of the time goes where nothing was cut{names}{unfilled}; "
        f"ask for the time itself: --budget latency=0.8{asked_in_it}{streams}."
    )


def usual_block(runtime: str, flags: Sequence[str]) -> int:
    """Return how many channels a runtime computes at once in float32 on machines with these instruction sets.

    The figures are those of ``docs/latency.md``, *Blocks by runtime*.

    >>> usual_block("onnxruntime", ["avx2", "avx512f"]), usual_block("openvino", ["avx2"]), usual_block("eager", [])
    (16, 8, 4)
    """
    if runtime == "eager":
        return 4
    return 16 if "avx512f" in flags else 8 if "avx2" in flags else 4


def _cut_for(structure: Structure) -> str:
    """The runtime whose blocks a structure was cut in."""
    asked = structure.provenance.get("latency_model") or structure.provenance.get("settings") or {}
    runtime = str(asked.get("runtime", "auto"))
    return "onnxruntime" if runtime == "auto" else runtime


def _blocks_used(structure: Structure, block: int) -> tuple[float, str]:
    """The share of the channels computed that is used, over all groups, and the same in words with the emptiest.

    Where no group is left that may change, nothing is computed in vain.
    """
    groups = structure.graph().groups
    widths = {g.name: structure.widths[g.name] for g in groups if g.resizable and structure.widths[g.name]}
    if not widths:
        return 1.0, ""
    computed = {name: math.ceil(width / block) * block for name, width in widths.items()}
    emptiest = sorted(widths, key=lambda name: widths[name] / computed[name])[:2]
    examples = ", ".join(f"{name} {widths[name]} of {computed[name]}" for name in emptiest)
    used = sum(widths.values()) / sum(computed.values())
    return used, f"{used:.0%} of the channels computed are used ({examples})"
