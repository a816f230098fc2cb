"""Whatever the process of a pipeline prints, ``pfs run`` follows it to its end."""

import sys

from pfs_pipelines.run import follow

PIPELINE = """#!/bin/sh
printf 'loaded caf\\351\\n[pfs] search epoch 1/1\\n'
"""


def test_a_byte_that_is_not_utf8_ends_nothing(tmp_path, monkeypatch, capsys):
    pipeline = tmp_path / "pipeline"
    pipeline.write_text(PIPELINE)
    pipeline.chmod(0o700)
    monkeypatch.setattr(sys, "executable", str(pipeline))
    with (tmp_path / "log").open("w", encoding="utf-8") as log:
        assert follow(tmp_path / "run.json", {}, log) == (0, "")
    assert (tmp_path / "log").read_text(encoding="utf-8") == "loaded caf\ufffd\nsearch epoch 1/1\n"
    assert capsys.readouterr().out == "search epoch 1/1\n"
