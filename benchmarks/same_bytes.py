"""Whether a refactoring changed anything that the program computes: the same short jobs by two revisions, in bytes.

    python benchmarks/same_bytes.py OLD NEW [--data FOLDER]

OLD and NEW are git revisions, or ``.`` for the working tree. Each runs split, search, extraction and retraining by
three methods through its own command line, with one thread and without a GPU, on the digits and on the first rows of
FOLDER (``train.parquet`` and ``test.parquet`` with columns ``image`` and ``label``, such as a packed CIFAR-10). Steps
that OLD began and that were stopped by SIGTERM are finished by NEW from the checkpoints; each must resume there, or be
refused in one line. The exit code is 1 where anything differs.
"""

import argparse
import json
import os
import shutil
import signal
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path
from typing import Any, NamedTuple

import pyarrow.parquet as pq
from tabulate import tabulate

ROOT = Path(__file__).parents[1]
CODE = ("pfs_core", "components", "pipelines")
ROWS = {"train.parquet": 2000, "test.parquet": 400}
CASES = ("pfs fp32", "pfs bf16", "network_slimming fp32", "amc fp32")
STEPS = {
    "gates": ("gates.safetensors", "trained.safetensors", "trained_channels.safetensors"),
    "structures": ("structure.json", "uniform.json", "dense.json", "kept.safetensors"),
    "model": ("model.safetensors", "last.safetensors", "best.safetensors"),
}
"""The files of each step's folder that are compared, where a revision wrote them."""
STOPPED = (("pfs fp32", "gates"), ("network_slimming fp32", "gates"), ("amc fp32", "gates"), ("pfs fp32", "model"))
RENAMED = {"kept.safetensors": "inherited.safetensors"}
"""What some revisions call a file otherwise."""
PROVENANCE = {"pfs_version", "git_commit", "image", "dataset"}
"""Fields of JSON that say which code ran on what, not all of which older revisions write; they are not compared."""
DRIVER = """
import json, sys
from pathlib import Path
from pfs_pipelines.cli import main
tree, *jobs = json.loads(sys.argv[1])
packages = {"pfs_core", "pfs_components", "pfs_pipelines", "components", "pipelines"}
for job in [None, *jobs]:
    if job and (code := main(job)):
        sys.exit(code)
    files = [module.__file__ for name, module in sys.modules.items() if name.partition(".")[0] in packages]
    if strange := [file for file in files if not Path(file).resolve().is_relative_to(tree)]:
        sys.exit(f"not the code of {tree}: {strange}")
"""


class Revision(NamedTuple):
    """The code of one revision.

    Attributes:
        name: as the user gave it.
        tree: the folder with its packages.
        names: a folder in which each package has the name that it is installed under.
        work: the folder that its jobs write.
    """

    name: str
    tree: Path
    names: Path
    work: Path

    @property
    def start(self) -> str:
        """The value of ``retrain.start`` that fine-tunes."""
        inherits = any('"inherited"' in file.read_text() for file in (self.tree / "pfs_core").rglob("*.py"))
        return "inherited" if inherits else "kept"

    @property
    def papers_cut(self) -> list[str]:
        """What makes the extraction cut as the paper does; older revisions have no other cut, and no word for it."""
        stages = self.tree / "pfs_core" / "config" / "stages.py"
        return ["--set=extract.blocks=1"] if stages.exists() and "blocks:" in stages.read_text() else []

    def command(self, *jobs: list[str], seconds: int = 60) -> dict[str, Any]:
        """Arguments of ``subprocess`` for a process that runs these command lines, ``seconds`` between checkpoints."""
        environment = {k: v for k, v in os.environ.items() if not k.startswith(("MLFLOW_", "PFS_", "KFP_"))}
        environment |= {"OMP_NUM_THREADS": "1", "CUDA_VISIBLE_DEVICES": "", "PFS_CHECKPOINT_SECONDS": str(seconds)}
        environment["PYTHONPATH"] = f"{self.names}{os.pathsep}{self.tree}"  # before the editable installation
        arguments = [sys.executable, "-c", DRIVER, json.dumps([str(self.tree), *jobs])]
        return {"args": arguments, "env": environment, "text": True, "stdout": subprocess.PIPE}


@contextmanager
def revision(name: str, folder: Path) -> Iterator[Revision]:
    """The code of a git revision, or a copy of the working tree's for ``.``, below a folder that is made for it."""
    tree, names = folder / "tree", folder / "names"
    names.mkdir(parents=True)
    for package in CODE[1:]:
        (names / f"pfs_{package}").symlink_to(tree / package)
    if name == ".":
        for package in CODE:
            shutil.copytree(ROOT / package, tree / package, ignore=shutil.ignore_patterns("__pycache__"))
        yield Revision(name, tree.resolve(), names, folder)
        return
    git = ("git", "-C", str(ROOT), "worktree")
    subprocess.run([*git, "add", "--quiet", "--detach", str(tree), name], check=True)  # noqa: S603
    try:
        yield Revision(name, tree.resolve(), names, folder)
    finally:
        subprocess.run([*git, "remove", "--force", str(tree)], check=True)  # noqa: S603


def job(case: str, step: str, code: Revision) -> list[str]:
    """The command line of one step of a case; it reads and writes below the current folder."""
    method, precision = case.split()
    settings = {"epochs": "2", "precision": precision}
    if step == "structures":
        return ["extract", "--gates", f"{case}/gates", "--budget", "macs=0.5", *code.papers_cut, f"{case}/structures"]
    if step == "gates":
        words = ["search", "--model", "resnet20", "--method", method, "--budget", "macs=0.5"]
        settings |= {"episodes": "6", "warmup_episodes": "2"} if method == "amc" else {}
    else:
        words = ["retrain", "--structure", f"{case}/structures/structure.json"]
        settings |= {"scratch_b": "false"} | ({"start": code.start} if method != "pfs" else {})
    changes = [f"--set={words[0]}.{name}={value}" for name, value in settings.items()]
    return [*words, "--split", "split", "--recipe", "cifar-official", *changes, f"{case}/{step}"]


