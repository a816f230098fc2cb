"""The five steps that make a slim network and measure it: settings in, a folder out, tracked in MLflow.

Each takes plain values, as a pipeline passes them, and returns the few numbers that stand for its result; what is not
finite is left out. ``out`` must not be there or be empty; it gets its name when it is whole. ``recipe_name`` may be
empty for the recipe that suits the dataset, ``settings`` are changes to its stage.
What cannot be done raises :class:`~pfs_core.errors.UserError`, with a line that says what would be right.
"""

import os
from collections.abc import Sequence
from functools import partial
from pathlib import Path
from typing import Any

from pfs_core.config.overrides import Settings, prefixed, recipe_for, whole_numbers
from pfs_core.config.seed import check_seed
from pfs_core.errors import UserError
from pfs_core.steps.folders import about, split_info
from pfs_core.steps.kept import keep, known_inputs, taken
from pfs_core.tracking import StepRun, finite, step_run
from pfs_core.training.finished import until_safe


def split(
    dataset: str, out: str | Path, recipe_name: str = "", settings: Settings | None = None, seed: int = 0
) -> dict[str, Any]:
    """Write the ``split`` folder of a dataset.

    Args:
        dataset: an address, see :func:`pfs_core.data.open.open_source`.
        out: the folder to write.
        recipe_name: a recipe.
        settings: changes to its ``split``.
        seed: of what is drawn, as the validation images.

    Returns:
        ``train_rows``, ``validation_rows`` and ``test_rows`` in images, and the number of ``classes``.

    Raises:
        UserError: there is no such dataset, it is broken, or a setting does not fit it.
    """
    from pfs_core.data import split_dataset
    from pfs_core.data.open import content_of

    check_seed(seed)
    config = recipe_for(recipe_name, dataset).stage("split", settings or {})
    params = prefixed("split", {"dataset": dataset, "seed": seed, **config.model_dump()})
    if (inputs := known_inputs(params)) is not None:
        inputs["content"] = content_of(dataset)  # which lists it, as the split then does once more
    if (figures := taken("split", inputs, out)) is not None:
        return figures
    with step_run("split", params, dataset.rstrip("/").rpartition("/")[2], {"dataset": dataset, "seed": seed}) as run:
        info = split_dataset(dataset, out, config, seed)
        result = {f"{part}_rows": rows for part, rows in info.rows.items()} | {"classes": len(info.class_names)}
        run.metrics(result)
        run.dataset(info.dataset, info.fingerprint, "split")
        for name in ("split.json", "dataset.html"):
            run.artifact(Path(out) / name, "split")
    return keep("split", inputs, out, finite(result))


@until_safe(uploaded_later=True)
def search(
    model: str,
    split_dir: str | Path,
    out: str | Path,
    budget: str = "macs=0.5",
    recipe_name: str = "",
    settings: Settings | None = None,
    model_settings: Settings | None = None,
    seed: int = 0,
    profile: bool = False,
) -> dict[str, Any]:
    """Write the ``gates`` folder of a network by the method that ``settings`` name (``pfs`` if they name none).

    Args:
        model: the name of a network.
        split_dir: a ``split`` folder.
        out: the folder to write.
        budget: what will be cut to, as ``macs=0.5``.
        recipe_name: a recipe.
        settings: changes to its ``search``.
        model_settings: arguments of the network.
        seed: of weights, order and draws.
        profile: only time some steps of ``pfs`` and write what they took.

    Returns:
        ``validation_accuracy`` (of the gated network, 0 to 1), ``nonzero`` (the share of gates above 0),
        ``kept_epoch``, ``steps``, ``seconds`` and ``peak_memory_mib.*``, as far as the method has them. With
        ``profile`` those of :func:`pfs_core.methods.pfs.profiling.profile_search`.

    Raises:
        UserError: see :func:`pfs_core.methods.run.search`; or ``profile`` is asked of another method.
    """
    from pfs_core.config.spec import Budget, ModelSpec
    from pfs_core.methods.pfs.config import PfsConfig
    from pfs_core.methods.registry import method_config
    from pfs_core.methods.run import search as run_search

    check_seed(seed)
    data = split_info(split_dir)
    config = method_config(recipe_for(recipe_name, data.dataset), settings or {})
    spec = ModelSpec.parse({"name": model, "kwargs": whole_numbers(dict(model_settings or {}))}, "model")
    goal = Budget.from_text(budget)
    if profile:
        if not isinstance(config, PfsConfig):
            raise UserError(f"--profile is of search.method=pfs, not of {config.method}")
        from pfs_core.methods.pfs.profiling import profile_search

        return profile_search(spec, split_dir, out, goal, config, seed)
    inputs = {"model": model, "model_settings": spec.kwargs, "split": data.fingerprint, "budget": str(goal)}
    params = prefixed("search", {**inputs, "seed": seed, **config.model_dump()})
    known = known_inputs({**params, "images": data.digest}, spec, config.precision)
    if (figures := taken("search", known, out)) is not None:
        return figures
    tags = {"model": model, "budget": goal, "seed": seed, "dataset": data.dataset, "method": config.method}
    with step_run("search", params, f"{model} {goal}", tags, watch=True) as run:
        info = run_search(spec, split_dir, out, goal, config, seed, partial(_record, run, config.history_axis))
        fields = {"validation_accuracy", "pretrained_accuracy", "nonzero", "kept_epoch", "steps", "seconds"}
        result = info.model_dump(include=fields, exclude_none=True)
        result |= prefixed("peak_memory_mib", info.peak_memory_mib)
        costs: dict[str, Any] = {}
        for stage, cost in info.cost.items():
            costs |= prefixed(stage, cost.model_dump())
        run.metrics(prefixed("kept", result) | costs)
        if "search" in info.cost and info.cost["search"].forward_images:
            run.dataset(data.dataset, data.fingerprint, "search")
        run.artifact(out, "gates")
    return keep("search", known, out, finite(result))


