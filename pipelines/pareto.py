"""The pipeline for one model and several budgets: one search, and a trained and measured network per budget."""

from typing import Any, List

from kfp import dsl
from pfs_components import (
    benchmark_latency,
    check_request,
    close_run,
    compare_budgets,
    extract_structure,
    retrain,
    search_gates,
    split_data,
)
from pfs_pipelines.pools import Placement, Pools, with_form

DESCRIPTION = """One network at several sizes by *Pruning from Scratch*: one search, whose gates are cut at every
budget; each slim network is trained from scratch and measured, and so is the dense one.

The page of the step **Compare** shows accuracy against MACs and latency."""


def define(place: Placement = Placement()) -> Any:
    """Define the ``pareto`` pipeline, with its steps on the pools of ``place``."""

    @dsl.pipeline(name="pareto", display_name="Compare budgets", description=DESCRIPTION)
    @with_form
    def pareto(
        model: str = "resnet20",
        dataset: str = "digits",
        budgets: List[str] = ["macs=0.7", "macs=0.5", "macs=0.3"],
        search_budget: str = "macs=0.5",
        recipe: str = "",
        seed: int = 0,
        registered_model: str = "",
        model_settings: dict = {},
        split_settings: dict = {},
        search_settings: dict = {},
        extract_settings: dict = {},
        retrain_settings: dict = {},
        latency_settings: dict = {},
        pools: Pools = Pools(),
    ) -> None:
        """Compress one network to several budgets.

        Args:
            model: Name of the network: resnet20, torchvision:resnet18, timm:efficientnet_b0, package.module:factory.
            dataset: digits, or a folder or s3:// prefix with Parquet or Arrow files with columns image and label, one
                folder of images per class, a list of images, WebDataset tars, IDX files or CIFAR's Python files.
            budgets: Shares of the dense network's MACs, parameters or CPU latency, e.g. macs=0.5, or counts: macs=20M.
            search_budget: Budget that the search aims at; its gates are cut at every budget.
            recipe: Name of a recipe with the settings of all steps: demo, fast, standard, cifar-sfp, cifar-official,
                imagenet-mobilenet or imagenet-resnet; empty for the one that suits the dataset.
            seed: Seed of the split, the random weights and the training.
            registered_model: Name in the MLflow Model Registry; empty for pfs- and the network's name.
            model_settings: Keyword arguments of the network, e.g. {"width": 32}.
            split_settings: Changes to the recipe's split settings.
            search_settings: Changes to the recipe's search settings, e.g. {"epochs": 5}; {"method": "network_slimming"}
                (or random, uniform) searches by another method.
            extract_settings: Changes to the recipe's extract settings, e.g. {"channel_multiple": 8}.
            retrain_settings: Changes to the recipe's retrain settings, e.g. {"epochs": 20}.
            latency_settings: Changes to the recipe's latency settings.
        """
        closing = place.cpu(close_run(), pools, hours=1).set_display_name("Close the run").set_caching_options(False)
        with dsl.ExitHandler(closing, name="Compare budgets"):
            check = check_request(
                model=model,
                dataset=dataset,
                budgets=budgets,
                search_budget=search_budget,
                one_search=True,
                networks=["pruned", "dense"],
                recipe=recipe,
                seed=seed,
                model_settings=model_settings,
                split_settings=split_settings,
                search_settings=search_settings,
                extract_settings=extract_settings,
                retrain_settings=retrain_settings,
                latency_settings=latency_settings,
            )
            place.cpu(check, pools, hours=1).set_display_name("Check the request").set_caching_options(False)
            split = split_data(
                dataset=dataset, recipe=recipe, settings=split_settings, seed=seed, fingerprint=check.output
            )
            place.cpu(split, pools).set_display_name("Split data")
            search = search_gates(
                model=model,
                split=split.outputs["split"],
                budget=search_budget,
                recipe=recipe,
                settings=search_settings,
                model_settings=model_settings,
                seed=seed,
            )
            place.search(search, pools, hours=24).set_display_name("Search gates")
            # Only its dense structure is of use, for which nothing needs to be measured.
            reference = extract_structure(gates=search.outputs["gates"], budget="macs=1", settings={"blocks": 1})
            place.latency(reference, pools, cached=True).set_display_name("Dense structure")
            dense = retrain(
                structures=reference.outputs["structures"],
                split=split.outputs["split"],
                network="dense",
                recipe=recipe,
                settings=retrain_settings,
                seed=seed,
            )
            place.retrain(dense, pools).set_display_name("Train the dense network")
            with dsl.ParallelFor(budgets, name="Each budget", parallelism=place.parallelism) as budget:
                extraction = extract_structure(
                    gates=search.outputs["gates"], budget=budget, recipe=recipe, settings=extract_settings
                )
                place.latency(extraction, pools, cached=True).set_display_name("Extract structure")
                training = retrain(
                    structures=extraction.outputs["structures"],
                    split=split.outputs["split"],
                    recipe=recipe,
                    settings=retrain_settings,
                    seed=seed,
                )
                place.retrain(training, pools).set_display_name("Retrain from scratch")
                latency = benchmark_latency(
                    structures=extraction.outputs["structures"], recipe=recipe, settings=latency_settings, seed=seed
                )
                latency.after(training)  # which would disturb it on the same node
                place.latency(latency, pools).set_display_name("Benchmark CPU latency")
            comparison = compare_budgets(
                split=split.outputs["split"],
                gates=search.outputs["gates"],
                structures=dsl.Collected(extraction.outputs["structures"]),
                models=dsl.Collected(training.outputs["model"]),
                latencies=dsl.Collected(latency.outputs["latency"]),
                dense=dense.outputs["model"],
                registered_model=registered_model,
            )
            place.cpu(comparison, pools, hours=1).set_display_name("Compare")

    return pareto
