"""What a run will take, before it is started: its steps, their images and MACs, the time and the disk."""

import math
import os
import time
from dataclasses import dataclass

import numpy as np
import torch

from pfs_core.channels import Cost
from pfs_core.config.overrides import recipe_for
from pfs_core.config.request import CompressRequest
from pfs_core.config.spec import Budget, ModelSpec
from pfs_core.config.stages import LatencyConfig, SplitConfig
from pfs_core.data.choice import choose_rows
from pfs_core.data.dataset import Source
from pfs_core.data.decode import decode
from pfs_core.data.open import open_source
from pfs_core.data.reading import Reader
from pfs_core.data.split_info import PARTS
from pfs_core.errors import UserError
from pfs_core.latency.machine import disturbance, processor_seconds
from pfs_core.methods.registry import method_config
from pfs_core.models import build_model
from pfs_core.runtime.device import memory_size, pick_device
from pfs_core.structure import unexpanded_graph
from pfs_core.structure.budget_cut import check_reachable
from pfs_core.structure.cut_rules import CutRules
from pfs_core.structure.references import uniform
from pfs_core.training.rate import training_rate
from pfs_core.training.schedule import planned_epochs

_STARTING = 2.0
"""Seconds of the steps that train nothing, and of what every step does besides."""
_AIMING = 40.0
"""Seconds in which the latencies of a small network are measured and a cut is corrected: more for a large one, and less
where they were measured before."""
_STATES = 3
"""Copies of the weights in a step: the weights, their gradients and the momentum."""
_COPIES = 6
"""Copies of the weights of a training: two files of weights, ONNX, and a checkpoint with its momentum."""


@dataclass(frozen=True)
class PlannedStep:
    """A step of a run.

    Attributes:
        name: what it is called.
        what: what it will do, in words.
        seconds: about how long it takes.
    """

    name: str
    what: str
    seconds: float


@dataclass(frozen=True)
class Plan:
    """The steps of a run.

    Attributes:
        title: network, dataset, budget, recipe and seed.
        steps: in the order in which they are run.
        device: what trains.
        memory: MiB of memory that a step of the dense network's training takes, about.
        mib: MiB that the results take on the disk, about.
        busy: what to know if other processes use this machine too; else empty.
    """

    title: str
    steps: list[PlannedStep]
    device: str
    memory: float
    mib: float
    busy: list[str]

    def lines(self) -> list[str]:
        """Return the plan as lines of at most 80 columns."""
        rows = [f"  {step.name:<9}  {step.what:<52.52}  about {_text(step.seconds)}" for step in self.steps]
        total = _text(sum(step.seconds for step in self.steps))
        needs = f"{self.memory:,.0f} MiB of memory for training, {self.mib:,.0f} MiB of disk"
        return [self.title, *rows, f"about {total} in all ({self.device}), {needs}", *self.busy]


def plan(request: CompressRequest) -> Plan:
    """Plan a run to a single budget. Images are listed, not read; a few steps of training are timed.

    Times are those of the dense network's training by the MACs of the others: they say hours or minutes, and are too
    short where reading the images takes longer than training on them.

    Raises:
        UserError: the dataset cannot be opened, the network not be built for it, or not be trained in the memory here,
            or no structure is within the budget.
    """
    before, began = processor_seconds(living=True), time.monotonic()
    recipe = recipe_for(request.recipe, request.dataset)
    split, extract, retrain, latency = (
        recipe.stage(stage, request.stage_settings(stage)) for stage in ("split", "extract", "retrain", "latency")
    )
    search = method_config(recipe, request.search_settings)
    source = open_source(request.dataset, split)
    rows = _rows(source, split, request.seed)
    shape, classes = image_shape(source, split), len(source.class_names)
    fields = {"name": request.model, "kwargs": request.model_settings, "input_shape": shape, "num_classes": classes}
    spec = ModelSpec.parse(fields, "model")
    graph = unexpanded_graph(spec, search.policy, search.placement)
    widths = graph.expanded(search.expand, search.expand_stream)
    dense, expanded = graph.cost(), graph.cost(widths)
    budget = Budget.from_text(request.budgets[0])
    check_reachable(graph, widths, budget)
    check_reachable(graph, widths, budget, CutRules(extract.channel_multiple, extract.floor, extract.block_of_smallest))
    device = pick_device()
    _check_latency_batches(latency, shape)
    _check_memory(4 * dense.params * _STATES, memory_size(device), 0, spec)
    rate = training_rate(build_model(spec), shape, classes, retrain, device)
    share = budget.fraction(dense.macs)
    if budget.metric == "params":
        widened = spec.updated({"expand": search.expand, "expand_stream": search.expand_stream}, "model")
        share = uniform(graph, budget, model=widened).cost.macs / dense.macs
    counts = ", ".join(f"{rows[part]:,} {part}" for part in PARTS)
    batch = retrain.batch_size // retrain.accumulate
    memory = batch * rate.bytes_per_image + 4 * dense.params * _STATES
    _check_memory(memory, memory_size(device), batch, spec)
    work, images = search.work(rows["train"], rows["validation"])
    wider = expanded.macs / dense.macs
    trained = rows["train"] + (rows["validation"] if retrain.train_on_validation else 0)
    steps = [
        PlannedStep("split", f"{counts} of {classes} classes", _STARTING),
        PlannedStep(
            "search",
            f"{search.method}, {work}" + (f" at {wider:.2f}x the MACs" if images else ""),
            _STARTING + images * wider / rate.images,
        ),
        _extract_step(budget, dense),
    ]
    for network in request.networks:
        macs = 1.0 if network == "dense" else share
        network_epochs = planned_epochs(retrain, macs)
        seconds = trained * network_epochs * macs / rate.images
        steps.append(PlannedStep("retrain", f"{network}, {network_epochs} epochs of {trained:,} images", seconds))
    measured = _measuring_seconds(latency)
    steps.append(PlannedStep("benchmark", f"latency in {', '.join(latency.runtimes)}", measured))
    steps.append(PlannedStep("report", "", _STARTING))
    kept = 0 if split.image_size else sum(rows.values()) * int(np.prod(shape))
    mib = (kept + 4 * dense.params * _COPIES * len(request.networks)) / 2**20
    found = disturbance(before, processor_seconds(living=True), time.monotonic() - began)
    busy = where_threads_wait(found["others"]) if device.type == "cpu" else []
    return Plan(title(request), steps, str(device), memory / 2**20, max(mib, 1.0), busy)


