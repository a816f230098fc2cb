"""A reader sees a whole result or none."""

import json
import signal
import subprocess
import sys
from pathlib import Path

import pytest
from mlflow.utils import validation

from pfs_core.errors import UserError
from pfs_core.storage.artifacts import (
    COMPLETE,
    check_out,
    plain_name,
    publish,
    read_json,
    require_result,
    write_json,
)
from pfs_core.storage.digests import file_digest


def publish_text(out, text="new", kind="thing", beside=()):
    with publish(out, kind) as folder:
        write_json(folder / f"{kind}.json", text)
        for name in beside:
            (folder / name).write_text(text)


def publish_half(out):
    with publish(out, "thing") as folder:
        write_json(folder / "thing.json", "new")
        raise ZeroDivisionError


def test_what_was_written_is_published_with_digests(tmp_path):
    with publish(tmp_path / "a" / "out", "thing") as folder:
        assert not (tmp_path / "a" / "out").exists()
        (folder / "sub").mkdir()
        (folder / "sub" / "data.bin").write_bytes(b"123")
        write_json(folder / "thing.json", {"x": 1})
    out = tmp_path / "a" / "out"
    assert read_json(out / "thing.json") == {"x": 1}
    assert read_json(out / COMPLETE) == {
        "sub/data.bin": file_digest(out / "sub" / "data.bin"),
        "thing.json": file_digest(out / "thing.json"),
    }
    assert [path.name for path in out.parent.iterdir()] == ["out"]


def test_results_can_be_read_by_others(tmp_path):
    with publish(tmp_path / "out", "thing") as folder:
        (folder / "private.bin").touch(mode=0o600)
    assert (tmp_path / "out").stat().st_mode & 0o777 == 0o755
    assert (tmp_path / "out" / "private.bin").stat().st_mode & 0o777 == 0o644


def test_an_exception_leaves_nothing(tmp_path):
    with pytest.raises(ZeroDivisionError):
        publish_half(tmp_path / "out")
    assert list(tmp_path.iterdir()) == []


def test_an_exception_keeps_the_earlier_result(tmp_path):
    publish_text(tmp_path / "out", "old")
    with pytest.raises(ZeroDivisionError):
        publish_half(tmp_path / "out")
    assert read_json(tmp_path / "out" / "thing.json") == "old"
    assert [path.name for path in tmp_path.iterdir()] == ["out"]


def test_an_earlier_result_is_replaced(tmp_path):
    publish_text(tmp_path / "out", "old", beside=["weights.bin"])
    publish_text(tmp_path / "out", "new")
    assert sorted(path.name for path in (tmp_path / "out").iterdir()) == [COMPLETE, "thing.json"]
    assert [path.name for path in tmp_path.iterdir()] == ["out"]


def test_an_empty_folder_is_filled(tmp_path):
    (tmp_path / "out").mkdir()
    publish_text(tmp_path / "out")
    assert read_json(tmp_path / "out" / "thing.json") == "new"
    assert [path.name for path in tmp_path.iterdir()] == ["out"]


@pytest.mark.parametrize("earlier", [False, True])
def test_a_killed_process_leaves_out_as_it_was(tmp_path, earlier):
    if earlier:
        publish_text(tmp_path / "out", "old")
    script = """
import os, signal, sys
from pfs_core.storage.artifacts import publish, write_json
with publish(sys.argv[1], "thing") as folder:
    write_json(folder / "thing.json", "new")
    os.kill(os.getpid(), signal.SIGKILL)
"""
    killed = subprocess.run([sys.executable, "-c", script, str(tmp_path / "out")], check=False, timeout=60)
    assert killed.returncode == -signal.SIGKILL
    if earlier:
        assert read_json(tmp_path / "out" / "thing.json") == "old"
    else:
        assert not (tmp_path / "out").exists()
    publish_text(tmp_path / "out")
    assert read_json(tmp_path / "out" / "thing.json") == "new"


def test_a_folder_of_others_is_refused(tmp_path):
    (tmp_path / "notes.txt").write_text("mine")
    with pytest.raises(UserError, match="holds other files than an earlier thing result"):
        publish_text(tmp_path)
    assert (tmp_path / "notes.txt").read_text() == "mine"


def test_a_file_of_others_beside_a_result_is_not_lost(tmp_path):
    publish_text(tmp_path / "out")
    (tmp_path / "out" / "notes.txt").write_text("mine")
    with pytest.raises(UserError, match="holds other files than an earlier thing result"):
        publish_text(tmp_path / "out")
    assert (tmp_path / "out" / "notes.txt").read_text() == "mine"


def test_a_result_of_another_kind_is_refused(tmp_path):
    publish_text(tmp_path / "out", "old", kind="gates")
    with pytest.raises(UserError, match="holds other files than an earlier thing result"):
        publish_text(tmp_path / "out")
    assert read_json(tmp_path / "out" / "gates.json") == "old"


def test_a_file_is_refused(tmp_path):
    (tmp_path / "out").write_text("mine")
    with pytest.raises(UserError, match="is a file; name a folder"):
        publish_text(tmp_path / "out")
    assert (tmp_path / "out").read_text() == "mine"


def test_a_folder_inside_a_file_is_refused(tmp_path):
    (tmp_path / "file").write_text("mine")
    with pytest.raises(UserError, match="is a file, not a folder"):
        publish_text(tmp_path / "file" / "a" / "out")


