"""Networks as ONNX files, the format that other runtimes and quantisers read."""

import contextlib
import importlib.util
import logging
import os
import re
import warnings
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import nn

from pfs_core.errors import UserError

INPUT, OUTPUT = "images", "logits"
"""Names of the input and the output in every file."""
TOLERANCE = 1e-3
"""Largest difference of logits from PyTorch's, as a fraction of the largest logit: runtimes add float32 numbers in
different orders."""


def write_onnx(model: nn.Module, input_shape: tuple[int, int, int], path: Path) -> None:
    """Write ``model`` as one self-contained file, with BatchNorms folded into convolutions.

    The network in the file takes ``images``, float32 [N, C, H, W] for any N, and returns ``logits``, float32
    [N, classes].

    Args:
        model: a network in evaluation mode, on the CPU.
        input_shape: channels, height and width of one image.
        path: the file to write.

    Raises:
        UserError: an operation of the network has no counterpart in ONNX, or the exporter fails.
    """
    images = torch.zeros(2, *input_shape)
    try:
        with _quiet():
            program = torch.onnx.export(
                model,
                (images,),
                dynamo=True,
                input_names=[INPUT],
                output_names=[OUTPUT],
                dynamic_shapes=({0: torch.export.Dim("batch")},),
                verbose=False,
            )
    except ImportError as e:
        raise UserError(f"writing ONNX needs the package {e.name} (pip install onnxscript onnxruntime)") from None
    except Exception as e:  # the exporter's own, and whatever its parts raise of a graph that they do not expect
        raise UserError(f"this network cannot be written as ONNX: {_reason(e)}") from None
    assert program is not None
    # The metadata says where the source code was, which differs between machines; the same network is to be the same
    # file.
    for graph in program.model.graphs():
        graph.metadata_props.clear()
        for node in graph:
            node.metadata_props.clear()
        for value in [*graph.inputs, *graph.outputs, *(out for node in graph for out in node.outputs)]:
            value.metadata_props.clear()
    program.save(path)


def _reason(error: BaseException) -> str:
    """Return the operator that the exporter has no counterpart of or, where it names none, what it says."""
    causes = [error]
    while (cause := causes[-1].__cause__ or causes[-1].__context__) is not None:
        causes.append(cause)
    for cause in reversed(causes):
        if unknown := re.search(r"OpOverload\(op='([\w.]+)'", str(cause)):
            return f"no counterpart of {unknown[1]}"
    said = re.sub(r"\x1b\[[\d;]*m", "", str(causes[-1])).strip() or type(causes[-1]).__name__
    return said.splitlines()[0]


def write_onnx_quickly(model: nn.Module, images: torch.Tensor, path: Path) -> None:
    """Write ``model`` for batches of the size of ``images``, with torch's older exporter if that knows its operators.

    It takes a sixth of the time or less, and ONNX Runtime takes as long for the one file as for the other
    (``benchmarks/latency.py exporters``), so that networks that are only measured are written so. Networks that are
    deployed are written by :func:`write_onnx`, as are those that the older exporter cannot write.

    Raises:
        UserError: an operation of the network has no counterpart in ONNX.
    """
    try:
        with _quiet():
            torch.onnx.export(model, (images,), str(path), dynamo=False, input_names=[INPUT], output_names=[OUTPUT])
    except Exception:  # it says in many ways that it does not know an operator
        _, channels, height, width = images.shape
        write_onnx(model, (channels, height, width), path)


def onnx_session(path: Path, threads: int = 1) -> Any:
    """Return an ``onnxruntime.InferenceSession`` on the CPU whose idle threads sleep.

    By default they spin, and would take time from the network that is measured next.
    """
    import onnxruntime

    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads, options.inter_op_num_threads = threads, 1
    options.add_session_config_entry("session.intra_op.allow_spinning", "0")
    options.log_severity_level = 3
    return onnxruntime.InferenceSession(path, options, providers=["CPUExecutionProvider"])


def check_onnx(path: Path, model: nn.Module, input_shape: tuple[int, int, int]) -> None:
    """Raise UserError unless ONNX Runtime computes from the file what ``model`` computes, for 1 image and for 3."""
    if importlib.util.find_spec("onnxruntime") is None:
        raise UserError(f"{path.name} cannot be checked without onnxruntime (pip install onnxruntime)")
    generator, session = torch.Generator().manual_seed(0), None
    for count in (1, 3):
        images = torch.rand(count, *input_shape, generator=generator) * 255
        with torch.inference_mode():
            expected, again = model(images), model(images)
        if not expected.isfinite().all():
            raise UserError(f"{path.name} cannot be checked: the network computes values that are not finite")
        if not agree(again.numpy(), expected.numpy()):
            raise UserError(f"{path.name} cannot be checked: the network computes something else each time")
        try:
            session = session or onnx_session(path)
            found = session.run(None, {INPUT: images.numpy()})[0]
        except Exception as e:  # ONNX Runtime's errors have no class in common
            reason = next(iter(str(e).strip().splitlines()), type(e).__name__)
            raise UserError(f"ONNX Runtime cannot run {path.name}: {reason}") from None
        if not agree(found, expected.numpy()):
            raise UserError(f"{path.name} does not compute what the network computes; this is a fault of its export")


def agree(logits: np.ndarray, expected: np.ndarray) -> bool:
    """Return whether two runtimes computed the same: no difference is larger than :data:`TOLERANCE` allows."""
    return logits.shape == expected.shape and bool(
        np.abs(logits - expected).max() <= TOLERANCE * np.abs(expected).max()
    )


@contextlib.contextmanager
def _quiet() -> Iterator[None]:
    """Suppress the exporter's progress marks and its warnings about itself."""
    level = logging.root.manager.disable
    logging.disable(logging.WARNING)
    with warnings.catch_warnings(), Path(os.devnull).open("w") as nowhere, contextlib.redirect_stdout(nowhere):
        warnings.simplefilter("ignore")
        try:
            yield
        finally:
            logging.disable(level)
