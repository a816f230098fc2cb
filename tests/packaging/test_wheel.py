"""The wheel as a user installs it: without the checkout, beside packages of the user's own."""

import os
import shutil
import subprocess
import sys
from pathlib import Path, PurePosixPath
from zipfile import ZipFile

import pytest
from pfs_pipelines.packages import PIPELINES

ROOT = Path(__file__).parents[2]
FOLDERS = {"pfs_core": "pfs_core", "pfs_components": "components", "pfs_pipelines": "pipelines"}
SHIPPED = (".py", ".html", ".css", ".js", ".json", ".typed")
SETTINGS = (
    *("model.width=4", "search.epochs=1", "retrain.epochs=1"),
    *(
        "latency.patience_seconds=0",
        "latency.max_seconds=0.1",
        "latency.min_rounds=64",
        "latency.runtimes=eager",
        "latency.threads=1",
    ),
)


@pytest.fixture(scope="module")
def wheel(tmp_path_factory):
    """The wheel, built from a copy of what the build needs."""
    source, target = tmp_path_factory.mktemp("source"), tmp_path_factory.mktemp("wheel")
    for folder in FOLDERS.values():
        shutil.copytree(ROOT / folder, source / folder, ignore=shutil.ignore_patterns("__pycache__"))
    for file in ("pyproject.toml", "README.md", "LICENSE"):
        shutil.copy(ROOT / file, source)
    pip("wheel", "--no-build-isolation", "--wheel-dir", str(target), str(source))
    (built,) = target.iterdir()
    return built


@pytest.fixture(scope="module")
def installed(wheel, tmp_path_factory):
    """The folder that the wheel is installed in."""
    folder = tmp_path_factory.mktemp("installed")
    pip("install", "--target", str(folder), str(wheel))
    return folder


@pytest.fixture(scope="module")
def contents(wheel):
    """The files of the wheel but for its metadata."""
    names = map(PurePosixPath, ZipFile(wheel).namelist())
    return {name for name in names if not name.parts[0].endswith(".dist-info")}


@pytest.fixture
def work(tmp_path):
    """A user's folder, with packages of their own that cannot be imported."""
    for name in ("components", "pipelines"):
        (tmp_path / name).mkdir()
        (tmp_path / name / "__init__.py").write_text(f"raise RuntimeError('the user\\'s {name} was imported')\n")
    return tmp_path


def pip(command, *arguments):
    flags = ("--quiet", "--disable-pip-version-check", "--no-index", "--no-deps")
    done = subprocess.run(
        [sys.executable, "-m", "pip", command, *flags, *arguments], capture_output=True, text=True, check=False
    )
    assert done.returncode == 0, done.stdout + done.stderr


def run(installed, work, *command):
    """A command in the folder ``work`` with the installed packages; its output."""
    env = {key: value for key, value in os.environ.items() if not key.startswith("MLFLOW_")}
    env["PYTHONPATH"] = str(installed)  # before a checkout that the interpreter may know; steps inherit it
    done = subprocess.run(command, cwd=work, env=env, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stdout + done.stderr
    return done.stdout


def test_it_installs_three_packages_and_no_other_name(contents):
    assert {name.parts[0] for name in contents} == set(FOLDERS)


def test_it_has_every_file_of_every_package(contents):
    expected = {
        PurePosixPath(name) / path.relative_to(ROOT / folder)
        for name, folder in FOLDERS.items()
        for path in (ROOT / folder).rglob("*")
        if path.suffix in SHIPPED or path.name == "py.typed"
    }
    assert contents == expected


def test_types_templates_and_styles_ship(contents):
    assert {PurePosixPath(name) / "py.typed" for name in FOLDERS} <= contents
    assert {".html", ".css", ".js"} <= {name.suffix for name in contents}


def test_what_is_imported_is_the_installation(installed, work):
    code = f"import {', '.join(FOLDERS)}; print({', '.join(f'{name}.__file__' for name in FOLDERS)}, sep='\\n')"
    files = run(installed, work, sys.executable, "-c", code).splitlines()
    assert files == [str(installed / name / "__init__.py") for name in FOLDERS]


def test_the_command_works_beside_packages_of_the_users_own(installed, work):
    pfs = installed / "bin" / "pfs"
    assert "MACs" in run(installed, work, pfs, "cost", "resnet20")
    run(installed, work, pfs, "compile", "--out", "packages")
    assert {path.stem for path in (work / "packages").glob("*.yaml")} == set(PIPELINES)


@pytest.mark.slow
def test_a_run_works_beside_packages_of_the_users_own(installed, work):
    run(installed, work, installed / "bin" / "pfs", "run", "--compare", "none", *(f"--set={each}" for each in SETTINGS))
    assert list(work.glob("pfs-runs/resnet20-*/report/report.html"))
