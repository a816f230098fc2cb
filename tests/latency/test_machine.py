"""Whether a machine was quiet is a matter of what others did while it measured."""

import multiprocessing
import time

import pytest

from pfs_core.latency.machine import disturbance, noise, processor_seconds


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
    finally:
        other.kill()
        other.join()
    assert found["others"] > 0.2
    assert noise(found, 2)[0].startswith("other processes used ")


@pytest.mark.parametrize(
    ("others", "stolen", "reasons"),
    [
        (0.1, 0.0, []),
        (1.0, 0.0, ["other processes used 1.0 of its 4 cores"]),
        (0.0, 0.2, ["5% of its time was stolen by other virtual machines"]),
    ],
)
def test_only_a_disturbance_is_noise(others, stolen, reasons):
    assert noise({"others": others, "stolen": stolen}, 4) == reasons
