"""A store of checkpoints that fails, or that outlives the result: no training is lost by it."""

import os
import signal

import pytest

from pfs_core.errors import UnreachableError
from pfs_core.training import checkpoints
from pfs_core.training.checkpoints import Checkpoints


@pytest.fixture
def root(bucket, faulty, monkeypatch):
    """Where checkpoints are, in a store that fails by the plan of ``faulty``."""
    monkeypatch.setenv(checkpoints.ROOT, f"{bucket}/checkpoints")
    return f"{bucket}/checkpoints"


def refused(method, path):
    return "503" if method == "PUT" else None


def loaded(out):
    with Checkpoints(out, {}) as again:
        return again.load()


def test_a_save_that_failed_ends_no_training_and_the_next_one_is_made(root, faulty, tmp_path, capsys):
    with Checkpoints(tmp_path / "out", {}) as saving:
        faulty.plan = refused
        saving.save(1, {"at": 1})
        with pytest.raises(UnreachableError):
            saving._writing.result()
        faulty.plan = lambda method, path: None
        saving.save(2, {"at": 2})
        saving._writing.result()
    assert capsys.readouterr().out.count("saving a checkpoint failed") == 1
    assert loaded(tmp_path / "out")["at"] == 2


def test_the_checkpoint_before_stays_while_the_store_is_away(root, faulty, tmp_path):
    with Checkpoints(tmp_path / "out", {}) as saving:
        saving.save(1, {"at": 1})
        saving._writing.result()
        faulty.plan = refused
        for step in (2, 3, 4):
            saving.save(step, {"at": step})
    faulty.plan = lambda method, path: None
    assert loaded(tmp_path / "out")["at"] == 1


def test_sigterm_while_the_store_is_away_ends_with_143(root, faulty, tmp_path, capsys):
    faulty.plan = refused
    with Checkpoints(tmp_path / "out", {}) as saving:
        saving.save(1, {"at": 1})
        os.kill(os.getpid(), signal.SIGTERM)
        with pytest.raises(SystemExit) as stopped:
            saving.save(2, {"at": 2})
    assert stopped.value.code == 143
    assert capsys.readouterr().out.count("saving a checkpoint failed") == 2


def test_a_last_save_that_failed_does_not_keep_the_others_from_being_removed(root, faulty, tmp_path):
    with Checkpoints(tmp_path / "out", {}) as saving:
        saving.save(1, {"at": 1})
        saving._writing.result()
        faulty.plan = refused
        saving.save(2, {"at": 2})
        saving.clear()
    assert loaded(tmp_path / "out") is None
