"""The fourth step: a structure trained, from scratch unless it is to be fine-tuned."""

import logging
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
import torch
from safetensors.torch import load_file, save_file
from scipy.stats import binomtest
from torch import Tensor, nn

import pfs_core
from pfs_core.config.stages import RetrainConfig
from pfs_core.data import ImageSplit, load_split
from pfs_core.data.augment import Normalise
from pfs_core.data.split_info import SplitInfo
from pfs_core.errors import UserError
from pfs_core.export.deployable import try_onnx
from pfs_core.models.sources import known_by
from pfs_core.runtime.cost import stage_cost
from pfs_core.runtime.device import memory_text, peak_memory, pick_device, resolve_precision
from pfs_core.runtime.distributed import ALONE, Ranks, joined
from pfs_core.runtime.environment import code
from pfs_core.runtime.progress import Record, ignore
from pfs_core.storage.artifacts import check_out, publish, require_result, write_json
from pfs_core.storage.digests import file_digest
from pfs_core.structure import Structure
from pfs_core.training.checkpoints import Checkpoints
from pfs_core.training.evaluate import own_batches, predict
from pfs_core.training.finished import done_with
from pfs_core.training.fit import fit, training_parts
from pfs_core.training.metrics import BestValidation, Evaluation, TrainingMetrics
from pfs_core.training.mistakes import MistakeSample
from pfs_core.training.schedule import planned_epochs

logger = logging.getLogger(__package__)


def retrain(
    structure: Structure,
    split: str | Path,
    out: str | Path,
    config: RetrainConfig,
    seed: int = 0,
    record: Record = ignore,
    initial: Path | None = None,
) -> TrainingMetrics:
    """Train ``structure`` from a fresh initialisation, test it once and write the ``model`` folder.

    With ``config.start`` ``inherited`` the pruned network starts from ``initial``; other networks start afresh.

    ``model.safetensors`` has the weights that were tested (``config.keep``) under the network's own names,
    ``model.onnx`` the same network with its normalisation in front (pixels 0-255 to logits), where ONNX can express
    it, ``structure.json`` what they fit, ``metrics.json`` the accuracy
    (:class:`~pfs_core.training.metrics.TrainingMetrics`), ``history.parquet`` one row per epoch. Where the training
    was validated, the other weights are beside them as ``best.safetensors`` or ``last.safetensors``.
    ``mistakes.safetensors`` has some test images that it takes for something else, ``preparation.json`` how images
    become its inputs (:class:`~pfs_core.data.split_info.Preparation`).

    Args:
        structure: what to train.
        split: a ``split`` folder.
        out: the folder to write.
        config: see :class:`RetrainConfig`.
        seed: of the initial weights and of the order of the images.
        record: called with every row of the history.
        initial: weights of the structure, as safetensors (:mod:`pfs_core.structure.inherited_weights`).

    Returns:
        The content of ``metrics.json``.

    Raises:
        UserError: the split is not one or does not fit the structure, or the training diverged.
    """
    check_out(out, "metrics")
    device = pick_device()
    with joined(device) as ranks:
        metrics = _retrain(structure, load_split(split, device), Path(out), config, seed, record, ranks, initial)
    logger.info(
        f"retrain {structure.network}  test accuracy {metrics.test_accuracy:.4f} of "
        f"{metrics.test_rows:,} images  {memory_text(metrics.peak_memory_mib)}"
    )
    return metrics


def _retrain(
    structure: Structure,
    data: ImageSplit,
    out: Path,
    config: RetrainConfig,
    seed: int,
    record: Record,
    ranks: Ranks,
    initial: Path | None,
) -> TrainingMetrics:
    check_fits(structure, data)
    torch.manual_seed(seed)
    model = structure.build()
    initial = initial if fine_tuned(structure, config) else None
    if initial:
        load_initial(model, initial)
    model.to(data.device)
    if ranks.rank:
        torch.manual_seed(seed + ranks.rank)  # dropout differs from process to process
    epochs = planned_epochs(config, structure.cost.macs / structure.reference.macs)
    with Checkpoints(out, _checkpoint_key(structure, model, data, config, seed, initial), ranks) as checkpoints:
        fitted = fit(model, f"retrain {structure.network}", data, config, epochs, seed, record, checkpoints, ranks)
    spent, images = checkpoints.elapsed(), int(ranks.sum(torch.tensor(fitted.images, device=data.device)))
    spent["processor_seconds"] = float(ranks.sum(torch.tensor(spent["processor_seconds"], device=data.device)))
    weights = {"last": fitted.last}
    if fitted.best:
        weights["best"] = fitted.best.pop("weights")
    model.load_state_dict(weights[config.keep])
    evaluation, mistakes = results_on_test(model, data, ranks)
    found: dict[str, Any] = {**code(), **evaluation.model_dump()}
    metrics = TrainingMetrics(
        network=structure.network,
        trained=True,
        macs=structure.cost.macs,
        params=structure.cost.params,
        train_rows=sum(len(data.parts[part]) for part in training_parts(config)),
        class_names=data.info.class_names,
        config=config,
        precision=resolve_precision(config.precision, data.device),
        device=str(data.device),
        split_fingerprint=data.info.fingerprint,
        pfs_version=pfs_core.__version__,
        **found,
        best_validation=BestValidation(**fitted.best) if fitted.best else None,
        epochs=epochs,
        processes=ranks.world,
        seed=seed,
        seconds=spent["seconds"],
        cost={"retrain": stage_cost(data.device, spent, images + fitted.validated, images, processes=ranks.world)},
        peak_memory_mib=peak_memory(data.device),
    )
    if ranks.rank == 0:
        with publish(out, "metrics") as folder:
            for name, tensors in weights.items():
                save_file(tensors, folder / f"{'model' if name == config.keep else name}.safetensors")
            pq.write_table(pa.Table.from_pylist(fitted.history), folder / "history.parquet")
            mistakes.save(folder)
            metrics.save(folder / "metrics.json")
            _write_network(folder, model, structure, data.info)
    done_with(checkpoints)
    ranks.wait()
    return metrics


