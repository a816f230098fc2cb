"""The pipeline for one model and several methods, budgets and seeds: the paper's comparison, on one's own data."""

from typing import Any, List

from kfp import dsl
from pfs_components import (
    benchmark_latency,
    check_request,
    close_run,
    compare_methods,
    extract_structure,
    plan_comparison,
    retrain,
    search_gates,
    split_data,
)
from pfs_pipelines.pools import Placement, Pools, with_form

DESCRIPTION = """Compares methods of choosing a structure: *Pruning from Scratch*, Network Slimming, AMC, random and
uniform widths, at one or several budgets, with several seeds. All structures are trained from scratch in the same way.

The page of the step **Compare** shows accuracy, size and latency with intervals, and the cost of each search."""


def define(place: Placement = Placement()) -> Any:
    """Define the ``compare`` pipeline, with its steps on the pools of ``place``."""

    @dsl.pipeline(name="compare", display_name="Compare methods", description=DESCRIPTION)
    @with_form
    def compare(
        model: str = "resnet20",
        dataset: str = "digits",
        budgets: List[str] = ["macs=0.5"],
        methods: List[str] = ["pfs", "uniform", "random", "network_slimming", "amc"],
        seeds: List[int] = [0, 1],
        split_seed: int = 0,
        recipe: str = "",
        model_settings: dict = {},
        method_settings: dict = {},
        split_settings: dict = {},
        extract_settings: dict = {},
        retrain_settings: dict = {},
        latency_settings: dict = {},
        pools: Pools = Pools(),
    ) -> None:
        """Compare methods of choosing a structure.

        Args:
            model: Name of the network: resnet20, torchvision:resnet18, timm:efficientnet_b0, package.module:factory.
            dataset: digits, or a folder or s3:// prefix with Parquet or Arrow files with columns image and label, one
                folder of images per class, a list of images, WebDataset tars, IDX files or CIFAR's Python files.
            budgets: Shares of the dense network's MACs, parameters or CPU latency, e.g. macs=0.5, or counts: macs=20M.
            methods: Any of pfs, uniform, random, network_slimming and amc; each searches anew per budget and seed.
            seeds: Seeds of the random weights, the search and the training.
            split_seed: Seed of the split, which all of them share.
            recipe: Name of a recipe with the settings of all steps: demo, fast, standard, cifar-sfp, cifar-official,
                imagenet-mobilenet or imagenet-resnet; empty for the one that suits the dataset.
            model_settings: Keyword arguments of the network, e.g. {"width": 32}.
            method_settings: Changes to the recipe's search settings, by method, e.g. {"amc": {"episodes": 200}}.
            split_settings: Changes to the recipe's split settings.
            extract_settings: Changes to the recipe's extract settings, e.g. {"channel_multiple": 8}.
            retrain_settings: Changes to the recipe's retrain settings, e.g. {"epochs": 20}.
            latency_settings: Changes to the recipe's latency settings.
        """
        closing = place.cpu(close_run(), pools, hours=1).set_display_name("Close the run").set_caching_options(False)
        with dsl.ExitHandler(closing, name="Compare methods"):
            check = check_request(
                model=model,
                dataset=dataset,
                budgets=budgets,
                networks=["pruned", "dense"],
                recipe=recipe,
                model_settings=model_settings,
                split_settings=split_settings,
                extract_settings=extract_settings,
                retrain_settings=retrain_settings,
                latency_settings=latency_settings,
                opens_run=False,
            )
            place.cpu(check, pools, hours=1).set_display_name("Check the request").set_caching_options(False)
            plan = plan_comparison(
                model=model,
                dataset=dataset,
                budgets=budgets,
                methods=methods,
                seeds=seeds,
                recipe=recipe,
                method_settings=method_settings,
            )
            plan.after(check)
            place.cpu(plan, pools, hours=1).set_display_name("Plan the comparison").set_caching_options(False)
            split = split_data(
                dataset=dataset,
                recipe=recipe,
                settings=split_settings,
                seed=split_seed,
                fingerprint=check.output,
            )
            split.after(plan)
            place.cpu(split, pools).set_display_name("Split data")
            with dsl.ParallelFor(
                plan.output, name="Each method, budget and seed", parallelism=place.parallelism
            ) as planned:
                search = search_gates(
                    model=model,
                    split=split.outputs["split"],
                    budget=planned.budget,
                    recipe=recipe,
                    settings=planned.settings,
                    model_settings=model_settings,
                    seed=planned.seed,
                )
                place.search(search, pools, hours=168).set_display_name("Choose a structure")
                extraction = extract_structure(
                    gates=search.outputs["gates"],
                    budget=planned.budget,
                    recipe=recipe,
                    settings=extract_settings,
                )
                place.latency(extraction, pools, cached=True).set_display_name("Extract structure")
                training = retrain(
                    structures=extraction.outputs["structures"],
                    split=split.outputs["split"],
                    recipe=recipe,
                    settings=retrain_settings,
                    seed=planned.seed,
                )
                place.retrain(training, pools).set_display_name("Train from scratch")
                latency = benchmark_latency(
                    structures=extraction.outputs["structures"], recipe=recipe, settings=latency_settings
                )
                latency.after(training)  # which would disturb it on the same node
                place.latency(latency, pools).set_display_name("Benchmark CPU latency")
            # The dense structure comes out of an extraction at macs=1, and that needs gates: uniform ones take no time.
            reference = search_gates(
                model=model,
                split=split.outputs["split"],
                budget="macs=1",
                recipe=recipe,
                settings={"method": "uniform"},
                model_settings=model_settings,
            )
            place.cpu(reference, pools, hours=1).set_display_name("Uniform gates")
            unpruned = extract_structure(gates=reference.outputs["gates"], budget="macs=1", settings={"blocks": 1})
            place.latency(unpruned, pools, cached=True).set_display_name("Dense structure")
            with dsl.ParallelFor(seeds, name="Dense network, each seed", parallelism=place.parallelism) as seed:
                dense = retrain(
                    structures=unpruned.outputs["structures"],
                    split=split.outputs["split"],
                    network="dense",
                    recipe=recipe,
                    settings=retrain_settings,
                    seed=seed,
                )
                place.retrain(dense, pools).set_display_name("Train the dense network")
            comparison = compare_methods(
                split=split.outputs["split"],
                gates=dsl.Collected(search.outputs["gates"]),
                structures=dsl.Collected(extraction.outputs["structures"]),
                models=dsl.Collected(training.outputs["model"]),
                latencies=dsl.Collected(latency.outputs["latency"]),
                dense=dsl.Collected(dense.outputs["model"]),
            )
            place.cpu(comparison, pools, hours=1).set_display_name("Compare")

    return compare
