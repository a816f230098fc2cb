"""A digest names what it is of: what a digest was before, it must stay, or caches and checkpoints are not found."""

import hashlib

import pytest

from pfs_core.errors import AccessDeniedError, NotFoundError
from pfs_core.storage.digests import file_digest, json_digest

VALUE = {"seed": 0, "epochs": 2, "milestones": (0.5, 0.75), "model": {"name": "resnet20"}, "é": None}


def test_a_digest_of_json_is_what_it_always_was():
    text = '{"epochs": 2, "milestones": [0.5, 0.75], "model": {"name": "resnet20"}, "seed": 0, "\\u00e9": null}'
    assert json_digest(VALUE, 64) == hashlib.sha256(text.encode()).hexdigest()
    assert json_digest(VALUE, 16) == "406192a0edcc1593"


def test_the_order_of_keys_is_no_difference_but_every_value_is():
    assert json_digest(dict(reversed(VALUE.items())), 24) == json_digest(VALUE, 24)
    assert json_digest({**VALUE, "seed": 1}, 24) != json_digest(VALUE, 24)


def test_what_json_cannot_hold_is_refused_unless_it_is_turned_into_something_else(tmp_path):
    with pytest.raises(TypeError):
        json_digest({"path": tmp_path}, 16)
    assert json_digest({"path": tmp_path}, 16, default=str) == json_digest({"path": str(tmp_path)}, 16)


def test_a_digest_of_a_file_is_of_its_bytes(tmp_path):
    (tmp_path / "a").write_bytes(b"x" * 100_000)
    assert file_digest(tmp_path / "a") == file_digest(str(tmp_path / "a")) == hashlib.sha256(b"x" * 100_000).hexdigest()


def test_a_file_that_is_gone_or_may_not_be_read_is_named_in_a_line(tmp_path, monkeypatch):
    with pytest.raises(NotFoundError, match=f"^{tmp_path}/a cannot be read: No such file or directory$"):
        file_digest(tmp_path / "a")

    def deny(path, *_):
        raise PermissionError(13, "Permission denied", str(path))

    monkeypatch.setattr("pathlib.Path.open", deny)
    with pytest.raises(AccessDeniedError, match=f"^{tmp_path}/a cannot be read: Permission denied$"):
        file_digest(tmp_path / "a")
