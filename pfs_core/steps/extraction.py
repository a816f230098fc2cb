"""The third step: cuts the gates at the budget, and makes the uniform and the dense structure to compare with."""

import logging
from collections.abc import Mapping
from functools import partial
from pathlib import Path
from typing import Any

from safetensors.torch import save_file
from torch import Tensor

from pfs_core.channels import ChannelGraph
from pfs_core.config.spec import Budget, ModelSpec
from pfs_core.config.stages import ExtractConfig
from pfs_core.errors import UserError
from pfs_core.latency.learning import MULTIPLES, fastest_multiple, latency_model
from pfs_core.latency.model import LatencyModel
from pfs_core.methods.gates_folder import load_gates
from pfs_core.runtime.cost import StepTimer
from pfs_core.storage.artifacts import check_out, publish, write_json
from pfs_core.storage.digests import file_digest
from pfs_core.structure import FILES, Structure, extract, unexpanded_graph
from pfs_core.structure.budget_cut import CostModel, prune_to_budget
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

    A latency budget applies to this machine. A model of latency is therefore fitted here first
    (:func:`pfs_core.latency.learning.latency_model`) and written beside the structures as ``latency_model.json``.

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
    spec, policy, seed = info.model, info.recipe.policy, info.seed
    graph = unexpanded_graph(spec, policy, info.recipe.placement)
    provenance = {
        "split_fingerprint": info.split_fingerprint,
        "gates_sha256": file_digest(Path(gates) / "gates.safetensors"),
        "settings": config.model_dump(mode="json"),
    }
    multiple = config.channel_multiple
    if multiple == "auto":
        multiple = _fastest_multiple(spec, graph, scores, budget, config)
    model = cost_model = None
    if budget.metric == "latency":
        model = latency_model(spec, graph, config.runtime, config.threads, multiple)
        cost_model = in_milliseconds(model, spec, graph)
        provenance["latency_model"] = model.summary()
    options: dict[str, Any] = {
        "channel_multiple": multiple,
        "floor": config.floor,
        "cost_model": cost_model,
        "provenance": provenance,
    }
    structures = {
        "pruned": extract(graph, scores, budget, model=spec, method=info.method, policy=policy, seed=seed, **options),
        "uniform": uniform(graph, budget, model=spec, **options),
        "dense": dense(graph, budget, model=spec),
    }
    with publish(out, "structure") as folder:
        if model:
            write_json(folder / "latency_model.json", model.model_dump(mode="json", by_alias=True))
        if inherited := inherited_weights(Path(gates), spec, graph, scores, structures["pruned"].widths):
            save_file(inherited, folder / INHERITED)
        for name, structure in structures.items():
            structure.save(folder / FILES[name])
        timer.write(folder)
    for name, structure in structures.items():
        cost = structure.cost
        logger.info(
            f"extract {name:<8} {cost.macs:>13,} MACs  {cost.params:>11,} parameters  "
            f"{structure.budget.achieved:.4f} of {structure.budget.metric} ({FILES[name]})"
        )
    return structures


def _fastest_multiple(
    spec: ModelSpec, graph: ChannelGraph, scores: Mapping[str, Tensor], budget: Budget, config: ExtractConfig
) -> int:
    """Return the fastest of the channel multiples with which the budget can be reached.

    A latency budget is taken as the same share of the MACs, since a latency model is fitted for one multiple only.
    """
    expanded = graph.expanded(spec.expand, spec.expand_stream)
    candidates = {}
    for multiple in MULTIPLES:
        try:
            candidates[multiple], _ = prune_to_budget(graph, scores, budget.in_macs, expanded, multiple, config.floor)
        except UserError:
            if multiple == 1:
                raise
    return fastest_multiple(spec, graph, candidates, config.runtime, config.threads)


def in_milliseconds(model: LatencyModel, spec: ModelSpec, graph: ChannelGraph) -> CostModel:
    """Return the cost of widths in milliseconds, as a latency model predicts it."""
    widened = spec.expand > 1 and graph.widen_stream and spec.expand_stream is None
    advice = "; search.expand_stream=1 leaves the residual stream as narrow as it was" if widened else ""
    return CostModel(partial(model.milliseconds, graph), model.dense_ms, lambda ms: f"{ms:.3f} ms", advice)
