"""How far a loop is inside an epoch: how often it is said, and what."""

import io

import pytest
from pfs_pipelines.run import _copy

from pfs_core.runtime import progress
from pfs_core.runtime.progress import EpochProgress


@pytest.fixture
def clock(monkeypatch):
    """A clock that stands still until it is set."""
    now = [100.0]
    monkeypatch.setattr(progress.time, "monotonic", lambda: now[0])
    return now


@pytest.mark.parametrize(("marks", "every"), [(None, 60), ("1", 60), ("terminal", 2)])
def test_it_is_said_once_a_minute_and_at_a_terminal_every_two_seconds(monkeypatch, caplog, clock, marks, every):
    monkeypatch.delenv("PFS_MARK_LINES", raising=False)
    if marks:
        monkeypatch.setenv("PFS_MARK_LINES", marks)
    say = EpochProgress("retrain dense", epochs=4, steps=100, step=0, images=0)
    for second in range(5 * every):
        clock[0] = 100.0 + second
        say(1, 1 + second, 128 * (1 + second))
    assert len(caplog.records) == 4


def test_it_says_the_share_the_rate_and_the_time_left(caplog, clock):
    say = EpochProgress("retrain dense", epochs=4, steps=100, step=150, images=150 * 128)  # it goes on in epoch 2
    say(2, 151, 151 * 128)
    clock[0] += 64
    say(2, 175, 175 * 128)
    clock[0] += 64
    say(2, 176, 176 * 128)
    # 25 steps of 128 images in 64 s, and one; 225 steps are left where 25 took 64 s.
    assert caplog.messages == [
        "retrain dense epoch 2/4  75% of it  50 images/s  left 9:36",
        "retrain dense epoch 2/4  76% of it  2 images/s  left 18:22",
    ]


def test_a_first_step_that_takes_long_has_its_rate(caplog, clock):
    say = EpochProgress("retrain dense", epochs=1, steps=10, step=0, images=0)
    clock[0] += 64
    say(1, 1, 128)
    assert caplog.messages == ["retrain dense epoch 1/1  10% of it  2 images/s  left 9:36"]


def test_at_a_terminal_the_next_line_takes_its_place_and_the_log_has_none(capsys):
    log = io.StringIO()
    lines = ["[pfs] one\n", "[pfs~] 10%\n", "[pfs~] 20%\n", "noise\n", "[pfs] two\n", "[pfs] error: bad\n"]
    assert _copy(lines, log) == "bad"
    assert capsys.readouterr().out == "one\n\r\x1b[K10%\r\x1b[K20%\r\x1b[Ktwo\n"
    assert log.getvalue() == "one\nnoise\ntwo\nerror: bad\n"
