"""The six steps as the command line and the pipeline run them: settings in, a folder out, tracked in MLflow.

Each takes plain values, as a pipeline passes them, and returns the few numbers that stand for its result.
"""

from collections.abc import Mapping, Sequence
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any

from pfs_core.errors import UserError
from pfs_core.progress import say
from pfs_core.recipes import Recipe, default_recipe, recipe
from pfs_core.tracking import StepRun, finite, mark_finished, step_run

if TYPE_CHECKING:
    from pfs_core.report import Results
    from pfs_core.structure import Structure

Settings = Mapping[str, Any]
STAGES = ("split", "search", "extract", "retrain", "latency")
"""The stages that have settings."""


def check(request: Mapping[str, Any], opens_run: bool = True) -> str:
    """Check a pipeline's arguments (:func:`pfs_core.preflight.check`) and open its run in MLflow, if none has yet.

    Returns:
        What changes when the dataset does.
    """
    from pfs_core.data.source import content_of
    from pfs_core.preflight import check as check_request
    from pfs_core.tracking import open_pipeline

    check_request(request)
    content = content_of(request["dataset"])
    if opens_run:
        method = request["search_settings"].get("method", "pfs")
        words = [request["model"], *request["budgets"], *([method] * (method != "pfs")), f"seed {request['seed']}"]
        name, budgets = " ".join(words), " ".join(request["budgets"])
        tags = {key: request[key] for key in ("model", "seed", "dataset")} | {"budget": budgets, "method": method}
        given = {key: value for key, value in request.items() if key != "search_budget" or value}
        open_pipeline(name, {**given, "budgets": budgets}, tags)
    return content


def plan_comparison(
    model: str,
    dataset: str,
    budget: str,
    methods: Sequence[str],
    seeds: Sequence[int],
    recipe_name: str = "",
    settings: Mapping[str, Settings] | None = None,
) -> list[dict[str, Any]]:
    """Check what a comparison of methods asks for beside :func:`check`, and open its run in MLflow.

    Returns:
        ``method``, ``seed`` and the search's ``settings``, for each method and seed.
    """
    from pfs_core.tracking import open_pipeline

    for what, values in (("method", methods), ("seed", seeds)):
        if not values or len(set(values)) < len(values):
            raise UserError(f"name each {what} once, and at least one (got {list(values)})")
    settings = settings or {}
    for method in settings:
        if method not in methods:
            raise UserError(f"method_settings are of {method!r}, which is none of the methods {list(methods)}")
    changes = {method: {**settings.get(method, {}), "method": method} for method in methods}
    for method in methods:
        chosen(recipe_name, dataset).stage("search", changes[method])
    words = " ".join(methods)
    tags = {"model": model, "dataset": dataset, "budget": budget, "method": words}
    more = {"recipe": recipe_name, "seeds": " ".join(map(str, seeds)), "method_settings": settings}
    open_pipeline(f"compare {model} {budget}", {**tags, **more}, tags)
    return [{"method": method, "seed": seed, "settings": changes[method]} for method in methods for seed in seeds]


