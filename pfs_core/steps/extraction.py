"""The third step: cuts the gates at the budget, and makes the uniform and the dense structure to compare with."""

import logging
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from safetensors.torch import save_file
from torch import Tensor

from pfs_core.channels import ChannelGraph
from pfs_core.config.spec import Budget, ModelSpec
from pfs_core.config.stages import ExtractConfig
from pfs_core.latency.aiming import MeasuredRatios, cut_to_latency
from pfs_core.latency.blocks import runtime_block
from pfs_core.latency.fastest import fastest
from pfs_core.latency.learning import latency_model
from pfs_core.latency.model import LatencyModel
from pfs_core.methods.gates_folder import load_gates
from pfs_core.runtime.cost import StepTimer
from pfs_core.storage.artifacts import check_out, publish, write_json
from pfs_core.storage.digests import file_digest
from pfs_core.structure import FILES, Structure, extract, unexpanded_graph
from pfs_core.structure.budget_cut import CostModel
from pfs_core.structure.inherited_weights import FILE as INHERITED
from pfs_core.structure.inherited_weights import inherited_weights
from pfs_core.structure.references import dense, uniform

logger = logging.getLogger(__package__)


def extract_structures(
    gates: str | Path,
    out: str | Path,
    budget: Budget,
    config: ExtractConfig = ExtractConfig(),
) -> dict[str, Structure]:
    """Cut the gates at the budget and write ``structure.json``, ``uniform.json`` and ``dense.json`` to ``out``.

    If the method trained a network, ``inherited.safetensors`` has the weights of the channels that the cut keeps.

    Widths are those at which the runtime is fast on this machine (:mod:`pfs_core.latency.blocks`), unless the settings
    say otherwise. A latency budget applies to this machine too: a model of latency is fitted here
    (:func:`pfs_core.latency.learning.latency_model`), written beside the structures as ``latency_model.json``, and the
    cut is measured and corrected (:func:`pfs_core.latency.aiming.cut_to_latency`).

    Args:
        gates: a ``gates`` folder.
        out: the folder to write.
        budget: the budget, relative to the unexpanded network.
        config: see :class:`ExtractConfig`.

    Returns:
        The structures by name: ``pruned``, ``uniform`` and ``dense``.

    Raises:
        UserError: ``gates`` is not a gates folder, or the budget cannot be reached.
    """
    check_out(out, "structure")
    timer = StepTimer()
    scores, info = load_gates(gates)
    graph = info.refuted.corrected(unexpanded_graph(info.model, info.config.policy, info.config.placement))
    provenance = {
        **({"dataset": info.dataset} if info.dataset else {}),
        "split_fingerprint": info.split_fingerprint,
        "gates_sha256": file_digest(Path(gates) / "gates.safetensors"),
        # The paper's cut, which has no blocks, is recorded as it was before there were any.
        "settings": config.model_dump(mode="json", exclude={"blocks"} if config.blocks == 1 else set()),
    }
    found = {"method": info.method, "policy": info.config.policy, "seed": info.seed}
    structures, model = cut_structures(info.model, graph, scores, budget, config, found, provenance)
    with publish(out, "structure") as folder:
        if model:
            write_json(folder / "latency_model.json", model.model_dump(mode="json", by_alias=True))
        if inherited := inherited_weights(Path(gates), info.model, graph, scores, structures["pruned"].widths):
            save_file(inherited, folder / INHERITED)
        for name, structure in structures.items():
            structure.save(folder / FILES[name])
        timer.write(folder)
    for name, structure in structures.items():
        cost = structure.cost
        logger.info(
            f"extract {name:<8} {cost.macs:>13,} MACs  {cost.params:>11,} parameters  "
            f"{structure.budget.metric} {structure.budget.got}"
        )
    return structures


def cut_structures(
    spec: ModelSpec,
    graph: ChannelGraph,
    gates: Mapping[str, Tensor],
    budget: Budget,
    config: ExtractConfig,
    found: Mapping[str, Any],
    provenance: Mapping[str, Any],
) -> tuple[dict[str, Structure], LatencyModel | None]:
    """Cut gates at a budget, and equal gates beside them.

    Args:
        spec: the network, with the expansion that it was searched at.
        graph: its channel graph, unexpanded.
        gates: the gates of every prunable group, float [gates].
        budget: the budget, relative to the unexpanded network.
        config: see :class:`ExtractConfig`.
        found: ``method``, ``policy`` and ``seed`` of the search, for the record.
        provenance: what else the structures record.

    Returns:
        The structures ``pruned``, ``uniform`` and ``dense``, and the latency model where the budget is a latency.

    Raises:
        UserError: the budget cannot be reached, or the runtime is not installed.
    """
    runtime, threads = _where_it_will_run(spec, graph, budget, config)
    block = runtime_block(runtime, threads) if config.blocks == "auto" else config.blocks
    policy = found.get("policy", "inner")
    options: dict[str, Any] = {
        "model": spec,
        "channel_multiple": config.channel_multiple,
        "floor": config.floor,
        "block": block,
        "provenance": provenance,
    }
    if budget.metric != "latency":
        pruned = extract(graph, gates, budget, **found, **options)
        return {
            "pruned": pruned,
            "uniform": uniform(graph, budget, policy=policy, **options),
            "dense": dense(graph, budget.metric, model=spec),
        }, None

    model = latency_model(spec, graph, runtime, threads, config.channel_multiple, block)
    options |= {
        "cost_model": in_milliseconds(model, spec, graph),
        "provenance": {**provenance, "latency_model": model.summary()},
    }
    measure = MeasuredRatios(spec, graph, runtime, threads)

    def cut(aim: float) -> Structure:
        return extract(graph, gates, Budget(metric="latency", target=aim), **found, **options)

    def cut_evenly(aim: float) -> Structure:
        return uniform(graph, Budget(metric="latency", target=aim), policy=policy, **options)

    structures = {
        "pruned": cut_to_latency("pruned", cut, measure, budget.target),
        "uniform": cut_to_latency("uniform", cut_evenly, measure, budget.target),
        "dense": dense(graph, model=spec),
    }
    return structures, model


def _where_it_will_run(spec: ModelSpec, graph: ChannelGraph, budget: Budget, config: ExtractConfig) -> tuple[str, int]:
    """Return the runtime and the number of threads that a network is cut for."""
    if budget.metric == "latency":
        return fastest(spec, graph, config.runtime, config.threads)
    runtime = "onnxruntime" if config.runtime == "auto" else config.runtime
    return runtime, 1 if config.threads == "auto" else config.threads


def in_milliseconds(model: LatencyModel, spec: ModelSpec, graph: ChannelGraph) -> CostModel:
    """Return the cost of widths in milliseconds, as a latency model predicts it."""
    advice = ""
    if any(group.stream and group.resizable and not group.prunable for group in graph.groups):
        advice = "; search.policy=all prunes the residual streams too"
        if spec.expand > 1 and graph.widen_stream and spec.expand_stream is None:
            advice = "; search.expand_stream=1 leaves the residual stream as narrow as it was"
    return model.cost_model(graph, advice)
