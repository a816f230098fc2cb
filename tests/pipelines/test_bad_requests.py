"""A request that cannot be carried out is refused in one line before the split, whoever would have found out later."""

import os
import subprocess
import sys

import pytest
from pfs_pipelines.cli import main

from pfs_core.steps import preflight
from tests.data.folders import images, png, write

ENDING = "import sys; sys.exit(0)\n"
SCRIPT = """
import argparse

parser = argparse.ArgumentParser()
parser.add_argument("--lr", required=True)
parser.parse_args()
"""
NETS = """
from torch import nn

def build(num_classes=10, depth=1):
    return nn.Sequential(nn.Conv2d(1, 8, 3), nn.BatchNorm2d(8), nn.ReLU(), nn.Flatten(), nn.Linear(8 * 36, num_classes))

def dense_only(num_classes=10):
    return nn.Sequential(nn.Flatten(), nn.Linear(64, num_classes))

def two_outputs(num_classes=10):
    class Two(nn.Module):
        def __init__(self):
            super().__init__()
            self.net = build(num_classes)

        def forward(self, images):
            return self.net(images), images

    return Two()

class NoForward(nn.Module):
    def __init__(self, num_classes=10):
        super().__init__()
        self.conv = nn.Conv2d(1, 8, 3)

number, nothing = 3, None
"""

ENDS = {
    "own_error": "class Own(BaseException): pass\n\nraise Own('mine')\n",
    "late": "class Own(BaseException): pass\n\ndef build(num_classes):\n    raise Own('mine')\n",
    "json": "def build(num_classes): pass\n",
}