def split(
    dataset: str, out: str | Path, recipe_name: str = "", settings: Settings | None = None, seed: int = 0
) -> dict:
    """Write the ``split`` folder of ``dataset``; returns rows a part."""
    from pfs_core.data import split_dataset

    config = chosen(recipe_name, dataset).stage("split", settings or {})
    params = prefixed("split", {"dataset": dataset, "seed": seed, **config.model_dump()})
    with step_run("split", params, dataset.rstrip("/").rpartition("/")[2], {"dataset": dataset, "seed": seed}) as run:
        info = split_dataset(dataset, out, config, seed)
        result = {f"{part}_rows": rows for part, rows in info["rows"].items()} | {"classes": len(info["class_names"])}
        run.metrics(result)
        run.dataset(info["dataset"], info["fingerprint"], "split")
        for name in ("split.json", "dataset.html"):
            run.artifact(Path(out) / name, "split")
    return finite(result)


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
) -> dict:
    """Write the ``gates`` folder of ``model`` by the method that ``settings`` name (``pfs`` if they name none).

    Returns:
        What it found, in numbers. With ``profile``, some steps of ``pfs`` are only timed.
    """
    from pfs_core.baselines.choose import choose
    from pfs_core.spec import Budget, ModelSpec

    data = split_info(split_dir)
    config = chosen(recipe_name, data["dataset"]).stage("search", settings or {})
    spec = ModelSpec.parse({"name": model, "kwargs": whole_numbers(dict(model_settings or {}))}, "model")
    goal = Budget.from_text(budget)
    if profile:
        if config.method != "pfs":
            raise UserError(f"--profile is of search.method=pfs, not of {config.method}")
        from pfs_core.search.profiling import profile_search

        return profile_search(spec, split_dir, out, goal, config, seed)
    inputs = {"model": model, "model_settings": spec.kwargs, "split": data["fingerprint"], "budget": str(goal)}
    params = prefixed("search", {**inputs, "seed": seed, **config.model_dump()})
    tags = {"model": model, "budget": goal, "seed": seed, "dataset": data["dataset"], "method": config.method}
    with step_run("search", params, f"{model} {goal}", tags, watch=True) as run:
        along = "episode" if config.method == "amc" else "step" if getattr(config, "evaluate_every", None) else "epoch"
        info = choose(spec, split_dir, out, goal, config, seed, partial(run.row, at=along))
        known = ("validation_accuracy", "pretrained_accuracy", "nonzero", "kept_epoch", "steps", "seconds")
        result = {key: info[key] for key in known if key in info}
        result |= prefixed("peak_memory_mib", info["peak_memory_mib"])
        costs: dict[str, Any] = {}
        for stage, cost in info["cost"].items():
            costs |= prefixed(stage, cost)
        run.metrics(prefixed("kept", result) | costs)
        if info["cost"].get("search", {}).get("forward_images"):
            run.dataset(data["dataset"], data["fingerprint"], "search")
        run.artifact(out, "gates")
    return finite(result)


def extract(gates_dir: str | Path, out: str | Path, budget: str = "macs=0.5", settings: Settings | None = None) -> dict:
    """Write the ``structures`` folder; returns the cost of the pruned structure."""
    from pfs_core.extraction import extract_structures
    from pfs_core.files import require_result, sha256
    from pfs_core.recipes import ExtractRecipe
    from pfs_core.search import load_gates
    from pfs_core.spec import Budget

    config = ExtractRecipe.parse(dict(settings or {}), "extract")
    goal = Budget.from_text(budget)
    gates = sha256(require_result(gates_dir, "search", "pfs search --model M --split DIR OUT") / "gates.safetensors")
    params = prefixed("extract", {"gates": gates, "budget": str(goal), **config.model_dump()})
    with step_run("extract", params, str(goal), {"budget": goal, "method": load_gates(gates_dir)[1]["method"]}) as run:
        pruned = extract_structures(gates_dir, out, goal, config)["pruned"]
        result = {
            **pruned.cost.model_dump(),
            "macs_fraction": pruned.cost.macs / pruned.reference.macs,
            "params_fraction": pruned.cost.params / pruned.reference.params,
            "budget_gap": pruned.budget.gap,
        }
        run.metrics(result)
        run.artifact(out, "structures")
    return finite(result)


