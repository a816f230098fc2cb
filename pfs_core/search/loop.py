"""The gate search of Wang et al. (2020), section 3: minutes on random weights that are never updated.

loss = cross_entropy(f(x; frozen weights, gates), y) + gamma * (mean gate - r)^2
"""

import time
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
import torch
import torch.nn.functional as F
from safetensors.torch import load_file, save_file
from torch import Tensor

import pfs_core
from pfs_core.channels import resize, trace
from pfs_core.checkpoints import Checkpoints
from pfs_core.cut import check_reachable
from pfs_core.data import ImageSplit, load_split
from pfs_core.data.augment import Normalise
from pfs_core.data.images import Images
from pfs_core.device import memory_text, peak_memory, pick_device, resolve_precision, reuse_memory
from pfs_core.errors import UserError
from pfs_core.files import check_out, publish, read_json, require_result, write_json
from pfs_core.models import build_model
from pfs_core.progress import Record, TimeLeft, ignore, say
from pfs_core.recipes import SearchRecipe
from pfs_core.search.evaluations import Evaluations
from pfs_core.search.network import GatedNetwork
from pfs_core.spec import Budget, ModelSpec
from pfs_core.training.advance import Progress
from pfs_core.training.evaluate import accuracy, predict

SCHEMA = "pfs.gates/1"
ADVICE = "a lower search.lr or search.precision=fp32"


def search(
    spec: ModelSpec,
    split: str | Path,
    out: str | Path,
    budget: Budget = Budget(target=0.5),
    recipe: SearchRecipe = SearchRecipe(),
    seed: int = 0,
    record: Record = ignore,
) -> dict[str, Any]:
    """Learn the gates of ``spec`` and write the ``gates`` folder.

    ``gates.safetensors`` has one float32 vector a prunable group, ``history.parquet`` a row an evaluation,
    ``search.json`` the spec, recipe, seed and timings. The same seed gives the same gates, byte
    for byte, on one machine with one number of threads.

    Args:
        spec: the network; its ``expand`` is replaced by the recipe's.
        split: a ``split`` folder.
        out: the folder to write.
        budget: what the structure will be cut to; its fraction is the regulariser's target ratio.
        recipe: see :class:`SearchRecipe`.
        seed: of the random weights and of the order of the images.
        record: called with every row of the history.

    Returns:
        The content of ``search.json``.

    Raises:
        UserError: the split is not one, the network cannot process its images or has nothing to prune.
    """
    check_out(out, "search")
    data = load_split(split, pick_device())
    spec, network, evaluations = prepare(spec, data, budget, recipe, seed)
    started = time.perf_counter()
    key = {
        "step": "search",
        "model": spec.model_dump(mode="json"),
        "recipe": recipe.model_dump(mode="json"),
        "budget": str(budget),
        "seed": seed,
        "split": data.info["fingerprint"],
        "device": data.device.type,
    }
    with Checkpoints(out, key) as kept:
        learn_gates(network, evaluations, data, recipe, seed, record, kept)
    best = evaluations.best or {**evaluations.rows[-1], "gates": network.by_group()}
    info = {
        "schema": SCHEMA,
        "model": spec.model_dump(mode="json"),
        "recipe": recipe.model_dump(),
        "budget": str(budget),
        "target_ratio": evaluations.target,
        "precision": network.precision,
        "device": str(data.device),
        "seed": seed,
        "kept_epoch": best["epoch"],
        "kept_step": best["step"],
        "steps": evaluations.rows[-1]["step"],
        "validation_accuracy": best["val_accuracy"],
        "nonzero": best["nonzero"],
        "split_fingerprint": data.info["fingerprint"],
        "pfs_version": pfs_core.__version__,
        "seconds": time.perf_counter() - started,
        "peak_memory_mib": peak_memory(data.device),
    }
    with publish(out, "search") as folder:
        save_file(best["gates"], folder / "gates.safetensors")
        pq.write_table(pa.Table.from_pylist(evaluations.rows), folder / "history.parquet")
        write_json(folder / "search.json", info)
    kept.clear()
    say(
        f"search {spec.name}  {info['nonzero']:.1%} of the gates above 0 at step {info['kept_step']:,}  "
        f"{info['seconds']:.0f} s  {memory_text(info['peak_memory_mib'])}"
    )
    return info


