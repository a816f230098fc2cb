"""What a shell is told when it asks how a command may go on."""

import os
import subprocess
import sys
from pathlib import Path

import pytest


def completions(line, folder):
    """What argcomplete's shell function would get for the text before the cursor."""
    answer = folder / "answer"
    asked = {
        "_ARGCOMPLETE": "1",
        "_ARGCOMPLETE_SHELL": "bash",
        "_ARGCOMPLETE_IFS": "\n",
        "_ARGCOMPLETE_STDOUT_FILENAME": str(answer),
        "COMP_LINE": line,
        "COMP_POINT": str(len(line)),
        "COMP_TYPE": "9",
    }
    program = str(Path(sys.executable).with_name("pfs"))
    subprocess.run([program], env={**os.environ, **asked}, cwd=folder, timeout=60, check=False)
    return answer.read_text().split("\n")


@pytest.mark.parametrize(
    ("line", "some"),
    [
        ("pfs run --model res", {"resnet20", "resnet56", "resnet50"}),
        ("pfs run --set search.exp", {"search.expand=", "search.expand_stream="}),
        ("pfs run --out ru", {"runs/"}),
        *(
            pytest.param(line, some, marks=pytest.mark.slow)
            for line, some in (
                ("pfs comp", {"compare", "compile"}),
                ("pfs run --method net", {"network_slimming"}),
                ("pfs run --recipe cifar-", {"cifar-sfp", "cifar-official"}),
                ("pfs settings spl", {"split"}),
            )
        ),
    ],
)
def test_commands_names_and_settings_are_completed(tmp_path, line, some):
    (tmp_path / "runs").mkdir()
    found = completions(line, tmp_path)
    assert some <= set(found)
    assert all(word.startswith(line.split()[-1]) for word in found)