def retrain(
    structure: str | Path,
    split_dir: str | Path,
    out: str | Path,
    recipe_name: str = "",
    settings: Settings | None = None,
    seed: int = 0,
    train_job: Settings | None = None,
) -> dict:
    """Train a structure file and write the ``model`` folder; returns test accuracy and cost.

    With the settings of a :class:`pfs_core.cluster.manifest.TrainJob` the nodes of a cluster train it.
    """
    from pfs_core.cluster.manifest import TrainJob
    from pfs_core.cluster.retrain import retrain_on_cluster
    from pfs_core.files import sha256
    from pfs_core.kept_weights import kept_file
    from pfs_core.structure import Structure
    from pfs_core.training.retrain import fine_tuned
    from pfs_core.training.retrain import retrain as train

    data = split_info(split_dir)
    config = chosen(recipe_name, data["dataset"]).stage("retrain", settings or {})
    loaded = Structure.load(structure)
    initial = kept_file(structure) if fine_tuned(loaded, config) else None
    inputs = {"network": loaded.network, "structure": sha256(structure), "split": data["fingerprint"]}
    inputs |= {"initial": sha256(initial)} if initial else {}
    params = prefixed("retrain", {**inputs, "seed": seed, **config.model_dump()})
    tags = {**about(loaded), "seed": seed, "dataset": data["dataset"]}
    with step_run(f"retrain/{loaded.network}", params, loaded.title, tags, watch=not train_job) as run:
        if train_job:
            job = TrainJob.parse(whole_numbers(dict(train_job)), "train_job")
            inputs = {"recipe": recipe_name, "settings": dict(settings or {}), "seed": seed}
            info = retrain_on_cluster(job, Path(structure), Path(split_dir), Path(out), inputs, run.id, initial)
        else:
            info = train(loaded, split_dir, out, config, seed, run.row, initial)
        result = {key: info[key] for key in ("test_accuracy", "macs", "params", "epochs", "seconds")}
        result |= prefixed("peak_memory_mib", info["peak_memory_mib"]) | prefixed("retrain", info["cost"]["retrain"])
        run.metrics(result)
        run.dataset(data["dataset"], data["fingerprint"], "training")
        run.artifact(out, "model")
    return finite(result)


def benchmark(
    structures: Sequence[str | Path],
    out: str | Path,
    recipe_name: str = "",
    settings: Settings | None = None,
    seed: int = 0,
) -> dict:
    """Measure structure files beside their dense network and write the ``latency`` folder; returns the medians."""
    from pfs_core.files import sha256
    from pfs_core.latency import benchmark as measure
    from pfs_core.structure import Structure

    config = chosen(recipe_name, "").stage("latency", settings or {})
    loaded = [Structure.load(path) for path in structures]
    inputs = {"structures": [sha256(path) for path in structures]}
    params = prefixed("latency", {**inputs, "seed": seed, **config.model_dump()})
    with step_run("latency", params, loaded[0].title, about(loaded[0])) as run:
        info = measure(loaded, out, config, seed)
        result: dict[str, float] = {}
        first = info["measurements"][0]
        for found in info["measurements"]:
            if (found["threads"], found["batch"]) == (first["threads"], first["batch"]):
                runtime = "" if found is first else f"{found['runtime']}_"
                result |= {f"{name}_{runtime}p50_ms": stats["p50_ms"] for name, stats in found["models"].items()}
                result |= {f"{name}_{runtime}ratio": r["ratio"] for name, r in found["ratios_to_dense"].items()}
        run.metrics(result)
        run.artifact(out, "latency")
    return finite(result)


def report(
    split_dir: str | Path,
    gates_dir: str | Path,
    structures_dir: str | Path,
    model_dirs: Sequence[str | Path],
    latency_dir: str | Path,
    out: str | Path,
    registered_name: str = "",
    label: str = "",
) -> dict:
    """Write the ``report`` folder, log and register the pruned network; returns the final figures.

    On the pipeline's run the figures' names start with ``label``, where several networks share the run.
    """
    from pfs_core.files import COMPLETE, plain_name, sha256
    from pfs_core.report import load_results, write_report
    from pfs_core.report.page import HEADER, table_cells, text_table

    results = load_results(split_dir, gates_dir, structures_dir, model_dirs, latency_dir)
    name = registered_name or f"pfs-{plain_name(results.spec.name)}"
    params = {"report.models": [sha256(Path(folder) / COMPLETE) for folder in model_dirs]}
    tags = {**about(results.structures["pruned"]), "dataset": results.split["dataset"]}
    with step_run("report", params, results.title, tags) as run:
        version = _registered(run, results, name)
        summary = write_report(results, out, run.url, version)
        run.artifact(out, "report")
        figures = summary["figures"]
        run.metrics(figures)
        run.summary(prefixed(label, figures) if label else figures)
        if version:
            run.params({"report.registered_model": version})
    mark_finished()
    for line in [*text_table(HEADER, table_cells(summary["table"])), "", summary["verdict"]]:
        say(line)
    return finite(figures)


