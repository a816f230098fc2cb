"""The block of a runtime is read from how times rise with the width, and is measured once."""

import math

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from pfs_core.errors import UserError
from pfs_core.latency import blocks
from pfs_core.latency.blocks import WIDTHS, block_of_steps, runtime_block
from pfs_core.storage.artifacts import read_json


@given(st.sampled_from([8, 16, 32]), st.floats(0.05, 2.0), st.integers(0, 1000))
def test_steps_are_found_through_noise(block, slope, seed):
    noise = np.random.default_rng(seed).normal(1, 0.01, len(WIDTHS))
    times = {w: (0.1 + slope * math.ceil(w / block)) * n for w, n in zip(WIDTHS, noise, strict=True)}
    assert block_of_steps(times) == block


@given(st.floats(0.01, 0.2), st.integers(0, 1000))
def test_a_time_that_rises_evenly_has_no_steps(slope, seed):
    noise = np.random.default_rng(seed).normal(1, 0.005, len(WIDTHS))
    assert block_of_steps({w: (0.1 + slope * w) * n for w, n in zip(WIDTHS, noise, strict=True)}) == 4


def test_a_block_is_measured_once_on_a_machine(monkeypatch, tmp_path, capsys):
    calls = []

    def measure(runtime, threads):
        calls.append(runtime)
        return {w: float(math.ceil(w / 16)) for w in WIDTHS}

    monkeypatch.setattr(blocks, "_measure", measure)
    monkeypatch.setenv("PFS_CACHE", str(tmp_path))
    assert runtime_block("eager") == runtime_block("eager") == 16
    assert calls == ["eager"]
    (file,) = tmp_path.iterdir()
    assert read_json(file)["schema"] == "pfs.width-times/1"
    assert "eager computes 16 channels at once" in capsys.readouterr().out
    monkeypatch.setattr(blocks, "machine", lambda: {"cpu": "another"})
    runtime_block("eager")
    assert calls == ["eager", "eager"]


def test_a_runtime_that_is_missing_says_what_to_do(monkeypatch):
    monkeypatch.setattr("pfs_core.latency.runtimes.missing", lambda runtime: "not installed (pip install openvino)")
    with pytest.raises(
        UserError,
        match=r"extract\.blocks=auto cannot be measured in openvino here: not installed .*; or choose another",
    ):
        runtime_block("openvino")


def test_a_real_runtime_is_measured(monkeypatch, tmp_path):
    monkeypatch.setenv("PFS_CACHE", str(tmp_path))
    assert runtime_block("onnxruntime") in blocks.SIZES
    (file,) = tmp_path.iterdir()
    assert all(ms > 0 for ms in read_json(file)["milliseconds"].values())