def _record(run: StepRun, axis: str, row: dict[str, Any]) -> None:
    """Log a row of a search; those of a training before it have epochs only."""
    run.row(row, at=axis if axis in row else "epoch")


def extract(
    gates_dir: str | Path,
    out: str | Path,
    budget: str = "macs=0.5",
    recipe_name: str = "",
    settings: Settings | None = None,
) -> dict[str, Any]:
    """Write the ``structures`` folder of gates cut at a budget.

    Args:
        gates_dir: a ``gates`` folder.
        out: the folder to write.
        budget: as ``macs=0.5`` or ``latency=0.6``, relative to the dense network, or ``macs=20M``.
        recipe_name: a recipe.
        settings: changes to its ``extract``.

    Returns:
        Of the pruned structure: ``macs`` and ``params``, both also as ``*_fraction`` of the dense network's,
        ``budget_gap`` (what is left of the budget, a fraction or a count as it is) and ``extract_seconds``.

    Raises:
        UserError: see :func:`pfs_core.steps.extraction.extract_structures`.
    """
    from pfs_core.config.spec import Budget
    from pfs_core.methods.gates_folder import search_info
    from pfs_core.runtime.cost import seconds_of
    from pfs_core.steps.extraction import extract_structures
    from pfs_core.storage.artifacts import COMPLETE
    from pfs_core.storage.digests import file_digest

    info = search_info(gates_dir)
    config = recipe_for(recipe_name, info.dataset).stage("extract", settings or {})
    goal = Budget.from_text(budget)
    gates = file_digest(Path(gates_dir) / "gates.safetensors")
    params = prefixed("extract", {"gates": gates, "budget": str(goal), **config.model_dump()})
    # Equal gates may be of other searches and of other networks, as those of ``uniform`` are.
    searched = {"search": file_digest(Path(gates_dir) / COMPLETE)}
    measures = goal.metric == "latency" or config.blocks == "auto"
    known = known_inputs({**params, **searched}, info.model, measures=measures)
    if (figures := taken("extract", known, out)) is not None:
        return figures
    with step_run("extract", params, str(goal), {"budget": goal, "method": info.method}) as run:
        pruned = extract_structures(gates_dir, out, goal, config)["pruned"]
        result = {
            **pruned.cost.model_dump(),
            "macs_fraction": pruned.cost.macs / pruned.reference.macs,
            "params_fraction": pruned.cost.params / pruned.reference.params,
            "budget_gap": pruned.budget.gap,
            "extract_seconds": seconds_of(out),
        }
        run.metrics(result)
        run.artifact(out, "structures")
    return keep("extract", known, out, finite(result))