BAD = {
    "budget: in capitals": (["--budget", "MACS=0.5"], "metric: must be macs, params or latency (got 'MACS')"),
    "budget: nothing": (["--budget", "macs=0"], "must be a fraction in (0, 1] or a count such as 20M (got 0.0)"),
    "budget: infinite": (["--budget", "macs=1e400"], "budget 'macs=1e400' is not understood"),
    "budget: a latency above the dense one's": (["--budget", "latency=2"], "such as latency=0.6 (got 2.0)"),
    "model: empty": (["--model", ""], "request.model: must be a text that is not empty"),
    "model: in capitals": (["--model", "RESNET20"], "did you mean resnet20?"),
    "model: a longer name than files have": (["--model", "a" * 300], "unknown model"),
    "model: a library misspelt": (["--model", "torchvison:resnet18"], "did you mean torchvision?"),
    "model: a file alone": (["--model", "own_nets.py"], "write own_nets:FUNCTION"),
    "model: a file elsewhere": (["--model", "/a/b/nets.py:build"], "write nets:build in the folder /a/b"),
    "model: a path": (["--model", "a/nets:build"], "write a.nets:build"),
    "model: none": (["--model", "own_nets:nothing"], "nothing is of type NoneType"),
    "model: a module that ends by an error of its own": (["--model", "own_error:build"], "Own: mine"),
    "model: a factory that ends by an error of its own": (["--model", "late:build"], "Own: mine"),
    "model: a module of Python's name": (["--model", "json:build"], "give your json.py another name"),
    "model: no forward": (["--model", "own_nets:NoForward"], 'is missing the required "forward" function\n'),
    "dataset: empty": (["--dataset", ""], "request.dataset: must be a text that is not empty"),
    "dataset: a longer name than files have": (["--dataset", "a" * 300], "does not exist"),
    "dataset: in capitals": (["--dataset", "Digits"], "did you mean digits?"),
    "dataset: a library misspelt": (["--dataset", "torchvison:CIFAR10"], "did you mean torchvision:CIFAR10?"),
    "setting: nearly right": (["--set", "search.epoch=3"], "did you mean epochs?"),
    "setting: true for a number": (["--set", "retrain.epochs=True"], "must be a whole number from 1 (got True)"),
    "setting: a list for a number": (["--set", "retrain.lr=[1]"], "retrain.lr: must be a number above 0 (got [1])"),
    "setting: NaN": (["--set", "retrain.lr=NaN"], "retrain.lr: must be a number above 0 (got 'NaN')"),
    "setting: an object with a name twice": (["--set", 'model.x={"a": 1, "a": 2}'], "'a' is there twice"),
    "method: None": (["--set", "search.method=None"], "search.method: None is not known"),
    "method: a list": (["--set", "search.method=[1]"], "search.method: [1] is not known"),
    "method: in capitals": (["--method", "AMC"], "did you mean amc?"),
    "registered name: blank": (["--register", " "], "names of 1 to 256 characters"),
    "registered name: long": (["--register", "a" * 257], "names of 1 to 256 characters"),
    "budget against a floor of everything": (["--set", "extract.floor=1"], "ask for macs=1.0 or more"),
    "again: no folder of a run": (["--again", "empty"], "is no folder of a run"),
    "again: its run.json": (["--again", "empty/run.json"], "is no folder of a run"),
    "budget: two of them": (
        ["--budget", "macs=0.5", "--budget", "params=0.4"],
        "a network is cut at one budget; give one (got params=0.4 as well)",
    ),
    "budget: no number": (["--budget", "macs=half"], "budget 'macs=half' is not understood"),
    "budget: another metric": (["--budget", "flops=0.5"], "macs"),
    "budget: over the dense network": (["--budget", "macs=9G"], "is over the dense network's"),
    "budget: below the smallest": (["--budget", "macs=0.001"], "cannot be reached"),
    "budget: a latency in milliseconds": (["--budget", "latency=5000"], "fraction of the dense network's latency"),
    "budget against channel_multiple": (
        ["--budget", "macs=0.05", "--set", "extract.channel_multiple=16"],
        "ask for macs=0.0759 or more, or lower extract.channel_multiple",
    ),
    "budget against floor": (["--budget", "params=0.3", "--set", "extract.floor=0.9"], "cannot be reached"),
    "model: misspelt": (["--model", "resnet21"], "did you mean resnet20?"),
    "model: of torchvision, misspelt": (["--model", "torchvision:resnet19"], "did you mean torchvision:resnet18?"),
    "model: unknown argument": (["--set", "model.depth=3"], "'depth'"),
    "model: a module that ends the interpreter": (["--model", "ending:build"], "it ends with SystemExit"),
    "model: a script": (["--model", "script:build"], "it ends with SystemExit"),
    "model: no such factory": (["--model", "own_nets:bulid"], "did you mean build?"),
    "model: a file": (["--model", "./own_nets.py:build"], "write own_nets:build"),
    "model: a module": (["--model", "own_nets"], "own_nets:FUNCTION"),
    "model: no factory": (["--model", "own_nets:number"], "number"),
    "model: nothing to prune": (["--model", "own_nets:dense_only"], "can be pruned"),
    "model: two outputs": (["--model", "own_nets:two_outputs"], "tuple"),
    "model: too large for the images": (["--model", "vgg16"], "cannot process 1x8x8 images"),
    "dataset: misspelt": (["--dataset", "digit"], "'digit' does not exist"),
    "dataset: an empty folder": (["--dataset", "empty"], "is an empty folder"),
    "dataset: a file": (["--dataset", "own_nets.py"], "is a file; name the folder"),
    "recipe: misspelt": (["--recipe", "cifar"], "unknown recipe 'cifar'"),
    "recipe against settings": (
        ["--set", "retrain.keep=best", "--set", "retrain.train_on_validation=true"],
        "best needs",
    ),
    "setting: misspelt": (["--set", "search.epoch=3"], "search.epoch is not a setting"),
    "setting: out of range": (["--set", "retrain.lr=-1"], "retrain.lr"),
    "setting: of the wrong type": (["--set", "retrain.epochs=many"], "retrain.epochs"),
    "image size: three sides": (["--set", "split.image_size=160x128x3"], "height and width such as 160x128"),
    "image size: too small": (["--set", "split.image_size=160x4"], "must have sides of 8 to 1024 pixels"),
    "squashing without a size": (["--set", "split.resize=squash"], "squash needs a size: set split.image_size"),
    "a scale of crops without crops": (
        ["--set", "split.image_size=32", "--set", "split.resize=squash", "--set", "split.crop_scale=[0.5,1]"],
        "leave one of the two out",
    ),
    "augment: misspelt": (["--set", "retrain.augment=randaug"], "must be randaugment, trivialaugment or None"),
    "blocks: misspelt": (
        ["--set", "extract.blocks=atuo"],
        "blocks: must be auto or a whole number from 1 (got 'atuo')",
    ),
    "random erasing: in percent": (["--set", "retrain.random_erasing=25"], "retrain.random_erasing"),
    "mixup: negative": (["--set", "retrain.mixup=-0.2"], "retrain.mixup"),
    "class weights: a list": (["--set", "retrain.class_weights=[1,2]"], "retrain.class_weights"),
    "classes made up for twice": (
        ["--set", "retrain.class_weights=balanced", "--set", "retrain.balanced_sampling=true"],
        "leave one of the two out",
    ),
    "stage: misspelt": (["--set", "serch.epochs=3"], "serch"),
    "method: misspelt": (["--method", "slimming"], "slimming"),
    "networks: none beside another": (["--compare", "dense,none"], "none is for the pruned network alone"),
    "networks: misspelt": (["--compare", "unifrom"], "did you mean uniform?"),
    "networks: beside a fine-tuned one": (
        ["--method", "network_slimming", "--set", "retrain.start=inherited", "--compare", "dense"],
        "networks must be",
    ),
    "fine-tuning what was never trained": (["--set", "retrain.start=inherited"], "starts from trained weights"),
    "registered name": (["--register", "team/resnet20"], "takes no name with / or :"),
    "seed: negative": (["--seed", "-1"], "seed"),
    "seed: too large": (["--seed", "18446744073709551616"], "is not a whole number from 0 to 4294967295"),
    "runtime: unknown": (["--set", "latency.runtimes=tensorrt"], "latency.runtimes"),
}