def compare(
    split_dir: str | Path,
    gates_dir: str | Path,
    structures_dirs: Sequence[str | Path],
    model_dirs: Sequence[str | Path],
    latency_dirs: Sequence[str | Path],
    dense_dir: str | Path,
    out: str | Path,
    registered_name: str = "",
) -> dict:
    """Write the ``comparison`` folder of several budgets, log and register the pruned networks; returns the figures."""
    from pfs_core.files import COMPLETE, plain_name, sha256
    from pfs_core.report.comparison import figures_of, write_comparison
    from pfs_core.report.runs import load_budgets

    budgets = load_budgets(split_dir, gates_dir, structures_dirs, model_dirs, latency_dirs, dense_dir)
    name = registered_name or f"pfs-{plain_name(budgets[0].spec.name)}"
    params = {"compare.models": [sha256(Path(folder) / COMPLETE) for folder in model_dirs]}
    tags = {"model": budgets[0].spec.name, "dataset": budgets[0].split["dataset"]}
    with step_run("compare", params, budgets[0].spec.name, tags) as run:
        summary = write_comparison(budgets, out, run.url)
        run.artifact(out, "comparison")
        versions = [_registered(run, results, name) for results in budgets]
        figures = finite({**figures_of(summary["rows"]), "search_seconds": budgets[0].search["seconds"]})
        run.metrics(figures)
        run.summary(figures)
        if any(versions):
            run.params({"compare.registered_models": versions})
    mark_finished()
    return figures


def compare_methods(
    split_dir: str | Path,
    gates_dirs: Sequence[str | Path],
    structures_dirs: Sequence[str | Path],
    model_dirs: Sequence[str | Path],
    latency_dirs: Sequence[str | Path],
    dense_dirs: Sequence[str | Path],
    out: str | Path,
) -> dict:
    """Write the ``comparison`` folder of several methods and seeds; returns the figures."""
    from pfs_core.files import COMPLETE, sha256
    from pfs_core.report.comparison import figures_of, write_comparison
    from pfs_core.report.runs import load_methods

    runs = load_methods(split_dir, gates_dirs, structures_dirs, model_dirs, latency_dirs, dense_dirs)
    params = {"compare.models": [sha256(Path(folder) / COMPLETE) for folder in model_dirs]}
    tags = {"model": runs[0].spec.name, "dataset": runs[0].split["dataset"]}
    with step_run("compare", params, runs[0].spec.name, tags) as run:
        summary = write_comparison(runs, out, run.url)
        run.artifact(out, "comparison")
        figures = finite(figures_of(summary["rows"]))
        run.metrics(figures)
        run.summary(figures)
    mark_finished()
    return figures


def _registered(run: StepRun, results: "Results", name: str) -> str:
    """Log and register the pruned network of a run with what is known of it; returns ``name/version``."""
    from pfs_core.deployable import deployable, example_images
    from pfs_core.report.card import model_card, model_files
    from pfs_core.training.retrain import load_model

    network, _ = load_model(results.model_dir)
    card, files = model_card(results, name), model_files(results)
    return run.model(deployable(network, results.split), example_images(results.spec.input_shape), name, card, files)


def find_requests(limit: int, claim_hours: float, files: str = "") -> list[dict[str, Any]]:
    """Open the pipeline's run in MLflow and claim what waits in the registry (:func:`pfs_core.registry.work.find`).

    Request files below ``files``, if that is not empty, are put into the registry first.
    """
    import os

    from pfs_core.registry.specs import register_files
    from pfs_core.registry.work import find
    from pfs_core.tracking import open_pipeline

    open_pipeline("compress new models", {"limit": limit, "claim_hours": claim_hours, "request_files": files})
    if files:
        register_files(files, os.environ.get("KFP_RUN_ID", ""))
    found = find(limit, claim_hours)
    mark_finished()  # what is left to do is in the claims
    return found


