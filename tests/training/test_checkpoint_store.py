"""A store of checkpoints that fails, or that outlives the result: no training is lost by it."""

import os
import signal
from types import SimpleNamespace

import pytest
from pfs_components import close_run

from pfs_core.errors import NotFoundError, UnreachableError, UserError
from pfs_core.storage import open_storage
from pfs_core.training import checkpoints
from pfs_core.training.checkpoints import Checkpoints
from pfs_core.training.finished import done_with, remove_left, until_safe


@pytest.fixture
def root(bucket, faulty, monkeypatch):
    """Where checkpoints are, in a store that fails by the plan of ``faulty``."""
    monkeypatch.setenv(checkpoints.ROOT, f"{bucket}/checkpoints")
    return f"{bucket}/checkpoints"


def refused(method, path):
    return "503" if method == "PUT" else None


def loaded(out, **key):
    with Checkpoints(out, key) as again:
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


RUN = "7b8e4b04-3a3c-4f0e-9d2a-0123456789ab"


def saved(out, key="a"):
    """Checkpoints of a step with one save."""
    made = Checkpoints(out, {"key": key})
    with made:
        made.save(1, {"at": 1})
    return made


def stored(bucket):
    try:
        return [entry.path for entry in open_storage(bucket).files()]
    except NotFoundError:
        return []


@pytest.mark.parametrize("seconds", ["a minute", "-1", "nan"])
def test_seconds_between_checkpoints_that_are_no_number_are_refused(tmp_path, monkeypatch, seconds):
    monkeypatch.setenv(checkpoints.SECONDS, seconds)
    with pytest.raises(UserError, match="PFS_CHECKPOINT_SECONDS must be a number from 0"):
        Checkpoints(tmp_path / "out", {})


def test_without_anything_to_wait_for_they_are_removed_at_once(root, tmp_path):
    done_with(saved(tmp_path / "out"))
    assert stored(root) == []


def test_they_are_removed_at_the_end_of_the_outermost_block(root, tmp_path):
    with until_safe():
        with until_safe(uploaded_later=True):
            done_with(saved(tmp_path / "out"))
        assert len(stored(root)) == 1
    assert stored(root) == []


def test_what_fails_after_the_result_keeps_them(root, tmp_path):
    with pytest.raises(UnreachableError), until_safe():
        done_with(saved(tmp_path / "out"))
        raise UnreachableError("the result could not be taken away")
    assert len(stored(root)) == 1
    done_with(saved(tmp_path / "out"))  # later blocks are not of that one
    assert stored(root) == []


def test_in_a_pod_they_outlive_the_step_until_its_run_has_ended(root, tmp_path, monkeypatch):
    monkeypatch.setenv("KFP_RUN_ID", RUN)
    kept = saved(tmp_path / "other", "b")  # of a step that is not done
    with until_safe(uploaded_later=True):
        done_with(saved(tmp_path / "out"))
    assert len(stored(root)) == 3
    assert loaded(tmp_path / "out", key="a")["at"] == 1
    monkeypatch.setenv("KFP_RUN_ID", RUN.replace("7", "8"))
    remove_left()  # another run's
    assert len(stored(root)) == 3
    monkeypatch.setenv("KFP_RUN_ID", RUN)
    remove_left()
    assert [path.partition("/")[0] for path in stored(root)] == [kept.name]


@pytest.mark.parametrize(("state", "left"), [("SUCCEEDED", 0), ("RUNNING", 0), ("FAILED", 2)])
def test_the_last_step_removes_them_unless_the_run_failed(root, tmp_path, monkeypatch, state, left):
    monkeypatch.delenv("MLFLOW_TRACKING_URI", raising=False)
    monkeypatch.setenv("KFP_RUN_ID", RUN)
    with until_safe(uploaded_later=True):
        done_with(saved(tmp_path / "out"))
    close_run.python_func(SimpleNamespace(state=state))
    assert len(stored(root)) == left


def test_a_local_run_has_nobody_who_would_remove_them_later(root, tmp_path, monkeypatch):
    monkeypatch.setenv("KFP_RUN_ID", "resnet20-digits-1")
    with until_safe(uploaded_later=True):
        done_with(saved(tmp_path / "out"))
    assert stored(root) == []


def test_a_last_step_that_cannot_remove_them_says_so_and_goes_on(root, faulty, tmp_path, monkeypatch, capsys):
    monkeypatch.setenv("KFP_RUN_ID", RUN)
    with until_safe(uploaded_later=True):
        done_with(saved(tmp_path / "out"))
    faulty.plan = lambda method, path: "403"
    remove_left()
    assert "checkpoints of steps that are done are left" in capsys.readouterr().out
