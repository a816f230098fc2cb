"""Whether a machine was quiet is a matter of what others did while it measured."""

import multiprocessing
import time
from importlib.metadata import PackageNotFoundError

import pytest

from pfs_core.latency import machine as machine_module
from pfs_core.latency.machine import disturbance, machine, noise, processor_seconds, wait_until_quiet
from pfs_core.runtime.logs import COLUMNS


def burn(seconds):
    while time.process_time() < seconds:
        pass


def test_own_work_is_nobody_elses():
    before, start = processor_seconds(), time.process_time()
    burn(start + 0.3)
    assert processor_seconds()["own"] - before["own"] > 0.28  # os.times counts in hundredths of a second
    before = {"used": 100.0, "own": 40.0, "stolen": 0.0}
    assert disturbance(before, {"used": 110.0, "own": 50.0, "stolen": 0.0}, 5) == {"others": 0.0, "stolen": 0.0}
    assert disturbance(before, {"used": 112.0, "own": 50.0, "stolen": 1.0}, 4) == {"others": 0.5, "stolen": 0.25}


def test_another_process_at_work_is_seen():
    other = multiprocessing.get_context("spawn").Process(target=burn, args=(3600,))
    other.start()
    try:
        time.sleep(1)  # it starts
        before, clock = processor_seconds(), time.perf_counter()
        time.sleep(2)
        found = disturbance(before, processor_seconds(), time.perf_counter() - clock)
        before, clock = processor_seconds(living=True), time.perf_counter()
        time.sleep(2)
        own = processor_seconds(living=True)["own"] - before["own"]
    finally:
        other.kill()
        other.join()
    assert found["others"] > 0.2
    assert noise(found, 2)[0].startswith("other processes used ")
    assert own > 0.2


@pytest.mark.parametrize(
    ("others", "stolen", "reasons"),
    [
        (0.1, 0.0, []),
        (1.0, 0.0, ["other processes used 1.0 of its 4 cores"]),
        (0.0, 0.2, ["other virtual machines took 5% of its time"]),
    ],
)
def test_only_a_disturbance_is_noise(others, stolen, reasons):
    assert noise({"others": others, "stolen": stolen}, 4) == reasons


def busy_for(probes, monkeypatch):
    """A machine that other processes use for so many probes; returns the list of probes made."""
    made = []

    def watched(before, after, seconds):
        made.append(seconds)
        return {"others": 1.0 if len(made) <= probes else 0.0, "stolen": 0.0}

    monkeypatch.setattr(machine_module, "disturbance", watched)
    monkeypatch.setattr(machine_module.os, "cpu_count", lambda: 2)
    return made


def test_a_measurement_waits_for_a_quiet_machine(monkeypatch, capsys):
    made = busy_for(2, monkeypatch)
    wait_until_quiet(patience_seconds=60, probe_seconds=0.01)
    assert len(made) == 3
    assert capsys.readouterr().out.count("waiting up to 60 s for quiet: other processes used 1.0 of its") == 1


@pytest.mark.parametrize("said", ["waiting up to 1800 s for quiet: ", "latency: a noisy machine: "])
def test_a_line_of_a_noisy_machine_fits(said):
    for reason in noise({"others": 128.0, "stolen": 128.0}, 128):
        assert len(said + reason) <= COLUMNS


def test_patience_ends(monkeypatch):
    made = busy_for(10**9, monkeypatch)
    wait_until_quiet(patience_seconds=0.05, probe_seconds=0.01)
    assert 1 <= len(made) <= 5


def test_without_patience_nothing_is_watched(monkeypatch):
    made = busy_for(10**9, monkeypatch)
    wait_until_quiet(patience_seconds=0)
    assert made == []


@pytest.mark.parametrize(("installed", "version"), [(["onnxruntime-gpu"], "1.2.3"), ([], "unknown")])
def test_a_runtime_that_comes_in_another_distribution_has_its_version(monkeypatch, installed, version):
    """Such as onnxruntime-gpu, or a build that has no distribution at all."""
    versions = {"onnxruntime-gpu": "1.2.3"}

    def version_of(name):
        if name not in versions:
            raise PackageNotFoundError(name)
        return versions[name]

    monkeypatch.setattr(machine_module, "version", version_of)
    monkeypatch.setattr(machine_module, "packages_distributions", lambda: {"onnxruntime": installed})
    assert machine()["onnxruntime"] == version