def finish_request(request: Mapping[str, Any], report_dir: str | Path, claim_hours: float) -> bool:
    """Hand the result in a ``report`` folder to the request's source (:func:`pfs_core.registry.work.finish`)."""
    from pfs_core.files import read_json
    from pfs_core.registry.work import finish

    summary = read_json(Path(report_dir) / "report.json")
    return finish(whole_numbers(dict(request)), summary["registered"], summary["figures"], claim_hours)


ENDED = {"SUCCEEDED": True, "COMPLETE": True, "RUNNING": None}
"""Whether a pipeline in this state has succeeded, as kfp.local and as Kubeflow's driver write it. The driver leaves
RUNNING where it lost count: a loop over nothing, steps from the cache alone, a pod that was killed for its memory."""


def close(state: str, gives_back: bool = False) -> None:
    """End the pipeline's run in MLflow, and with ``gives_back`` the claims of what it could not finish."""
    from pfs_core.registry.work import give_back
    from pfs_core.tracking import close_pipeline

    succeeded = ENDED.get(state, False)
    try:
        if gives_back and give_back("the run ended without a result"):
            succeeded = False
    finally:
        close_pipeline(succeeded)


def structure_file(structures_dir: str | Path, network: str) -> Path:
    """The structure file of ``pruned``, ``uniform`` or ``dense`` in a ``structures`` folder."""
    from pfs_core.extraction import FILES
    from pfs_core.files import require_result

    if network not in FILES:
        raise UserError(f"unknown network {network!r}; known: {', '.join(FILES)}")
    return require_result(structures_dir, "structure", "pfs extract --gates DIR OUT") / FILES[network]


def about(structure: "Structure") -> dict[str, str]:
    """What a run on a structure is about (:func:`pfs_core.tracking.runs.tags_of`)."""
    model, _, budget = structure.title.rpartition(" ")
    return {"model": model, "budget": budget, "method": structure.chosen_by["method"]}


def confusion(model_dir: str | Path) -> tuple[list[str], list[list[int]]]:
    """The names of the classes, and the counts [true class][predicted class], of a ``model`` folder."""
    from pfs_core.files import read_json

    metrics = read_json(Path(model_dir) / "metrics.json")
    return metrics["class_names"], metrics["confusion_matrix"]


def chosen(recipe_name: str, dataset: str) -> Recipe:
    """The named recipe, or the one that suits the dataset."""
    return recipe(recipe_name or default_recipe(dataset))


def split_info(split_dir: str | Path) -> dict[str, Any]:
    """What a split folder says of itself."""
    from pfs_core.files import read_json, require_result

    return read_json(require_result(split_dir, "split", "pfs split DATASET OUT") / "split.json")


def prefixed(prefix: str, values: Mapping[str, Any]) -> dict[str, Any]:
    """``values`` with ``prefix.`` before every name."""
    return {f"{prefix}.{key}": value for key, value in values.items()}


def whole_numbers(value: Any) -> Any:
    """``value`` with 32.0 as 32 wherever it stands in it: a pipeline's JSON has one kind of number."""
    if isinstance(value, dict):
        return {k: whole_numbers(v) for k, v in value.items()}
    if isinstance(value, list):
        return [whole_numbers(v) for v in value]
    return int(value) if isinstance(value, float) and value.is_integer() else value


def parse_settings(pairs: Sequence[str], stages: Sequence[str]) -> dict[str, dict[str, Any]]:
    """``["search.epochs=1"]`` as ``{"search": {"epochs": 1}}``, for every stage in ``stages``.

    Raises:
        UserError: a pair is not ``STAGE.NAME=VALUE`` with a known stage.
    """
    import json

    settings: dict[str, dict[str, Any]] = {stage: {} for stage in stages}
    for pair in pairs:
        key, equals, text = pair.partition("=")
        stage, dot, name = key.partition(".")
        if not (equals and dot and name) or stage not in settings:
            known = ", ".join(f"{stage}.NAME=VALUE" for stage in stages)
            raise UserError(f"--set {pair!r} is not understood; expected {known}")
        try:
            settings[stage][name] = json.loads(text)
        except json.JSONDecodeError:
            settings[stage][name] = text
    return settings