@until_safe(uploaded_later=True)
def retrain(
    structure: str | Path,
    split_dir: str | Path,
    out: str | Path,
    recipe_name: str = "",
    settings: Settings | None = None,
    seed: int = 0,
    train_job: Settings | None = None,
) -> dict[str, Any]:
    """Train the network of a structure file and write the ``model`` folder.

    Args:
        structure: a structure file.
        split_dir: a ``split`` folder.
        out: the folder to write.
        recipe_name: a recipe.
        settings: changes to its ``retrain``.
        seed: of weights, order and augmentation.
        train_job: settings of a :class:`pfs_core.trainjob.manifest.TrainJob`, with which the nodes of a cluster train.

    Returns:
        ``test_accuracy`` (0 to 1), ``macs``, ``params``, ``epochs``, ``seconds``, ``peak_memory_mib.*`` and the cost
        of the training as ``retrain.*``.

    Raises:
        UserError: see :func:`pfs_core.training.retrain.retrain`.
    """
    from pfs_core.storage.digests import file_digest
    from pfs_core.structure import Structure
    from pfs_core.structure.inherited_weights import inherited_file
    from pfs_core.training.retrain import fine_tuned
    from pfs_core.training.retrain import retrain as train
    from pfs_core.trainjob.manifest import TrainJob
    from pfs_core.trainjob.retrain import retrain_on_cluster

    check_seed(seed)
    data = split_info(split_dir)
    config = recipe_for(recipe_name, data.dataset).stage("retrain", settings or {})
    loaded = Structure.load(structure)
    initial = inherited_file(structure) if fine_tuned(loaded, config) else None
    inputs: dict[str, Any] = {"network": loaded.network, "structure": file_digest(structure), "split": data.fingerprint}
    inputs |= {"initial": file_digest(initial)} if initial else {}
    params = prefixed("retrain", {**inputs, "seed": seed, **config.model_dump()})
    known = known_inputs({**params, "images": data.digest}, loaded.model, config.precision)
    step = f"retrain/{loaded.network}"
    if (figures := taken(step, known, out)) is not None:
        return figures
    tags = {**about(loaded), "seed": seed, "dataset": data.dataset}
    with step_run(step, params, loaded.title, tags, watch=not train_job) as run:
        if train_job:
            job = TrainJob.parse(whole_numbers(dict(train_job)), "train_job")
            inputs = {"recipe": recipe_name, "settings": dict(settings or {}), "seed": seed}
            info = retrain_on_cluster(job, Path(structure), Path(split_dir), Path(out), inputs, run.id, initial)
        else:
            info = train(loaded, split_dir, out, config, seed, run.row, initial)
        result = info.model_dump(include={"test_accuracy", "macs", "params", "epochs", "seconds"})
        result |= prefixed("peak_memory_mib", info.peak_memory_mib)
        result |= prefixed("retrain", info.cost["retrain"].model_dump())
        run.metrics(result)
        run.dataset(data.dataset, data.fingerprint, "training")
        run.artifact(out, "model")
    return keep(step, known, out, finite(result))


def benchmark(
    structures: Sequence[str | Path],
    out: str | Path,
    recipe_name: str = "",
    settings: Settings | None = None,
    seed: int = 0,
) -> dict[str, Any]:
    """Measure structure files beside their dense network and write the ``latency`` folder.

    Args:
        structures: structure files of one network.
        out: the folder to write.
        recipe_name: a recipe.
        settings: changes to its ``latency``.
        seed: of the order, the weights and the images.

    Returns:
        For every network ``NAME_p50_ms``, the median in milliseconds, and ``NAME_ratio`` to the dense network, in the
        runtime that is quoted first; those of others are ``NAME_RUNTIME_p50_ms`` and ``NAME_RUNTIME_ratio``.

    Raises:
        UserError: see :func:`pfs_core.latency.benchmarking.benchmark`.
    """
    from pfs_core.latency import benchmark as measure
    from pfs_core.storage.digests import file_digest
    from pfs_core.structure import Structure

    check_seed(seed)
    loaded = [Structure.load(path) for path in structures]
    config = recipe_for(recipe_name, loaded[0].dataset).stage("latency", settings or {})
    inputs = {"structures": [file_digest(path) for path in structures]}
    params = prefixed("latency", {**inputs, "seed": seed, **config.model_dump()})
    # Measured in every run, but not twice in a run that is started again.
    known = known_inputs({**params, "run": os.environ.get("KFP_RUN_ID", "")}, loaded[0].model, measures=True)
    if (figures := taken("latency", known, out)) is not None:
        return figures
    with step_run("latency", params, loaded[0].title, about(loaded[0])) as run:
        info = measure(loaded, out, config, seed)
        result: dict[str, float] = {}
        for found in (info.quoted, *info.beside_quoted):
            runtime = "" if found is info.quoted else f"{found.runtime}_"
            result |= {f"{name}_{runtime}p50_ms": stats.p50_ms for name, stats in found.models.items()}
            result |= {f"{name}_{runtime}ratio": ratio.ratio for name, ratio in found.ratios_to_dense.items()}
        run.metrics(result)
        run.artifact(out, "latency")
    return keep("latency", known, out, finite(result))
