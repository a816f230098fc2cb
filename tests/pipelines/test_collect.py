"""The results of a run are those of its last attempt, and are moved to its folder however often that is begun."""

import json
from pathlib import Path

import pytest
from pfs_pipelines.local import results
from pfs_pipelines.run import collect, run_pipeline
from pfs_pipelines.run_folders import new_folder

from pfs_core.config.request import CompressRequest
from pfs_core.errors import UserError
from pfs_core.storage.artifacts import publish, write_json


def attempt(steps, hour):
    """What an attempt at this hour leaves below ``steps``: a result of three kinds."""
    for kind in ("split", "search", "metrics"):
        with publish(steps / f"compress-2026-01-01-{hour:02}-00-00-000000" / kind / "out", kind) as folder:
            write_json(folder / f"{kind}.json", {"network": "pruned", "hour": hour})


def finish(steps, hour):
    """What a pipeline leaves that comes to its end at this hour."""
    attempt(steps, hour)
    write_json(steps / "outputs.json", results(steps))


def test_a_run_whose_steps_are_done_does_none_again(tmp_path, monkeypatch, capsys):
    request = CompressRequest.parse({"model": "resnet20", "dataset": "digits", "budgets": ["macs=0.5"]}, "request")
    folder = new_folder(tmp_path, request)
    finish(folder / "steps", 9)
    write_json(folder / "run.json", {"arguments": request.arguments()})
    monkeypatch.setattr("pfs_pipelines.run.follow", None)  # it would be called
    assert run_pipeline(request, tmp_path) == 0
    assert "going on in " in capsys.readouterr().out
    assert hour_of(folder / "gates", "search") == 9
    assert not (folder / "steps").exists()


class StoppedError(Exception):
    """The process has ended."""


def hour_of(path, kind):
    return json.loads((path / f"{kind}.json").read_text())["hour"]


def test_of_several_attempts_the_last_one_counts(tmp_path):
    for hour in (9, 10, 8, 11):
        attempt(tmp_path, hour)
    last = "compress-2026-01-01-11-00-00-000000"
    assert results(tmp_path) == {
        "split": f"{last}/split/out",
        "gates": f"{last}/search/out",
        "model-pruned": f"{last}/metrics/out",
    }


@pytest.mark.parametrize("place", ["here", "elsewhere"])
@pytest.mark.parametrize("moved", range(6))
def test_a_run_that_was_stopped_while_it_collected_ends_the_next_time(tmp_path, monkeypatch, moved, place):
    folder, move, left = tmp_path / "run", Path.rename, iter(range(moved))

    def rename(path, target):
        if next(left, None) is None:
            raise StoppedError
        move(path, target)

    for name in ("split", "gates"):
        (folder / name).mkdir(parents=True)
        (folder / name / "left").touch()
    finish(folder / "steps", 9)
    with monkeypatch.context() as patch:
        patch.setattr(Path, "rename", rename)
        with pytest.raises(StoppedError):
            collect(folder)
    folder = folder if place == "here" else folder.rename(tmp_path / "elsewhere")
    collect(folder)
    assert {path.name for path in folder.iterdir()} == {"split", "gates", "model-pruned"}
    found = {"split": "split", "gates": "search", "model-pruned": "metrics"}
    assert {hour_of(folder / name, kind) for name, kind in found.items()} == {9}
    assert not list(folder.rglob("left"))


def test_a_result_that_is_lost_is_said_and_what_is_left_stays(tmp_path):
    finish(tmp_path / "steps", 9)
    (gates,) = tmp_path.rglob("search")
    gates.rename(tmp_path / "lost")
    with pytest.raises(UserError, match=f"{tmp_path} has lost its gates, .* --fresh"):
        collect(tmp_path)
    assert list((tmp_path / "steps").rglob("split.json"))