@pytest.mark.parametrize("write", [lambda out: check_out(out, "thing"), publish_text])
@pytest.mark.parametrize("name", ["a" * 300, f"{'a' * 300}/thing"])
def test_a_name_that_no_file_can_have_is_refused(tmp_path, write, name):
    with pytest.raises(
        UserError, match=r"a+ cannot be made: File name too long; name another folder$|/thing cannot be"
    ):
        write(tmp_path / name)


def test_a_place_where_nothing_can_be_made_is_refused():
    with pytest.raises(UserError, match=r"^/proc/thing cannot be made: .*; name another folder$"):
        publish_text(Path("/proc/thing"))


def test_other_files_are_found_without_looking_at_all_of_them(tmp_path, monkeypatch):
    """As in a home, where there may be millions."""
    for i in range(50):
        (tmp_path / f"{i}.txt").write_text("mine")
    looked, is_file = [], Path.is_file
    monkeypatch.setattr(Path, "is_file", lambda path: looked.append(path) or is_file(path))
    with pytest.raises(UserError, match="holds other files than an earlier thing result"):
        check_out(tmp_path, "thing")
    assert len(looked) < 5


def test_checking_makes_nothing(tmp_path):
    check_out(tmp_path / "a" / "out", "thing")
    assert list(tmp_path.iterdir()) == []


def test_the_current_folder_is_filled_or_refused(tmp_path, monkeypatch):
    (tmp_path / "here").mkdir()
    monkeypatch.chdir(tmp_path / "here")
    try:
        publish_text(".")
    except UserError:
        assert list((tmp_path / "here").iterdir()) == []
    else:
        assert read_json(tmp_path / "here" / "thing.json") == "new"


def test_a_result_is_required(tmp_path):
    publish_text(tmp_path / "out", kind="gates")
    assert require_result(tmp_path / "out", "gates", "pfs search") == tmp_path / "out"


@pytest.mark.parametrize(
    ("spoil", "message"),
    [
        (lambda out: (out / COMPLETE).unlink(), "is not a complete gates folder; make one with `pfs search`"),
        (lambda out: (out / "gates.json").unlink(), "is not a complete gates folder; make one with `pfs search`"),
        (lambda out: (out / "weights.bin").unlink(), "has lost its weights.bin; make it again with `pfs search`"),
        (lambda out: out.rename(out.with_name("moved")), "is not a folder; expected the output of `pfs search`"),
    ],
    ids=["no list of files", "another kind", "a listed file is missing", "no folder"],
)
def test_an_incomplete_result_is_refused(tmp_path, spoil, message):
    with publish(tmp_path / "out", "gates") as folder:
        write_json(folder / "gates.json", {})
        (folder / "weights.bin").write_bytes(b"1")
    spoil(tmp_path / "out")
    with pytest.raises(UserError, match=message):
        require_result(tmp_path / "out", "gates", "pfs search")


@pytest.mark.parametrize(
    ("name", "message"),
    [
        ("missing.json", "does not exist"),
        ("folder", "is a folder"),
        ("text.json", "is not JSON"),
        ("binary.json", "is not JSON"),
        ("text.json/inside.json", "does not exist"),
    ],
)
def test_what_is_no_json_is_refused(tmp_path, name, message):
    (tmp_path / "folder").mkdir()
    (tmp_path / "text.json").write_text("{half")
    (tmp_path / "binary.json").write_bytes(b"\xff\xfe\x00")
    with pytest.raises(UserError, match=message):
        read_json(tmp_path / name)


def test_json_has_no_nan(tmp_path):
    with pytest.raises(ValueError, match="JSON"):
        write_json(tmp_path / "x.json", {"loss": float("nan")})
    assert not (tmp_path / "x.json").exists()


def test_writers_of_the_same_json_do_not_meet(tmp_path, monkeypatch):
    replace = Path.replace

    def overtaken(aside, target):
        monkeypatch.setattr(Path, "replace", replace)
        write_json(target, "of another")
        assert read_json(target) == "of another"
        replace(aside, target)

    monkeypatch.setattr(Path, "replace", overtaken)
    write_json(tmp_path / "x.json", "own")
    assert read_json(tmp_path / "x.json") == "own"
    assert [path.name for path in tmp_path.iterdir()] == ["x.json"]


def test_json_that_cannot_be_written_leaves_nothing(tmp_path):
    (tmp_path / "x.json").mkdir()
    with pytest.raises(IsADirectoryError):
        write_json(tmp_path / "x.json", 1)
    assert [path.name for path in tmp_path.iterdir()] == ["x.json"]


def test_json_can_be_read_by_others(tmp_path):
    write_json(tmp_path / "x.json", 1)
    assert (tmp_path / "x.json").stat().st_mode & 0o777 == 0o644


def test_json_is_read_as_written(tmp_path):
    value = {"text": "grün", "list": [1, 2.5, None, True], "nested": {"a": {}}}
    write_json(tmp_path / "x.json", value)
    assert read_json(tmp_path / "x.json") == value
    assert json.loads((tmp_path / "x.json").read_bytes()) == value


@pytest.mark.parametrize("name", ["resnet20", "torchvision:resnet18", "my.nets:build", "a/b:c d"])
def test_a_plain_name_can_be_registered(name):
    validation._validate_model_name(f"pfs-{plain_name(name)}")
    assert not set(plain_name(name)) & set(":/ ")
