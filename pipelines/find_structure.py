"""The search and the extraction as one nested pipeline, which is one box in the graph of the Kubeflow UI."""

from typing import Any, NamedTuple

from kfp import dsl
from kfp.dsl import Artifact, Dataset, Input
from pfs_components import extract_structure, search_gates
from pfs_pipelines.pools import Placement, Pools, with_form


class Found(NamedTuple):
    """The outputs of the nested pipeline."""

    gates: Artifact
    structures: Artifact


def define(place: Placement) -> Any:
    """Define the ``find-structure`` pipeline, with its steps on the pools of ``place``."""

    @dsl.pipeline(name="find-structure")
    @with_form
    def find_structure(
        model: str,
        split: Input[Dataset],
        budget: str,
        recipe: str,
        seed: int,
        model_settings: dict,
        search_settings: dict,
        extract_settings: dict,
        pools: Pools = Pools(),
    ) -> Found:
        search = search_gates(
            model=model,
            split=split,
            budget=budget,
            recipe=recipe,
            settings=search_settings,
            model_settings=model_settings,
            seed=seed,
        )
        place.search(search, pools, hours=24).set_display_name("Search gates")
        extraction = extract_structure(
            gates=search.outputs["gates"], budget=budget, recipe=recipe, settings=extract_settings
        )
        place.latency(extraction, pools, cached=True).set_display_name("Extract structure")
        return Found(search.outputs["gates"], extraction.outputs["structures"])

    return find_structure