@pytest.fixture
def here(tmp_path, monkeypatch):
    """A folder with networks of a user's own and an empty dataset; requests are checked in this process."""
    for name in ("own_nets", "late"):  # of the test before, in another folder
        monkeypatch.delitem(sys.modules, name, raising=False)
    for name, source in {"ending": ENDING, "script": SCRIPT, "own_nets": NETS, **ENDS}.items():
        (tmp_path / f"{name}.py").write_text(source)
    (tmp_path / "empty").mkdir()
    monkeypatch.chdir(tmp_path)
    monkeypatch.syspath_prepend(tmp_path)
    monkeypatch.setattr("pfs_pipelines.run.run_pipeline", lambda request, store, fresh: preflight.check(request))
    return tmp_path


@pytest.mark.parametrize(("arguments", "says"), BAD.values(), ids=list(BAD))
def test_a_bad_request_is_one_line_before_anything_starts(here, capsys, arguments, says):
    before = sorted(path.name for path in here.iterdir() if path.name != "__pycache__")
    try:
        code = main(["run", *arguments])
    except SystemExit as stop:  # of argparse, which knows the names of methods
        code = stop.code
    said = capsys.readouterr()
    assert code == 2
    assert says in said.err
    assert said.out == ""
    assert "Traceback" not in said.err
    assert len(said.err.splitlines()) == 1
    assert sorted(path.name for path in here.iterdir() if path.name != "__pycache__") == before


def test_a_right_request_passes_the_same_check(here, capsys):
    write(here / "empty" / "train.parquet", [png(image) for image in images(40)], [i % 2 for i in range(40)])
    assert main(["run"]) == 0
    assert main(["run", "--model", "own_nets:build", "--dataset", "empty", "--budget", "macs=0.5"]) == 0
    assert capsys.readouterr().err == ""


def test_a_network_that_asks_for_input_does_not_wait_for_ever(tmp_path):
    """Its question goes to the log, where nobody answers it, as at a terminal that is still open."""
    (tmp_path / "asking.py").write_text("def build(num_classes): return int(input('width? '))\n")
    terminal, end = os.pipe()
    command = [sys.executable, "-m", "pfs_pipelines.cli", "run", "--model", "asking:build", "--out", "runs"]
    try:
        done = subprocess.run(
            command, cwd=tmp_path, stdin=terminal, capture_output=True, text=True, timeout=240, check=False
        )
    finally:
        os.close(terminal)
        os.close(end)
    assert done.returncode == 2
    assert "model asking:build: EOFError: it asks for input" in done.stderr
