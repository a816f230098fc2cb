"""The code that a network is made of: a change of any of it is seen, and of nothing else."""

import importlib
import sys
from importlib.metadata import version

import pytest
from torch import nn

from pfs_core.config.spec import ModelSpec
from pfs_core.models.sources import known_by, layers, source_digests

FILES = {
    "own_net/__init__.py": "",
    "own_net/net.py": (
        "from torch import nn\n"
        "from . import bases\n"
        "from .ops.activations import act\n"
        "import own_config as config\n"
        "class Net(bases.Base):\n"
        "    def forward(self, x):\n"
        "        from own_net.late import scale\n"
        "        return scale(act(self.conv(x)))\n"
    ),
    "own_net/bases.py": (
        "from torch import nn\n"
        "class Base(nn.Module):\n"
        "    def __init__(self):\n"
        "        super().__init__()\n"
        "        self.conv = nn.Conv2d(3, 8, 3)\n"
    ),
    "own_net/ops/__init__.py": "GAIN = 1.0\n",
    "own_net/ops/activations.py": "from ..ops import GAIN\ndef act(x):\n    return x.relu() * GAIN\n",
    "own_net/late.py": "def scale(x):\n    return x\n",
    "own_config.py": "WIDTH = 8\n",
    "own_net/unused.py": "",
}


@pytest.fixture
def network(tmp_path, monkeypatch):
    """A network of several files that are loaded, and where they are."""
    for name, text in FILES.items():
        (tmp_path / name).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / name).write_text(text)
    monkeypatch.syspath_prepend(str(tmp_path))
    model = importlib.import_module("own_net.net").Net()
    importlib.import_module("own_net.late")
    yield model, tmp_path
    for name in [name for name in sys.modules if name.startswith("own_")]:
        del sys.modules[name]


@pytest.mark.parametrize("file", FILES)
def test_a_change_of_whatever_is_imported_is_seen(network, file):
    model, folder = network
    before = source_digests(model)
    assert before is not None
    assert source_digests(model) == before
    (folder / file).write_text(FILES[file] + "\n# changed\n")
    assert (source_digests(model) != before) == ("unused" not in file)


def test_code_that_was_typed_in_has_no_digest():
    scope = {"__name__": "typed_in"}
    exec("from torch import nn\nclass Net(nn.Module):\n    pass\n", scope)
    assert source_digests(scope["Net"]()) is None


def test_a_network_of_ones_own_is_known_by_its_code_and_one_of_a_library_by_its_version(network, monkeypatch):
    model, folder = network
    spec = ModelSpec(name="own_net.net:Net")
    before = known_by(spec, model)
    assert before == known_by(spec)
    (folder / "own_config.py").write_text("WIDTH = 16\n")
    assert known_by(spec, model) != before
    monkeypatch.setattr("pfs_core.models.sources.source_digests", lambda *a: None)
    assert known_by(spec, model) is None
    assert known_by(ModelSpec(name="resnet20")) == {}
    assert known_by(ModelSpec(name="timm:resnet18")) == {"library": version("timm")}


def test_layers_are_the_same_in_every_process():
    class Applied(nn.Module):
        def __init__(self):
            super().__init__()
            self.function = lambda x: x

        def extra_repr(self):
            return f"{self.function}, {object()}"

    assert layers(Applied()) == layers(Applied())
    assert "0x" not in layers(Applied())