def _extract_step(budget: Budget, dense: Cost) -> PlannedStep:
    wholes = {
        "macs": f"{dense.macs:,} MACs",
        "params": f"{dense.params:,} parameters",
        "latency": "the time here, measured",
    }
    seconds = _STARTING + (_AIMING if budget.metric == "latency" else 0)
    return PlannedStep("extract", f"{budget} of {wholes[budget.metric]}", seconds)


def where_threads_wait(others: float) -> list[str]:
    """Return lines on how to train beside other processes, if there are any and PyTorch has several threads.

    Threads of which two have to share a core wait for each other in every operation.

    Args:
        others: the cores that other processes keep busy.
    """
    cores, threads = os.cpu_count() or 1, torch.get_num_threads()
    if threads == 1 or threads + others < 1.1 * cores:
        return []
    return [
        f"other processes use {others:.1f} of {cores} cores; {threads} threads will wait for each other:",
        "OMP_NUM_THREADS=1 may be many times as fast",
    ]


def _check_memory(needed: float, there: int, batch: int, spec: ModelSpec) -> None:
    """Raise UserError where what a step keeps for its backward pass alone is more than the memory that there is.

    A ``batch`` of 0 is the weights alone, with what the optimiser keeps of them.
    """
    if needed > there and not batch:
        raise UserError(
            f"training {spec.name} takes {needed / 2**30:,.1f} GiB of memory for its weights alone, and there are "
            f"{there / 2**30:.1f}; take a smaller network"
        )
    if needed > there:
        raise UserError(
            f"a step of training {spec.name} on {batch} images takes {needed / 2**30:.1f} GiB of memory, and there are "
            f"{there / 2**30:.1f}; lower retrain.batch_size, or compute it in parts with retrain.accumulate"
        )


def _check_latency_batches(latency: LatencyConfig, shape: tuple[int, int, int]) -> None:
    """Raise UserError where the images of a batch that is measured do not fit in memory."""
    most = memory_size(torch.device("cpu")) // (4 * math.prod(shape))
    if max(latency.batches) > most:
        raise UserError(
            f"latency.batches: memory holds at most {most:,} images of {'x'.join(map(str, shape))} at once "
            f"(got {max(latency.batches):,})"
        )


def title(request: CompressRequest) -> str:
    """Return what is asked for in a line."""
    budget = ", ".join(request.budgets)
    return f"{request.model} on {request.dataset} to {budget}, recipe {request.recipe}, seed {request.seed}"


def image_shape(source: Source, config: SplitConfig) -> tuple[int, int, int]:
    """Return channels, height and width of the images that the network will get; of files the first one is read."""
    if source.images is not None:
        channels, height, width = source.images.shape[1:]
        return config.channels or channels, height, width
    if config.input_size:
        return config.channels or 3, *config.input_size
    (data,) = Reader(source).read(np.array([0]))
    channels, height, width = decode(data, config.channels).shape
    return channels, height, width


def _rows(source: Source, config: SplitConfig, seed: int) -> dict[str, int]:
    parts = choose_rows(source, config, seed)
    return {part: int((parts == i).sum()) for i, part in enumerate(PARTS)}


def _measuring_seconds(latency: LatencyConfig) -> float:
    """At most so long the benchmark measures, unless it waits for a busy machine."""
    ways = len(latency.runtimes) * len(latency.threads) * len(latency.batches)
    return ways * (latency.max_seconds + latency.warmup_seconds)


def _text(seconds: float) -> str:
    minutes, seconds = divmod(round(seconds), 60)
    hours, minutes = divmod(minutes, 60)
    return f"{hours}:{minutes:02}:{seconds:02}"