def prepare(
    spec: ModelSpec, data: ImageSplit, budget: Budget, recipe: SearchRecipe, seed: int
) -> tuple[ModelSpec, GatedNetwork, Evaluations]:
    """The spec as the data and the recipe have it, its expanded network with gates, and what will be known of them."""
    spec = spec.updated(
        {
            "num_classes": data.num_classes,
            "input_shape": data.input_shape,
            "expand": recipe.expand,
            "expand_stream": recipe.expand_stream,
        },
        "model",
    )
    torch.manual_seed(seed)
    model = build_model(spec)
    graph = trace(model, spec.input_shape, recipe.policy, recipe.placement)
    widths = graph.expanded(spec.expand, spec.expand_stream)
    budget = budget.in_macs
    check_reachable(graph, widths, budget)
    target = recipe.target_ratio or min(1.0, budget.fraction(getattr(graph.cost(), budget.metric)))
    model = resize(model, graph, widths).to(data.device)
    if data.device.type == "cpu":
        reuse_memory()
    precision = resolve_precision(recipe.precision, data.device)
    network = GatedNetwork(model, graph.at(widths), precision, recipe.lr, recipe.compile)
    return spec, network, Evaluations(graph, widths, budget, target, recipe)


def learn_gates(
    network: GatedNetwork,
    evaluations: Evaluations,
    data: ImageSplit,
    recipe: SearchRecipe,
    seed: int,
    record: Record,
    kept: Checkpoints | None = None,
) -> None:
    """The loop itself; it fills ``evaluations``.

    Raises:
        UserError: the loss is no longer finite.
    """
    target = evaluations.target
    normalise = Normalise(data.info, data.device, torch.channels_last)
    training, validation = data.part("train"), data.part("validation")
    steps = training.steps(recipe.batch_size)
    total = recipe.epochs * steps
    every = recipe.evaluate_every or steps
    random = torch.Generator().manual_seed(seed)
    progress = Progress(data.device, random)
    if state := kept.load() if kept else None:
        progress.restore(state)
        network.restore(state["network"])
        evaluations.restore(state["evaluations"])
        for row in evaluations.rows:
            record(row)
    left = TimeLeft(progress.step)
    for epoch in range(progress.epoch, recipe.epochs + 1):
        for images, labels in training.epoch(recipe.batch_size, random, progress.begin(epoch)):
            cross_entropy = F.cross_entropy(network(normalise(images)), labels)
            regulariser = recipe.gamma * (network.mean() - target) ** 2
            network.step(cross_entropy + regulariser)
            progress.add(torch.stack([cross_entropy.detach(), regulariser.detach()]) * len(labels), len(labels))
            if progress.step % every == 0 or progress.step % steps == 0:
                row = evaluations.add(evaluate(network, progress, normalise, validation), network.by_group())
                record(row)
                say(f"search {_line(row, steps, recipe)}  left {left(progress.step, total)}")
                if evaluations.settled():
                    say(f"search ends after step {progress.step:,} of {total:,}: the structure has settled")
                    return
            if kept and kept.due(progress.step):
                progress.check([network.gates.values], "search", ADVICE)
                parts = {"network": network.state(), "evaluations": evaluations.state()}
                kept.save(progress.step, progress.state() | parts)


def evaluate(network: GatedNetwork, progress: Progress, normalise: Normalise, validation: Images) -> dict[str, Any]:
    """A row of the history; UserError if the loss is no longer finite."""
    progress.check([network.gates.values], "search", ADVICE)
    cross_entropy, regulariser = progress.means()
    predictions = predict(network.module, lambda images: network(normalise(images)), validation)
    return {
        "epoch": progress.epoch,
        "step": progress.step,
        "loss": cross_entropy + regulariser,
        "cross_entropy": cross_entropy,
        "regulariser": regulariser,
        "mean_gate": network.mean().item(),
        "nonzero": network.nonzero(),
        "val_accuracy": accuracy(predictions, validation.labels),
    }


def _line(row: dict[str, Any], steps: int, recipe: SearchRecipe) -> str:
    epochs = f"{row['step'] / steps:.1f}" if recipe.evaluate_every else str(row["epoch"])
    return (
        f"epoch {epochs}/{recipe.epochs}  loss {row['loss']:.4f}  mean gate {row['mean_gate']:.3f}  "
        f"non-zero {row['nonzero']:.3f}  moved {row['moved']:.3f}  validation accuracy {row['val_accuracy']:.4f}"
    )


def load_gates(folder: str | Path) -> tuple[dict[str, Tensor], dict[str, Any]]:
    """The gates a group and the content of ``search.json``; UserError if ``folder`` is not a gates folder."""
    folder = require_result(folder, "search", "pfs search --model M --split DIR OUT")
    info = read_json(folder / "search.json")
    if info.get("schema") != SCHEMA:
        raise UserError(f"{folder / 'search.json'} has schema {info.get('schema')!r}; expected {SCHEMA!r}")
    return load_file(folder / "gates.safetensors"), info