def run(code: Revision, dataset: str, label: str) -> Path:
    """Every job by one revision, in one process; the folder with the results."""
    began, work = time.monotonic(), code.work / label
    work.mkdir()
    jobs = [["split", dataset, "split", "--recipe", "cifar-official"]]
    jobs += [job(case, step, code) for case in CASES for step in STEPS]
    done = subprocess.run(**code.command(*jobs), stderr=subprocess.STDOUT, cwd=work, check=False)
    if done.returncode:
        raise SystemExit(f"{code.name} failed on {label}:\n{done.stdout[-3000:]}")
    print(f"{code.name}: {len(jobs)} jobs on {label} in {time.monotonic() - began:.0f} s", flush=True)
    return work


def resumed(old: Revision, new: Revision, split: Path, case: str, step: str) -> tuple[str, Path]:
    """Stop OLD in a step after the first epoch and start NEW on the same: what became of it, and the folder.

    The step's inputs are those beside ``split``.
    """
    work = old.work / f"stopped {case} {step}"
    shutil.copytree(split.parent / case, work / case, ignore=shutil.ignore_patterns(step))
    shutil.copytree(split, work / "split")
    command, first = job(case, step, old), "epoch 1/2"
    with subprocess.Popen(**old.command(command, seconds=0), cwd=work) as process:
        assert process.stdout
        for line in process.stdout:
            if first in line:
                process.send_signal(signal.SIGTERM)
    if process.returncode != 128 + signal.SIGTERM:
        raise SystemExit(f"{old.name}, stopped in {case} {step}: exit code {process.returncode}, expected 143")
    done = subprocess.run(**new.command(command), stderr=subprocess.PIPE, cwd=work, check=False)
    print(f"{new.name}: {case} {step} of {old.name} after SIGTERM, exit code {done.returncode}", flush=True)
    if done.returncode == 2 and len(done.stderr.splitlines()) == 1:
        return f"refused: {done.stderr.strip()}", work
    if done.returncode:
        raise SystemExit(f"{new.name} failed on the checkpoints of {old.name}:\n{(done.stdout + done.stderr)[-3000:]}")
    return "started over" if first in done.stdout else "resumed", work


def content(folder: Path, name: str) -> bytes | None:
    """The bytes of a file, of JSON without its provenance; None if there is no such file."""
    path = folder / name
    if not path.exists() and name in RENAMED:
        path = folder / RENAMED[name]
    if not path.exists() or path.suffix != ".json":
        return path.read_bytes() if path.exists() else None

    def compared(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
        return {key: value for key, value in pairs if key not in PROVENANCE}

    return json.dumps(json.loads(path.read_text(), object_pairs_hook=compared)).encode()


def compare(old: Path, new: Path, folder: str, names: tuple[str, ...]) -> Iterator[tuple[str, str]]:
    """Each of the files that either revision wrote in a folder, and whether they are equal."""
    for name in names:
        before, after = (content(side / folder, name) for side in (old, new))
        if before is not None or after is not None:
            missing = before is None or after is None
            yield f"{folder}/{name}", "MISSING" if missing else "equal" if before == after else "DIFFERENT"


def first_rows(source: Path, target: Path) -> str:
    """A dataset of the first rows of ``source``."""
    target.mkdir()
    for name, count in ROWS.items():
        pq.write_table(pq.read_table(source / name, columns=["image", "label"])[:count], target / name)
    return str(target)


def rows(old: Revision, new: Revision, folder: Path, data: Path | None) -> Iterator[tuple[str, str, str]]:
    """Run everything; what was compared, by dataset, with its result."""
    datasets = {"digits": "digits"}
    if data:
        datasets["data"] = first_rows(data, folder / "data")
    for label, dataset in datasets.items():
        before, after = run(old, dataset, label), run(new, dataset, label)
        yield from ((label, *row) for row in compare(before, after, "split", ("split.parquet",)))
        for case in CASES:
            for step, names in STEPS.items():
                yield from ((label, *row) for row in compare(before, after, f"{case}/{step}", names))
    whole = old.work / "digits"
    for case, step in STOPPED:
        state, work = resumed(old, new, whole / "split", case, step)
        if state.startswith("refused"):
            yield "digits, stopped", f"{case}/{step}", state
            continue
        for name, result in compare(whole, work, f"{case}/{step}", STEPS[step]):
            yield "digits, stopped", name, f"{result}, {state}"


def main() -> None:
    """Print the table; exit code 1 where anything differs."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("old", metavar="OLD")
    parser.add_argument("new", metavar="NEW")
    parser.add_argument("--data", type=Path, metavar="FOLDER")
    a = parser.parse_args()
    with ExitStack() as stack:
        folder = Path(stack.enter_context(tempfile.TemporaryDirectory()))
        old = stack.enter_context(revision(a.old, folder / "old"))
        new = stack.enter_context(revision(a.new, folder / "new"))
        table = list(rows(old, new, folder, a.data))
    print(tabulate(table, headers=("dataset", "file", f"{a.old} and {a.new}")))
    same = all(result in ("equal", "equal, resumed") or result.startswith("refused") for *_, result in table)
    raise SystemExit(0 if same else 1)


if __name__ == "__main__":
    main()
