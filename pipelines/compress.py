"""The pipeline for one model and one budget, which runs on a laptop as well as on a cluster."""

from typing import Any, List

from kfp import dsl
from pfs_components import benchmark_latency, check_request, close_run, report, retrain, split_data
from pfs_pipelines import find_structure
from pfs_pipelines.pools import Placement, Pools, passed_on, with_form

DESCRIPTION = """Finds a smaller network by *Pruning from Scratch*: learns one gate per channel on frozen random
weights, cuts at the budget, trains the slim network from scratch and measures its CPU latency.

The page of the step **Report** has the result. To see the figures of several runs side by side, compare them in the
UI."""


def define(place: Placement = Placement()) -> Any:
    """Define the ``compress`` pipeline, with its steps on the pools of ``place``."""
    find = find_structure.define(place)

    @dsl.pipeline(name="compress", display_name="Compress a network", description=DESCRIPTION)
    @with_form
    def compress(
        model: str = "resnet20",
        dataset: str = "digits",
        budget: str = "macs=0.5",
        recipe: str = "",
        seed: int = 0,
        networks: List[str] = ["pruned", "dense"],
        registered_model: str = "",
        model_settings: dict = {},
        split_settings: dict = {},
        search_settings: dict = {},
        extract_settings: dict = {},
        retrain_settings: dict = {},
        latency_settings: dict = {},
        train_job: dict = {},
        pools: Pools = Pools(),
    ) -> None:
        """Compress one network to one budget.

        Args:
            model: Name of the network: resnet20, torchvision:resnet18, timm:efficientnet_b0, package.module:factory.
            dataset: digits, or a folder or s3:// prefix with Parquet or Arrow files with columns image and label, one
                folder of images per class, a list of images, WebDataset tars, IDX files or CIFAR's Python files.
            budget: A share of the dense network's MACs, parameters or CPU latency, e.g. macs=0.5, or a count: macs=20M.
            recipe: Name of a recipe with the settings of all steps: demo, fast, standard, cifar-sfp, cifar-official,
                imagenet-mobilenet or imagenet-resnet; empty for the one that suits the dataset.
            seed: Seed of the split, the random weights and the training.
            networks: Networks to train. With "dense", the report shows how much accuracy the pruning cost; with
                "uniform", how much the search was worth.
            registered_model: Name in the MLflow Model Registry; empty for pfs- and the network's name.
            model_settings: Keyword arguments of the network, e.g. {"width": 32}.
            split_settings: Changes to the recipe's split settings.
            search_settings: Changes to the recipe's search settings, e.g. {"epochs": 5}; {"method": "network_slimming"}
                (or amc, random, uniform) searches by another method.
            extract_settings: Changes to the recipe's extract settings, e.g. {"channel_multiple": 8}.
            retrain_settings: Changes to the recipe's retrain settings, e.g. {"epochs": 20}.
            latency_settings: Changes to the recipe's latency settings.
            train_job: Empty to train in the step itself, or the settings of a TrainJob that trains on several nodes,
                e.g. {"nodes": 2, "processes": 4, "shared": "s3://bucket/jobs", "image": "..."}.
        """
        closing = place.cpu(close_run(), pools, hours=1).set_display_name("Close the run").set_caching_options(False)
        with dsl.ExitHandler(closing, name="Compress"):
            asked = {
                "model": model,
                "dataset": dataset,
                "recipe": recipe,
                "seed": seed,
                "networks": networks,
                "model_settings": model_settings,
                "split_settings": split_settings,
                "search_settings": search_settings,
                "extract_settings": extract_settings,
                "retrain_settings": retrain_settings,
                "latency_settings": latency_settings,
            }
            check = check_request(budgets=[budget], train_job=train_job, **asked)
            place.cpu(check, pools, hours=1).set_display_name("Check the request").set_caching_options(False)
            stages(
                place,
                pools,
                find,
                fingerprint=check.output,
                budget=budget,
                registered_model=registered_model,
                train_job=train_job,
                **asked,
            )

    return compress


def stages(
    place: Placement,
    pools: Pools,
    find: Any,
    *,
    fingerprint: Any,
    model: Any,
    dataset: Any,
    budget: Any,
    recipe: Any,
    seed: Any,
    registered_model: Any,
    model_settings: Any,
    search_settings: Any,
    retrain_settings: Any,
    latency_settings: Any,
    networks: Any = ["pruned", "dense"],
    split_settings: Any = {},
    extract_settings: Any = {},
    train_job: Any = {},
    label: Any = "",
) -> dsl.PipelineTask:
    """Add the steps from split to report to the pipeline that is being defined; returns the task of the report.

    ``find`` is the pipeline of :mod:`pfs_pipelines.find_structure`. KFP requires that it is defined before, and not
    within, the pipeline that it becomes a part of.
    """
    split = split_data(dataset=dataset, recipe=recipe, settings=split_settings, seed=seed, fingerprint=fingerprint)
    place.cpu(split, pools).set_display_name("Split data")
    structure_search = find(
        model=model,
        split=split.outputs["split"],
        budget=budget,
        recipe=recipe,
        seed=seed,
        settings_model=model_settings,
        settings_search=search_settings,
        settings_extract=extract_settings,
        **passed_on(pools),
    )
    structure_search.set_display_name("Find the structure")
    structures = structure_search.outputs["structures"]
    with dsl.ParallelFor(networks, name="Retrain each network", parallelism=place.parallelism) as network:
        training = retrain(
            structures=structures,
            split=split.outputs["split"],
            network=network,
            recipe=recipe,
            settings=retrain_settings,
            seed=seed,
            train_job=train_job,
        )
        place.retrain(training, pools).set_display_name("Retrain from scratch")
    latency = benchmark_latency(
        structures=structures,
        recipe=recipe,
        settings=latency_settings,
        seed=seed,
        accuracies=dsl.Collected(training.outputs["Output"]),
    )
    place.latency(latency, pools).set_display_name("Benchmark CPU latency")
    page = report(
        split=split.outputs["split"],
        gates=structure_search.outputs["gates"],
        structures=structures,
        models=dsl.Collected(training.outputs["model"]),
        latency=latency.outputs["latency"],
        registered_model=registered_model,
        label=label,
    )
    return place.cpu(page, pools, hours=1).set_display_name("Report")
