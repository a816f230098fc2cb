"""Runs of a comparison: the results of one, as if something else had led to them."""

import dataclasses

import pandas as pd

from pfs_core.runtime.cost import StageCost


def a_run(results, method="pfs", seed=0, accuracy=0.5):
    """The same results as if another method or seed had led to them."""
    metrics = {}
    for name, found in results.metrics.items():
        right = accuracy + 0.1 if name == "dense" else accuracy
        tested = {"test_accuracy": right, "test_accuracy_interval": (right - 0.01, right + 0.01)}
        metrics[name] = found.model_copy(update={"seed": seed, **tested})
    history = pd.DataFrame() if method == "random" else results.search_history
    cost = StageCost(seconds=5.0, device_seconds=7.0, forward_images=300, backward_images=200)
    stages = {"pretrain": cost, "search": cost}
    search = results.search.model_copy(update={"method": method, "seconds": 10.0 * (seed + 1), "cost": stages})
    return dataclasses.replace(results, search=search, search_history=history, metrics=metrics)


def measured(results, **changes):
    """The latencies, had the quoted measurement been another."""
    quoted = results.quoted.model_copy(update=changes)
    return results.latency.model_copy(update={"measurements": [quoted, *results.latency.measurements[1:]]})


def cut_by(run, multiple, asked):
    """The same run, had the extraction been asked for ``asked`` and found ``multiple``."""
    pruned = run.structures["pruned"]
    found = {
        "chosen_by": {**pruned.chosen_by, "channel_multiple": multiple},
        "provenance": {**pruned.provenance, "settings": {"channel_multiple": asked, "floor": 0.0}},
    }
    return dataclasses.replace(run, structures={**run.structures, "pruned": pruned.model_copy(update=found)})


def with_settings(run, *networks, **changes):
    """The run, had ``networks``, or else the pruned one, been trained with other settings."""
    metrics = dict(run.metrics)
    for network in networks or ("pruned",):
        trained = metrics[network]
        metrics[network] = trained.model_copy(update={"config": trained.config.updated(changes, "retrain")})
    return dataclasses.replace(run, metrics=metrics)


def with_split(run, **changes):
    """The run, had its dataset been split with other settings."""
    split = run.split.model_copy(update={"config": run.split.config.updated(changes, "split")})
    return dataclasses.replace(run, split=split)
