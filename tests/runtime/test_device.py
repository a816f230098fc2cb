"""Where and how to compute."""

import mmap

import psutil
import pytest
import torch

from pfs_core.runtime import device
from pfs_core.runtime.device import (
    autocast,
    compiled,
    memory_text,
    native_bf16,
    peak_memory,
    pick_device,
    resolve_precision,
)

CPU = torch.device("cpu")


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
    ("error", "said"),
    [(RuntimeError("no compiler\nhere"), "RuntimeError: no compiler"), (NotImplementedError(), "NotImplementedError")],
)
def test_a_function_that_cannot_be_compiled_runs_as_it_is(monkeypatch, capsys, error, said):
    def failing(function, mode):
        def call(*arguments):
            raise error

        return call

    monkeypatch.setattr(torch, "compile", failing)
    double = compiled(lambda x: 2 * x)
    assert [double(2), double(3)] == [4, 6]
    assert capsys.readouterr().out.count(f"torch.compile failed ({said}); going on without") == 1


def test_an_error_after_the_first_call_is_not_hidden(monkeypatch):
    monkeypatch.setattr(torch, "compile", lambda function, mode: function)
    inverse = compiled(lambda x: 1 / x)
    assert inverse(2) == 0.5
    with pytest.raises(ZeroDivisionError):
        inverse(0)


def test_the_peak_memory_keeps_what_was_used_once():
    before = peak_memory(CPU)["host"]
    missing = (before + 256) * 2**20 - psutil.Process().memory_info().rss
    fresh = mmap.mmap(-1, missing)  # not memory that an earlier test gave back to this process
    torch.frombuffer(fresh, dtype=torch.uint8).fill_(1)
    assert peak_memory(CPU)["host"] >= before + 200
    assert peak_memory(CPU).keys() == {"host"}


def test_the_peak_memory_as_words():
    assert memory_text({"host": 1234}) == "peak memory 1,234 MiB host"
    assert memory_text({"host": 1, "device": 20}) == "peak memory 1 MiB host, 20 MiB device"


@pytest.mark.parametrize(
    ("content", "cores"), [("200000 100000", 2), ("150000 100000", 2), ("50000 100000", 1), ("9900000 100000", 64)]
)
def test_cores_are_no_more_than_the_limit_of_the_container(monkeypatch, content, cores):
    monkeypatch.setattr(device, "usable_cores", lambda: set(range(64)))
    monkeypatch.setattr(device.Path, "read_text", lambda path: content)
    assert device.core_count() == cores


@pytest.mark.parametrize(
    ("cores", "before", "said", "after"), [(4, 64, None, 4), (4, 2, None, 2), (4, 64, "64", 64), (4, 2, "2", 2)]
)
def test_a_step_computes_on_the_cores_of_its_container_unless_a_user_says_otherwise(
    monkeypatch, cores, before, said, after
):
    threads = [before]
    monkeypatch.setattr(device, "core_count", lambda: cores)
    monkeypatch.setattr(torch, "get_num_threads", lambda: threads[-1])
    monkeypatch.setattr(torch, "set_num_threads", threads.append)
    monkeypatch.delenv("OMP_NUM_THREADS", raising=False)
    if said:
        monkeypatch.setenv("OMP_NUM_THREADS", said)
    assert pick_device() == CPU
    assert threads[-1] == after


@pytest.mark.parametrize("content", [None, "max 100000"])
def test_without_a_limit_all_cores_count(monkeypatch, content):
    def read(path):
        if content is None or path.name != "cpu.max":
            raise FileNotFoundError(path)
        return content

    monkeypatch.setattr(device, "usable_cores", lambda: set(range(64)))
    monkeypatch.setattr(device.Path, "read_text", read)
    assert device.core_count() == 64
