"""Which cores a measurement is pinned to, on machines of made-up cores."""

import psutil
import pytest

from pfs_core.latency import cores
from pfs_core.latency.cores import cores_for


@pytest.fixture
def machine(monkeypatch, tmp_path):
    """Make a machine of cores with so many percent of work by others, and the siblings that Linux lists for each."""

    def make(busy, siblings):
        monkeypatch.setattr(cores, "usable_cores", lambda: set(range(len(busy))))
        monkeypatch.setattr(psutil, "cpu_percent", lambda interval, percpu: busy)
        for core, listed in enumerate(siblings):
            (tmp_path / f"{core}").write_text(f"{listed}\n")
        monkeypatch.setattr(cores, "_SIBLINGS", str(tmp_path / "{}"))

    return make


@pytest.mark.parametrize(
    ("busy", "siblings", "threads", "right"),
    [
        ([0, 0, 0, 0], "0123", 1, {0}),
        ([90, 0, 0, 0], "0123", 1, {1}),
        ([10, 0, 0, 0], "0123", 2, {0, 1}),
        ([90, 0, 0, 90], "0123", 3, {0, 1, 2}),
        ([90, 0, 0, 0], "0123", 4, {0, 1, 2, 3}),
        ([90, 0, 0, 0], "0123", 9, {0, 1, 2, 3}),
        ([0, 0, 0, 0], ["0-1", "0-1", "2-3", "2-3"], 2, {0, 2}),
        ([0, 0, 0, 0], ["0,2", "1,3", "0,2", "1,3"], 2, {0, 1}),
        ([0, 90, 0, 0], ["0-1", "0-1", "2-3", "2-3"], 1, {2}),
        ([0, 90, 0, 0], ["0-1", "0-1", "2-3", "2-3"], 3, {0, 2, 3}),
    ],
)
def test_idle_cores_are_taken_and_of_each_one_thread_first(machine, busy, siblings, threads, right):
    machine(busy, siblings)
    assert cores_for(threads) == right


def test_a_machine_that_lists_no_siblings_has_as_many_cores_as_it_says(machine):
    machine([90, 0, 0], [])
    assert cores_for(1) == {1}