def _checkpoint_key(
    structure: Structure, model: nn.Module, data: ImageSplit, config: RetrainConfig, seed: int, initial: Path | None
) -> dict[str, Any]:
    """What must be the same for a training to go on from a checkpoint."""
    return {
        "step": "retrain",
        "structure": structure.model_dump(mode="json"),
        "recipe": config.model_dump(mode="json"),
        "seed": seed,
        "split": data.info.digest,
        "device": data.device.type,
        "precision": resolve_precision(config.precision, data.device),
        "initial": file_digest(initial) if initial else "",
        "network": known_by(structure.model, model),
    }


def _write_network(folder: Path, model: nn.Module, structure: Structure, info: SplitInfo) -> None:
    """Write what is needed to run the network elsewhere: its structure, how images are prepared, and ONNX."""
    structure.save(folder / "structure.json")
    if info.preparation:
        write_json(folder / "preparation.json", info.preparation.model_dump(mode="json"))
    if why := try_onnx(model, info, folder / "model.onnx"):
        logger.warning(f"retrain {structure.network}  no model.onnx: {why}")


def fine_tuned(structure: Structure, config: RetrainConfig) -> bool:
    """Whether ``config`` has this structure start from weights of the network that it was cut from."""
    return config.start == "inherited" and structure.network == "pruned"


def load_initial(model: nn.Module, path: Path) -> None:
    """Load weights to start from; UserError if they are of another structure."""
    try:
        model.load_state_dict(load_file(path))
    except RuntimeError:
        raise UserError(f"{path} has the weights of another structure; extract it again") from None


def results_on_test(model: nn.Module, data: ImageSplit, ranks: Ranks = ALONE) -> tuple[Evaluation, MistakeSample]:
    """Test accuracy in float32, its 95% Wilson interval, images and confusion matrix; and some of the mistakes."""
    model.to(memory_format=torch.contiguous_format)
    normalise = Normalise(data.info, data.device, torch.contiguous_format)
    images = data.part("test", rank=ranks.rank, world=ranks.world)
    labels = images.labels
    mistakes = MistakeSample(own_batches(labels, images))

    def forward(batch: Tensor) -> Tensor:
        logits: Tensor = model(normalise(batch))
        mistakes.add(batch, logits.argmax(1))
        return logits

    predictions = predict(model, forward, images, ranks)
    correct = int((predictions == labels).sum())
    interval = binomtest(correct, len(labels)).proportion_ci(method="wilson")
    evaluation = Evaluation(
        test_accuracy=correct / len(labels),
        test_accuracy_interval=(float(interval.low), float(interval.high)),
        test_rows=len(labels),
        confusion_matrix=confusion(predictions, labels, data.num_classes),
    )
    return evaluation, mistakes


def confusion(predictions: Tensor, labels: Tensor, classes: int) -> list[list[int]]:
    """Counts ``[true class][predicted class]``."""
    counts = torch.bincount(labels * classes + predictions, minlength=classes * classes)
    return counts.view(classes, classes).tolist()


def check_fits(structure: Structure, data: ImageSplit) -> None:
    """Raise UserError unless the structure's images and classes are the split's."""
    spec = structure.model
    if spec.input_shape != data.input_shape or spec.num_classes != data.num_classes:
        wants = f"{'x'.join(map(str, spec.input_shape))} images of {spec.num_classes} classes"
        has = f"{'x'.join(map(str, data.input_shape))} images of {data.num_classes}"
        raise UserError(f"the structure is for {wants}, the split has {has}; extract one from this split's gates")


def load_model(folder: str | Path) -> tuple[nn.Module, Structure]:
    """The trained network of a ``model`` folder, on the CPU in evaluation mode; UserError if it is not one."""
    folder = require_result(folder, "metrics", "pfs retrain --structure FILE --split DIR OUT")
    structure = Structure.load(folder / "structure.json")
    model = structure.build()
    model.load_state_dict(load_file(folder / "model.safetensors"))
    return model.eval(), structure
