"""The runtimes that a network is measured in: PyTorch, PyTorch compiled ahead of time, ONNX Runtime and OpenVINO.

Each function takes a network's folder (:mod:`pfs_core.latency.networks`), a batch of images (float32 [N, C, H, W]) and
a number of threads, and returns a function that computes the logits. Exports are kept in the folder. BatchNorm is fused
into the convolutions in all of them.
"""

import importlib.util
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import nn

from pfs_core.errors import UserError
from pfs_core.export.onnx_file import INPUT, OUTPUT, onnx_session, write_onnx_quickly
from pfs_core.latency.networks import read_network
from pfs_core.nn.fuse import fuse_batchnorm
from pfs_core.runtime.device import core_count

Run = Callable[[], Any]
"""A function that computes logits, in a form that numpy can read."""


def eager(folder: Path, images: np.ndarray, threads: int) -> Run:
    """Load a network in PyTorch, which runs it operation by operation."""
    return run_eager(_fused(folder, images), images, threads)


def aotinductor(folder: Path, images: np.ndarray, threads: int) -> Run:
    """Load a network compiled to C++ ahead of time (torch.export and AOTInductor)."""
    package = folder / f"batch{len(images)}-threads{threads}.pt2"
    return run_aotinductor(lambda: _fused(folder, images), images, threads, package)


def onnxruntime(folder: Path, images: np.ndarray, threads: int) -> Run:
    """Load a network in ONNX Runtime, with all of its optimisations."""
    return run_onnx(_onnx(folder, images), images, threads)


def openvino(folder: Path, images: np.ndarray, threads: int) -> Run:
    """Load a network in OpenVINO, in float32 like the other runtimes (its default on some CPUs is bf16)."""
    return run_openvino(_onnx(folder, images), images, threads)


def run_eager(model: nn.Module, images: np.ndarray, threads: int) -> Run:
    """Return a function that runs a module as it is on ``images``."""
    torch.set_num_threads(threads)
    batch = torch.from_numpy(images)

    def run() -> torch.Tensor:
        with torch.inference_mode():
            result: torch.Tensor = model(batch)
            return result

    return run


def run_aotinductor(network: Callable[[], nn.Module], images: np.ndarray, threads: int, package: Path) -> Run:
    """Return a function that runs a package on ``images``, which is compiled of ``network()`` if there is none yet."""
    torch.set_num_threads(threads)
    batch = torch.from_numpy(images)
    if not package.exists():
        with torch.no_grad():
            program = torch.export.export(network(), (batch,))
            torch._inductor.aoti_compile_and_package(
                program, package_path=str(package), inductor_configs={"freezing": True}
            )
    compiled = torch._inductor.aoti_load_package(str(package))
    return lambda: compiled(batch)


def run_onnx(path: Path, images: np.ndarray, threads: int) -> Run:
    """Return a function that runs an ONNX file in ONNX Runtime on ``images``."""
    session, feed = onnx_session(path, threads), {INPUT: images}
    return lambda: session.run([OUTPUT], feed)[0]


def run_openvino(path: Path, images: np.ndarray, threads: int) -> Run:
    """Return a function that runs an ONNX file in OpenVINO on ``images``, in float32."""
    import openvino as ov

    settings = {"INFERENCE_NUM_THREADS": threads, "INFERENCE_PRECISION_HINT": "f32", "PERFORMANCE_HINT": "LATENCY"}
    request = ov.Core().compile_model(str(path), "CPU", settings).create_infer_request()
    return lambda: request.infer([images], share_inputs=True, share_outputs=True)[0]


def _fused(folder: Path, images: np.ndarray) -> nn.Module:
    """Return the network in a folder as it is deployed, tried on one of the images."""
    return fuse_batchnorm(read_network(folder), torch.from_numpy(images[:1]))


def _onnx(folder: Path, images: np.ndarray) -> Path:
    """Return the ONNX file in a network's folder for such a batch; it is written if there is none yet."""
    path = folder / f"batch{len(images)}.onnx"
    if not path.exists():
        write_onnx_quickly(_fused(folder, images), torch.from_numpy(images), path)
    return path


RUNTIMES: dict[str, Callable[[Path, np.ndarray, int], Run]] = {
    "onnxruntime": onnxruntime,
    "eager": eager,
    "aotinductor": aotinductor,
    "openvino": openvino,
}


def missing(runtime: str) -> str:
    """Return why a runtime cannot be used on this machine; an empty string if it can."""
    if runtime in ("onnxruntime", "openvino") and importlib.util.find_spec(runtime) is None:
        return f"not installed (pip install {runtime})"
    if runtime == "aotinductor" and not (shutil.which("g++") or shutil.which("clang++")):
        return "there is no C++ compiler"
    return ""


def usable_threads(runtime: str, threads: int, what: str) -> int:
    """Return the number of threads that a runtime is measured with here: as asked for, but no more than the cores.

    Args:
        runtime: a name in :data:`RUNTIMES`.
        threads: the number asked for.
        what: what needs the measurement, for the message.

    Raises:
        UserError: the runtime cannot be used on this machine.
    """
    check_usable(runtime, what)
    return min(threads, core_count())


def check_usable(runtime: str, what: str) -> None:
    """Raise UserError if a runtime cannot be used on this machine; ``what`` needs it, for the message."""
    if reason := missing(runtime):
        raise UserError(f"{what} cannot be measured in {runtime} here: {reason}; or choose another extract.runtime")
