"""A library is silent; a program that asks for it shows each line once, as it is."""

import logging
import subprocess
import sys

import pytest

from pfs_core.runtime.logs import PASSING, log_to_terminal
from pfs_core.runtime.progress import user_errors

SPEAK = """
logging.getLogger("pfs_core.training").info("epoch 1/2: 100% {done}")
logging.getLogger("pfs_core.training").warning("no such checkpoint")
logging.getLogger("someone.else").info("noise")
"""


def output(before):
    """What a process of its own prints, to stdout and stderr, when the library speaks after ``before``."""
    code = f"import logging, pfs_core\n{before}{SPEAK}"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True, timeout=60)
    return done.stdout.splitlines(), done.stderr.splitlines()


def test_a_library_is_silent():
    assert output("") == ([], [])


@pytest.mark.parametrize("root", ["", "logging.basicConfig(level=logging.INFO)\n"], ids=["none", "root handler"])
def test_every_line_is_shown_once_and_as_it_is(root):
    said, noise = output(f"{root}from pfs_core.runtime.logs import log_to_terminal\n" + 2 * "log_to_terminal()\n")
    assert said == ["epoch 1/2: 100% {done}", "no such checkpoint"]
    assert noise == (["INFO:someone.else:noise"] if root else [])


def test_a_user_may_configure_logging_instead():
    said, noise = output("logging.basicConfig(level=logging.INFO)\n")
    assert said == []
    assert noise[0] == "INFO:pfs_core.training:epoch 1/2: 100% {done}"


@pytest.mark.parametrize("package", ["pfs_core.steps", "pfs_components.base", "pfs_pipelines"])
def test_each_package_is_heard(package, capsys):
    log_to_terminal()
    logging.getLogger(package).info("line")
    assert capsys.readouterr().out == "line\n"


def test_lines_are_marked_for_the_command_that_reads_along(capsys, monkeypatch):
    monkeypatch.setenv("PFS_MARK_LINES", "1")
    logging.getLogger("pfs_core").info("line")
    assert capsys.readouterr().out == "[pfs] line\n"


@pytest.mark.parametrize(("marks", "shown"), [(None, "line\n"), ("1", "[pfs] line\n"), ("terminal", "[pfs~] line\n")])
def test_a_line_that_passes_is_marked_so_at_a_terminal_only(capsys, monkeypatch, marks, shown):
    monkeypatch.delenv("PFS_MARK_LINES", raising=False)
    if marks:
        monkeypatch.setenv("PFS_MARK_LINES", marks)
    logging.getLogger("pfs_core").info("line", extra=PASSING)
    assert capsys.readouterr().out == shown


@pytest.mark.parametrize(("rank", "shown"), [("0", "line\n"), ("1", "")])
def test_of_several_processes_the_first_one_is_heard(capsys, monkeypatch, rank, shown):
    monkeypatch.setenv("RANK", rank)
    logging.getLogger("pfs_core").info("line")
    assert capsys.readouterr().out == shown


def test_a_step_in_a_process_of_its_own_is_heard():
    before = "from pfs_core.runtime.progress import user_errors\nwith user_errors(): pass\n"
    assert output(before)[0] == ["epoch 1/2: 100% {done}", "no such checkpoint"]


def test_an_error_that_is_no_users_goes_on():
    with pytest.raises(ZeroDivisionError), user_errors():
        raise ZeroDivisionError


def test_a_step_outlives_who_reads_its_lines():
    """Seen live: Kubeflow's launcher, through which they go, is gone at once when a run is ended."""
    code = """
import sys
from pfs_core.runtime.progress import user_errors
with user_errors():
    import logging
    for line in range(3):
        logging.getLogger("pfs_core.training").info(line)
    print("as well")
    sys.exit(143)
"""
    command = f"{sys.executable} -c '{code}' | true; exit ${{PIPESTATUS[0]}}"
    done = subprocess.run(["bash", "-c", command], capture_output=True, text=True, check=False, timeout=60)
    assert (done.returncode, done.stderr) == (143, "")
