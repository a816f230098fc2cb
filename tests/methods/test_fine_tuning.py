"""What a cut keeps of a trained network is what fine-tuning starts from."""

import shutil

import pytest
import torch
from safetensors.torch import load_file, save_file

from pfs_core import steps
from pfs_core.channels import slice_weights
from pfs_core.config.recipes import recipe
from pfs_core.config.request import CompressRequest
from pfs_core.config.spec import Budget
from pfs_core.errors import UserError
from pfs_core.methods.gates_folder import load_gates
from pfs_core.methods.registry import method_config
from pfs_core.methods.run import search
from pfs_core.models import build_model
from pfs_core.steps import node
from pfs_core.steps.extraction import extract_structures
from pfs_core.steps.preflight import check
from pfs_core.storage.artifacts import read_json
from pfs_core.structure import Structure
from pfs_core.structure.inherited_weights import CHANNELS, FILE, TRAINED, inherited_file
from pfs_core.trainjob import retrain as launcher
from tests.budgets import PAPERS_CUT

HALF = Budget(target=0.5)
BRIEF = {
    "network_slimming": {"epochs": 2, "rounds": 2},
    "amc": {"epochs": 2, "episodes": 6, "warmup_episodes": 3, "reward_rows": 50, "recalibrate": 0},
}
ONE_EPOCH = {"epochs": 1, "batch_size": 256, "precision": "fp32", "schedule": "cosine", "scratch_b": False}
INHERIT = {**ONE_EPOCH, "start": "inherited", "lr": 0.01}


@pytest.fixture(scope="module", params=sorted(BRIEF))
def method(request):
    return request.param


@pytest.fixture(scope="module")
def found(method, narrow, digits, tmp_path_factory):
    """The ``gates`` and ``structures`` folders of a method that trains."""
    folder = tmp_path_factory.mktemp(method)
    settings = {"method": method, "precision": "fp32", "batch_size": 64, **BRIEF[method]}
    search(narrow, digits, folder / "gates", HALF, method_config(recipe("demo"), settings))
    extract_structures(folder / "gates", folder / "structures", HALF, PAPERS_CUT)
    return folder


def test_what_is_kept_are_the_channels_with_the_largest_gates(found):
    """A network that is sliced at once from the trained one, group by group, is the one in the file."""
    structure = Structure.load(found / "structures/structure.json")
    graph, (gates, info) = structure.graph(), load_gates(found / "gates")
    weights, left = load_file(found / "gates" / TRAINED), load_file(found / "gates" / CHANNELS)
    kept = load_file(found / "structures" / FILE)
    assert kept.keys() == structure.build().state_dict().keys()
    first = "layer1.0.conv1"
    order = sorted(range(len(left[first])), key=lambda i: (-gates[first][left[first][i]], i))
    rows = sorted(order[: structure.widths[first]])
    assert 0 < len(rows) < graph.group(first).width
    assert torch.equal(kept[f"{first}.weight"], weights[f"{first}.weight"][rows])
    assert torch.equal(kept["layer1.0.bn1.running_mean"], weights["layer1.0.bn1.running_mean"][rows])
    assert torch.equal(kept["layer1.0.conv2.weight"], weights["layer1.0.conv2.weight"][:, rows])
    assert torch.equal(kept["fc.weight"], weights["fc.weight"])
    if info.method == "amc":
        spec = info.model
        model = build_model(spec)
        model.load_state_dict(weights)
        places = {
            name: scores.argsort(descending=True, stable=True)[: structure.widths[name]].sort().values
            for name, scores in gates.items()
        }
        whole = slice_weights(model, graph, places).state_dict()
        assert all(torch.equal(kept[name], tensor) for name, tensor in whole.items())


def test_fine_tuning_starts_from_what_was_kept(found, digits, tmp_path):
    """With a rate of next to nothing the weights stay what they were."""
    still = {**INHERIT, "lr": 1e-12, "weight_decay": 0.0}
    steps.retrain(found / "structures/structure.json", digits, tmp_path / "model", "", still)
    kept, trained = load_file(found / "structures" / FILE), load_file(tmp_path / "model/model.safetensors")
    for name, tensor in kept.items():
        if "running" not in name and "num_batches" not in name:
            torch.testing.assert_close(trained[name], tensor, rtol=0, atol=1e-8)
    assert read_json(tmp_path / "model/metrics.json")["recipe"]["start"] == "inherited"


def test_other_networks_are_trained_afresh(found, digits, tmp_path):
    for name, settings in (("fresh", ONE_EPOCH), ("inherited", {**ONE_EPOCH, "start": "inherited"})):
        steps.retrain(found / "structures/uniform.json", digits, tmp_path / name, "", settings)
    weights = [(tmp_path / name / "model.safetensors").read_bytes() for name in ("fresh", "inherited")]
    assert weights[0] == weights[1]


def test_the_nodes_of_a_cluster_start_from_the_same(found, digits, tmp_path, monkeypatch):
    monkeypatch.setattr(launcher, "Cluster", lambda namespace: namespace)
    monkeypatch.setattr(
        launcher,
        "follow",
        lambda cluster, body, **_: node.run(body["spec"]["trainer"]["command"][-1], tmp_path / "scratch"),
    )
    monkeypatch.setenv("PFS_CHECKPOINTS", str(tmp_path / "checkpoints"))
    file = found / "structures/structure.json"
    steps.retrain(file, digits, tmp_path / "here", "", INHERIT)
    steps.retrain(
        file, digits, tmp_path / "there", "", INHERIT, 0, {"shared": str(tmp_path / "jobs"), "image": "pfs:1"}
    )
    here, there = ((tmp_path / name / "model.safetensors").read_bytes() for name in ("here", "there"))
    assert here == there


def test_weights_that_are_missing_or_of_another_structure_are_refused(found, structures, digits, tmp_path):
    with pytest.raises(UserError, match="inherited.safetensors is not there"):
        inherited_file(structures / "structure.json")
    folder = tmp_path / "structures"
    shutil.copytree(found / "structures", folder)
    save_file({"fc.weight": torch.zeros(1)}, folder / FILE)
    with pytest.raises(UserError, match="weights of another structure"):
        steps.retrain(folder / "structure.json", digits, tmp_path / "out", "", INHERIT)
    assert not (tmp_path / "out").exists()


def test_a_cut_that_keeps_what_was_cut_before_has_no_weights(found, method, tmp_path, capsys):
    """After two rounds of Network Slimming the channels for 95% of the MACs are gone; AMC's network has all of them."""
    extract_structures(found / "gates", tmp_path / "structures", Budget(target=0.95), PAPERS_CUT)
    assert (tmp_path / "structures" / FILE).exists() == (method == "amc")
    assert ("has no weights to fine-tune" in capsys.readouterr().out) == (method != "amc")
    if method != "amc":
        with pytest.raises(UserError, match=r"lost in the training, set extract\.blocks=1 or ask for less"):
            inherited_file(tmp_path / "structures/structure.json")


def test_fine_tuning_without_trained_weights_is_refused_before_anything_starts():
    asked = {"model": "resnet20", "dataset": "digits", "budgets": ["macs=0.5"], "networks": ["pruned"]}
    request = CompressRequest(**asked, retrain_settings={"start": "inherited"})
    with pytest.raises(UserError, match=r"search\.method=pfs trains"):
        check(request)
    request = request.model_copy(update={"search_settings": {"method": "amc"}})
    check(request)
    with pytest.raises(UserError, match="--compare none; pareto and compare always train dense, so take compress"):
        check(request.model_copy(update={"networks": ["pruned", "dense"]}))
