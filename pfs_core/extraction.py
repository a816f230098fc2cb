"""The third step: the structure at the budget, and the two it is compared with."""

from pathlib import Path

from pfs_core.baselines import dense, uniform
from pfs_core.files import check_out, publish, sha256
from pfs_core.progress import say
from pfs_core.recipes import ExtractRecipe
from pfs_core.search import load_gates
from pfs_core.spec import Budget, ModelSpec
from pfs_core.structure import Structure, extract, unexpanded_graph

FILES = {"pruned": "structure.json", "uniform": "uniform.json", "dense": "dense.json"}
"""The file of each network in a ``structures`` folder."""


def extract_structures(
    gates: str | Path,
    out: str | Path,
    budget: Budget,
    recipe: ExtractRecipe = ExtractRecipe(),
) -> dict[str, Structure]:
    """Cut the gates at the budget and write ``structure.json``, ``uniform.json`` and ``dense.json`` to ``out``.

    Args:
        gates: a ``gates`` folder.
        out: the folder to write.
        budget: relative to the unexpanded network.
        recipe: see :class:`ExtractRecipe`.

    Raises:
        UserError: ``gates`` is not such a folder, or the budget cannot be reached.
    """
    check_out(out, "structure")
    scores, info = load_gates(gates)
    spec = ModelSpec.parse(info["model"], "search.json: model")
    policy, seed = info["recipe"]["policy"], info["seed"]
    graph = unexpanded_graph(spec, policy, info["recipe"]["placement"])
    provenance = {
        "split_fingerprint": info["split_fingerprint"],
        "gates_sha256": sha256(Path(gates) / "gates.safetensors"),
    }
    structures = {
        "pruned": extract(
            graph,
            scores,
            budget,
            model=spec,
            policy=policy,
            seed=seed,
            provenance=provenance,
            **recipe.model_dump(),
        ),
        "uniform": uniform(graph, budget, model=spec, provenance=provenance, **recipe.model_dump()),
        "dense": dense(graph, budget, model=spec),
    }
    with publish(out, "structure") as folder:
        for name, structure in structures.items():
            structure.save(folder / FILES[name])
    for name, structure in structures.items():
        cost = structure.cost
        say(
            f"extract {name:<8} {cost.macs:>13,} MACs  {cost.params:>11,} parameters  "
            f"{structure.budget.achieved:.4f} of {structure.budget.metric} ({FILES[name]})"
        )
    return structures
