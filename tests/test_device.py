"""Where and how to compute."""

import psutil
import pytest
import torch

from pfs_core.device import autocast, memory_format, memory_text, native_bf16, peak_memory, resolve_precision

CPU, CUDA = torch.device("cpu"), torch.device("cuda")


def test_auto_is_bf16_where_it_is_native():
    assert resolve_precision("auto", CPU) == ("bf16" if native_bf16(CPU) else "fp32")


@pytest.mark.parametrize("precision", ["bf16", "fp32"])
def test_a_named_precision_is_taken_at_its_word(precision):
    assert resolve_precision(precision, CPU) == precision


@pytest.mark.parametrize(("precision", "dtype"), [("bf16", torch.bfloat16), ("fp32", torch.float32)])
def test_autocast_computes_in_the_precision(precision, dtype):
    with autocast(CPU, precision):
        assert torch.nn.Linear(4, 4)(torch.ones(2, 4)).dtype == dtype


@pytest.mark.parametrize(
    ("device", "precision", "widths", "layout"),
    [
        (CPU, "fp32", [16, 20], torch.channels_last),
        (CPU, "bf16", [16, 32], torch.channels_last),
        (CPU, "bf16", [16, 20], torch.contiguous_format),
        (CUDA, "bf16", [16, 20], torch.channels_last),
    ],
)
def test_the_layout_suits_the_widths(device, precision, widths, layout):
    assert memory_format(device, precision, widths) == layout


def test_the_peak_memory_keeps_what_was_used_once():
    before = peak_memory(CPU)["host"]
    missing = (before + 256) * 2**20 - psutil.Process().memory_info().rss
    torch.ones(missing, dtype=torch.uint8)  # gone again at once
    assert peak_memory(CPU)["host"] >= before + 200
    assert peak_memory(CPU).keys() == {"host"}


def test_the_peak_memory_as_words():
    assert memory_text({"host": 1234}) == "peak memory 1,234 MiB host"
    assert memory_text({"host": 1, "device": 20}) == "peak memory 1 MiB host, 20 MiB device"
