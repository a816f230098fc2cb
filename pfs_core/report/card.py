"""The model card: what a user of the registered network has to know, as Markdown."""

from collections.abc import Sequence
from pathlib import Path

from pfs_core.rendering.tables import markdown_table
from pfs_core.report.cells import HEADER, table_cells
from pfs_core.report.results import RUNTIME_NAMES, Results

FILES = ("model.safetensors", "structure.json", "metrics.json", "preparation.json", "model.onnx")
"""Of the ``model`` folder, what goes with the registered network; not every network can be written as ONNX."""
_CLASSES = 20


def model_card(results: Results, name: str) -> str:
    """The model card of a run's pruned network.

    Args:
        results: of the run.
        name: of the registered model.
    """
    split, trained, quoted = results.split, results.pruned, results.quoted
    classes = split.class_names
    listed = ", ".join(classes[:_CLASSES])
    if len(classes) > _CLASSES:
        listed += ", ... (`metrics.json` has all)"
    shape = "x".join(map(str, results.spec.input_shape))
    lines = [
        f"# {name}",
        "",
        f"The network `{results.spec.name}`, cut to the budget `{results.structure.target_budget}` by "
        f"{results.method}, then {results.training}.",
        "",
        f"- **Input**: float32, [N, {', '.join(map(str, results.spec.input_shape))}], pixels in 0-255; the "
        "normalisation is part of the network.",
        *([f"- **Tested on**: {split.preparation.words} (`preparation.json`)."] if split.preparation else []),
        f"- **Output**: logits, [N, {len(classes)}], of the classes {listed}.",
        f"- **Dataset**: `{split.dataset}`, {trained.train_rows:,} images trained, {trained.test_rows:,} "
        f"tested; images of {shape}; fingerprint `{split.fingerprint}`.",
        f"- **Made with**: pfs {trained.pfs_version}, seed {trained.seed}, {trained.epochs} epochs in "
        f"{trained.precision}.",
        "",
        *markdown_table(HEADER, table_cells(results.table())),
        "",
        f"Accuracy is that of the test images, which took no part in the training. Latency was measured on "
        f"{results.latency.machine.cpu} in {RUNTIME_NAMES[quoted.runtime]}, batch {quoted.batch}, "
        f"{quoted.threads} thread(s); on another processor the ratio may be another.",
        "",
        "```python",
        "import mlflow",
        "",
        f'network = mlflow.pytorch.load_model("models:/{name}@newest")  # or models:/{name}/VERSION',
        "```",
        "",
        "This needs mlflow, torch and numpy, and no code of the project that made it.",
        "",
        "`extra_files/` has the same network for ONNX Runtime (`model.onnx`), the weights under the network's own "
        f"names (`model.safetensors`, for (pixels - mean) / std with the mean [{_numbers(split.mean)}] and the std "
        f"[{_numbers(split.std)}]), its widths (`structure.json`), how images become its inputs "
        "(`preparation.json`), the confusion matrix (`metrics.json`) and the output for the input example "
        "(`example_output.json`).",
    ]
    return "\n".join(lines) + "\n"


def _numbers(values: Sequence[float]) -> str:
    return ", ".join(f"{value:.6g}" for value in values)


def model_files(results: Results) -> list[Path]:
    """What goes with the registered network."""
    return [path for name in FILES if (path := results.model_dir / name).exists()]


def version_tags(results: Results) -> dict[str, str]:
    """What versions of a registered network are told apart by."""
    ratio = results.quoted.ratios_to_dense["pruned"].ratio
    return {
        "dataset": results.split.dataset,
        "budget": str(results.structure.target_budget),
        "method": results.search.method,
        "test_accuracy": f"{results.pruned.test_accuracy:.4f}",
        "latency_ratio": f"{ratio:.3f}",
    }
