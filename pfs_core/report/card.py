"""What a registered network says of itself."""

from pfs_core.report.page import HEADER, table_cells
from pfs_core.report.results import Results


def model_card(results: Results, name: str) -> str:
    """A model card in Markdown: what it is, what was measured, what goes in and comes out, and how it is loaded."""
    spec, split = results.spec, results.split
    shape = ", ".join(map(str, spec.input_shape))
    classes = split["class_names"]
    listed = ", ".join(classes[:20]) + (f" and {len(classes) - 20} more" if len(classes) > 20 else "")
    search, trained = results.search, results.metrics["pruned"]
    table = [HEADER, ["---"] * len(HEADER), *table_cells(results.table())]
    lines = [
        f"# {results.title}",
        "",
        results.verdict(),
        "",
        *("| " + " | ".join(row) + " |" for row in table),
        "",
        f"- **Network**: {spec.name} at widths found by Pruning from Scratch (seed {search['seed']}), trained from "
        f"scratch for {trained['epochs']} epochs (seed {trained['seed']}).",
        f"- **Data**: {split['dataset']}, {split['rows']['train']:,} training images, "
        f"fingerprint {split['fingerprint'][:16]}.",
        f"- **In**: float32 pixels in 0-255, [N, {shape}]; the normalisation is part of the network. "
        f"**Out**: logits, [N, {spec.num_classes}].",
        f"- **Classes**: {listed}.",
        f"- **Latency** was measured in {results.quoted['runtime']} on {results.latency['machine']['cpu']}, "
        f"{results.quoted['threads']} thread(s), batch {results.quoted['batch']}.",
        "- **Limits**: tested on rows of the same source only; intervals are of one training.",
        "",
        "```python",
        f'network = mlflow.pytorch.load_model("models:/{name}@newest")',
        "```",
        "",
        "Beside it: `model.safetensors` and `structure.json` (weights, widths), `model.onnx` (the same network).",
    ]
    return "\n".join(lines) + "\n"
