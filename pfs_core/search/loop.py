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
from torch import Tensor, nn
from torch.func import functional_call

import pfs_core
from pfs_core.channels import ChannelGraph, resize, trace
from pfs_core.checkpoints import Checkpoints
from pfs_core.cut import check_reachable
from pfs_core.data import ImageSplit, load_split
from pfs_core.data.augment import Normalise
from pfs_core.device import autocast, memory_format, pick_device, resolve_precision
from pfs_core.errors import UserError
from pfs_core.files import check_out, publish, read_json, require_result, write_json
from pfs_core.models import build_model
from pfs_core.progress import Record, TimeLeft, ignore, say
from pfs_core.recipes import SearchRecipe
from pfs_core.search.gates import Gates
from pfs_core.spec import Budget, ModelSpec
from pfs_core.training.advance import Progress
from pfs_core.training.evaluate import accuracy, predict

SCHEMA = "pfs.gates/1"


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
    device = pick_device()
    data = load_split(split, device)
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
    target = recipe.target_ratio or min(1.0, budget.fraction(getattr(graph.cost(), budget.metric)))
    check_reachable(graph, widths, budget)
    model = resize(model, graph, widths).to(device)
    started = time.perf_counter()
    key = {
        "step": "search",
        "model": spec.model_dump(mode="json"),
        "recipe": recipe.model_dump(mode="json"),
        "target": target,
        "seed": seed,
        "split": data.info["fingerprint"],
        "device": device.type,
    }
    with Checkpoints(out, key) as kept:
        best, history = learn_gates(model, graph.at(widths), data, target, recipe, seed, record, kept)
    info = {
        "schema": SCHEMA,
        "model": spec.model_dump(mode="json"),
        "recipe": recipe.model_dump(),
        "budget": str(budget),
        "target_ratio": target,
        "precision": resolve_precision(recipe.precision, device),
        "device": str(device),
        "seed": seed,
        "kept_epoch": best["epoch"],
        "validation_accuracy": best["val_accuracy"],
        "nonzero": best["nonzero"],
        "split_fingerprint": data.info["fingerprint"],
        "pfs_version": pfs_core.__version__,
        "seconds": time.perf_counter() - started,
    }
    with publish(out, "search") as folder:
        save_file(best["gates"], folder / "gates.safetensors")
        pq.write_table(pa.Table.from_pylist(history), folder / "history.parquet")
        write_json(folder / "search.json", info)
    kept.clear()
    return info


def learn_gates(
    model: nn.Module,
    graph: ChannelGraph,
    data: ImageSplit,
    target: float,
    recipe: SearchRecipe,
    seed: int,
    record: Record,
    kept: Checkpoints | None = None,
) -> tuple[dict[str, Any], list[dict[str, Any]]]:
    """The loop itself: the evaluation whose gates are kept (with ``gates`` by group), and the row of every one.

    Kept is the best validation accuracy among evaluations whose non-zero fraction is at most ``target``, else the
    last evaluation.
    """
    gates = Gates(model, graph)
    device = gates.values.device
    precision = resolve_precision(recipe.precision, device)
    layout = memory_format(device, precision, (g.width for g in graph.groups if g.resizable))
    model.to(memory_format=layout).train()
    normalise = Normalise(data.info, device, layout)
    training, validation = data.part("train"), data.part("validation")
    optimiser = torch.optim.Adam([gates.values], lr=recipe.lr)
    random = torch.Generator().manual_seed(seed)

    def forward(images: Tensor) -> Tensor:
        with autocast(device, precision):
            return functional_call(model, gates.scales(), (normalise(images),)).float()

    progress = Progress(device, random)
    history: list[dict[str, Any]] = []
    best: dict[str, Any] | None = None
    if state := kept.load() if kept else None:
        progress.restore(state)
        history, best = state["history"], state["best"]
        gates.restore(state["gates"])
        optimiser.load_state_dict(state["optimiser"])
        model.load_state_dict(state["buffers"], strict=False)
        for row in history:
            record(row)
    left = TimeLeft(progress.epoch - 1)
    for epoch in range(progress.epoch, recipe.epochs + 1):
        for images, labels in training.epoch(recipe.batch_size, random, progress.begin(epoch)):
            cross_entropy = F.cross_entropy(forward(images), labels)
            regulariser = recipe.gamma * (gates.mean() - target) ** 2
            optimiser.zero_grad(set_to_none=True)
            (cross_entropy + regulariser).backward()
            optimiser.step()
            gates.clamp_()
            progress.add(torch.stack([cross_entropy.detach(), regulariser.detach()]) * len(labels), len(labels))
            if kept and kept.due():
                state = {"history": history, "best": best, "gates": gates.values.detach()}
                state |= {"optimiser": optimiser.state_dict(), "buffers": dict(model.named_buffers())}
                kept.save(progress.step, progress.state() | state)
        cross_entropy_mean, regulariser_mean = progress.means()
        predictions = predict(model, forward, validation)
        row = {
            "epoch": epoch,
            "step": progress.step,
            "loss": cross_entropy_mean + regulariser_mean,
            "cross_entropy": cross_entropy_mean,
            "regulariser": regulariser_mean,
            "mean_gate": gates.mean().item(),
            "nonzero": gates.nonzero(),
            "val_accuracy": accuracy(predictions, validation.labels),
        }
        history.append(row)
        record(row)
        say(
            f"search epoch {epoch}/{recipe.epochs}  loss {row['loss']:.4f}  mean gate {row['mean_gate']:.3f}  "
            f"non-zero {row['nonzero']:.3f}  validation accuracy {row['val_accuracy']:.4f}  "
            f"left {left(epoch, recipe.epochs)}"
        )
        if row["nonzero"] <= target and (best is None or row["val_accuracy"] > best["val_accuracy"]):
            best = {**row, "gates": gates.by_group()}
    return best or {**history[-1], "gates": gates.by_group()}, history


def load_gates(folder: str | Path) -> tuple[dict[str, Tensor], dict[str, Any]]:
    """The gates a group and the content of ``search.json``; UserError if ``folder`` is not a gates folder."""
    folder = require_result(folder, "search", "pfs search --model M --split DIR OUT")
    info = read_json(folder / "search.json")
    if info.get("schema") != SCHEMA:
        raise UserError(f"{folder / 'search.json'} has schema {info.get('schema')!r}; expected {SCHEMA!r}")
    return load_file(folder / "gates.safetensors"), info
