"""How many channels do runtimes compute at once, in float32 and in int8? Run on a machine with nothing else to do.

    python benchmarks/blocks.py
    ONEDNN_MAX_CPU_ISA=AVX2 python benchmarks/blocks.py --runtimes openvino openvino-int8 eager
    python benchmarks/blocks.py --runtimes aotinductor  # compiles thirteen networks, half a minute each

The networks and the rule are those of ``extract.blocks=auto``, one thread. In int8 they are quantised by ONNX Runtime's
``quantize_static`` (QDQ, a scale a channel, activations uint8 and weights int8). *Past a block* is what 4 more channels
cost when they begin another 16, *in one* what they cost on average when they do not; both in microseconds.

The variable holds oneDNN, which computes convolutions in PyTorch and OpenVINO, to an instruction set. ONNX Runtime has
kernels of its own, which it does not reach.
"""

import argparse
import logging
import os
import tempfile
from pathlib import Path
from typing import Any

import numpy as np
import torch
from onnxruntime.quantization import CalibrationDataReader, QuantFormat, QuantType, quantize_static
from torch import nn

from pfs_core.export.onnx_file import INPUT, write_onnx_quickly
from pfs_core.latency.blocks import block_of_steps, measured_networks, width_times
from pfs_core.latency.machine import machine
from pfs_core.latency.protocol import quiet
from pfs_core.latency.runtimes import Run, missing, run_aotinductor, run_eager, run_onnx, run_openvino

RUNTIMES = ("onnxruntime", "onnxruntime-int8", "openvino", "openvino-int8", "eager")
"""Those that are measured unless others are named."""


class _Once(CalibrationDataReader):
    """One batch to calibrate with."""

    def __init__(self, images: np.ndarray) -> None:
        self.batches = [{INPUT: images}]

    def get_next(self) -> dict[str, np.ndarray] | None:
        return self.batches.pop() if self.batches else None


def main() -> None:
    """Print a row for each runtime."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--runtimes", nargs="+", choices=(*RUNTIMES, "aotinductor"), default=RUNTIMES)
    a = parser.parse_args()
    logging.disable(logging.WARNING)  # the quantiser advises steps that these networks do not need
    here = machine()
    print(f"{here['cpu']} ({', '.join(here['flags'])}), torch {here['torch']}")
    print(f"oneDNN's instructions: {os.environ.get('ONEDNN_MAX_CPU_ISA', 'all of the CPU')}\n")
    print("| runtime | block | ms at 16 | 32 | 48 | 64 | past a block, us | in one, us |")
    print("| --- | ---: | ---: | ---: | ---: | ---: | ---: | ---: |")
    for name in [name for name in a.runtimes if not missing(name.removesuffix("-int8"))]:
        ms = measured(name)
        steps = {width: 1000 * (ms[width] - ms[width - 4]) for width in ms if width - 4 in ms}
        past = np.mean([step for width, step in steps.items() if width % 16 == 4])
        inside = np.mean([step for width, step in steps.items() if width % 16 != 4])
        times = " | ".join(f"{ms[width]:.3f}" for width in (16, 32, 48, 64))
        print(f"| {name} | {block_of_steps(ms)} | {times} | {past:.0f} | {inside:.0f} |", flush=True)


def measured(name: str) -> dict[int, float]:
    """Return the milliseconds of every width in a runtime."""
    images, networks = measured_networks()
    with tempfile.TemporaryDirectory() as scratch, quiet(1):
        return width_times({w: loaded(name, one, images, Path(scratch) / str(w)) for w, one in networks.items()})


def loaded(name: str, network: nn.Module, images: torch.Tensor, folder: Path) -> Run:
    """Return a function that runs a network in a runtime on one thread; files go into ``folder``."""
    if name == "eager":
        return run_eager(network, images.numpy(), 1)
    folder.mkdir()
    if name == "aotinductor":
        return run_aotinductor(lambda: network, images.numpy(), 1, folder / "model.pt2")
    path = folder / "model.onnx"
    write_onnx_quickly(network, images, path)
    runtime, _, quantised = name.partition("-")
    if quantised:
        plain, path = path, folder / "int8.onnx"
        kinds: dict[str, Any] = {"activation_type": QuantType.QUInt8, "weight_type": QuantType.QInt8}
        quantize_static(plain, path, _Once(images.numpy()), quant_format=QuantFormat.QDQ, per_channel=True, **kinds)
    return {"onnxruntime": run_onnx, "openvino": run_openvino}[runtime](path, images.numpy(), 1)


if __name__ == "__main__":
    main()
