"""Every method: the same seed chooses the same, a stop changes nothing, and no budget is missed on any network."""

from functools import cache

import pyarrow.parquet as pq
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from pfs_core import steps
from pfs_core.channels import resize
from pfs_core.config.recipes import recipe
from pfs_core.config.spec import Budget, ModelSpec
from pfs_core.errors import UserError
from pfs_core.methods.amc.environment import STATE, PruningEnv
from pfs_core.methods.amc.search import _as_gates, input_norms
from pfs_core.methods.gates_folder import load_gates
from pfs_core.methods.network_slimming.search import scales
from pfs_core.methods.random.search import random_gates
from pfs_core.methods.registry import METHODS, method_config
from pfs_core.methods.run import search
from pfs_core.models import MODELS, build_model
from pfs_core.steps.extraction import extract_structures
from pfs_core.storage.artifacts import read_json
from pfs_core.structure import FILES, Structure, extract, unexpanded_graph
from pfs_core.structure.budget_cut import equal_gates
from pfs_core.structure.ranking import ranked_channels
from pfs_core.training.checkpoints import SECONDS, Checkpoints
from tests.budgets import PAPERS_CUT

HALF = Budget(target=0.5)
BRIEF = {
    "pfs": {"epochs": 2},
    "uniform": {},
    "random": {},
    "network_slimming": {"epochs": 2, "rounds": 2, "batch_size": 256},
    "amc": {"epochs": 1, "batch_size": 256, "episodes": 6, "warmup_episodes": 3, "reward_rows": 50, "recalibrate": 64},
}
STAGES = {"amc": {"pretrain", "search"}}
FAMILIES = ("mobilenet_v1", "mobilenet_v2", "resnet20", "resnet18", "resnet50", "vgg16")
"""One network of each; the deeper ones of a family take longest."""


def brief(method):
    return method_config(recipe("demo"), {"method": method, "precision": "fp32", **BRIEF[method]})


def chosen(method, narrow, digits, out, seed=0, record=lambda row: None):
    search(narrow, digits, out, HALF, brief(method), seed, record)
    return [path.read_bytes() for path in sorted([out / "gates.safetensors", *out.glob("*.parquet")])]


@pytest.fixture(scope="module")
def undisturbed(narrow, digits, tmp_path_factory):
    """What a method chooses when nothing stops it: the bytes, the rows that it records and its folder; each once."""

    @cache
    def of(method):
        folder, rows = tmp_path_factory.mktemp(method) / "gates", []
        return chosen(method, narrow, digits, folder, record=rows.append), rows, folder

    return of


@pytest.mark.parametrize("method", METHODS)
def test_the_same_seed_chooses_the_same_and_is_cut_to_the_budget(method, narrow, digits, undisturbed, tmp_path):
    first, rows, folder = undisturbed(method)
    assert chosen(method, narrow, digits, tmp_path / "second") == first
    if method != "uniform":
        assert chosen(method, narrow, digits, tmp_path / "other", seed=1)[0] != first[0]
    info = read_json(folder / "search.json")
    assert info["method"] == method
    assert set(info["cost"]) == STAGES.get(method, {"search"})
    found = extract_structures(folder, tmp_path / "structures", HALF, PAPERS_CUT)["pruned"]
    assert found == Structure.load(tmp_path / "structures" / FILES["pruned"])
    assert (found.network, found.chosen_by["method"]) == ("pruned", method)
    assert 0.4 < found.budget.achieved <= 0.5
    expected = {"pfs": 2, "network_slimming": 4, "amc": 7}.get(method, 0)  # epochs, and episodes
    assert len(rows) == expected
    if method == "amc":
        (trained,) = pq.read_table(folder / "pretraining.parquet").to_pylist()
        assert rows[0] == {key if key == "epoch" else f"pretrain_{key}": value for key, value in trained.items()}
        assert trained["val_accuracy"] == info["pretrained_accuracy"]


@pytest.mark.parametrize(
    ("method", "place"),
    [
        ("network_slimming", 7),
        ("amc", 9),
        *(
            pytest.param(method, place, marks=pytest.mark.slow)
            for method, place in (("network_slimming", 0), ("network_slimming", 14), ("amc", 2), ("amc", 5))
        ),
    ],
)
def test_a_stop_changes_nothing(method, place, narrow, digits, undisturbed, tmp_path, monkeypatch):
    (whole, rows, folder), again = undisturbed(method), []
    monkeypatch.setenv(SECONDS, "0")
    save, saved = Checkpoints.save, []

    def stopping(self, number, state):
        save(self, number, state)
        saved.append(number)
        if len(saved) == place + 1:
            self._writing.result()
            raise KeyboardInterrupt

    with monkeypatch.context() as patch:
        patch.setattr(Checkpoints, "save", stopping)
        with pytest.raises(KeyboardInterrupt):
            chosen(method, narrow, digits, tmp_path / "out")
    assert not (tmp_path / "out").exists()
    assert chosen(method, narrow, digits, tmp_path / "out", record=again.append) == whole
    assert again == rows
    images = [read_json(path / "search.json")["cost"]["search"] for path in (folder, tmp_path / "out")]
    for key in ("forward_images", "backward_images"):
        assert images[0][key] == images[1][key]


@cache
def start(name):
    """The graph of a network of the zoo, and the network at 1.25 times its widths, on no device."""
    spec = ModelSpec(name=name, input_shape=MODELS[name].input_shape, expand=1.25)
    graph = unexpanded_graph(spec)
    widths = graph.expanded(spec.expand)
    with torch.device("meta"):
        model = resize(build_model(spec), graph, widths)
    return spec, graph, widths, model.to_empty(device="cpu")


def cost_of(graph, budget, widths=None):
    """MACs or parameters, whichever the budget is of."""
    return getattr(graph.cost(widths), budget.metric)


def gates_of(method, name, seed, budget):
    """Gates as the method makes them, of weights, actions or shares that are drawn at random."""
    _, graph, widths, model = start(name)
    random = torch.Generator().manual_seed(seed)
    if method == "pfs":
        return {
            group.name: torch.rand(widths[group.name] // group.per_gate, generator=random) for group in graph.prunable()
        }
    if method == "random":
        return random_gates(graph, widths, 0.1, seed)
    if method == "uniform":
        return equal_gates(graph, widths)
    for parameter in model.parameters():
        with torch.no_grad():
            parameter.uniform_(generator=random)
    if method == "network_slimming":
        return scales(model, graph.with_widths(widths))
    env, picked = PruningEnv(model, graph, widths, budget, 0.1), {}
    for _ in env.groups:
        assert len(env.state(picked, 1.0)) == STATE
        assert all(0 <= number <= 1 for number in env.state(picked, 1.0))
        picked[env.groups[len(picked)]] = env.width(picked, float(torch.rand(1, generator=random)))
        assert cost_of(graph, budget, env._least | picked) <= budget.limit(cost_of(graph, budget))
    gates = _as_gates(env.gates(picked), input_norms(model, graph.with_widths(widths)))
    cut = extract(graph, gates, budget, model=start(name)[0])
    assert all(cut.widths[group] >= width for group, width in picked.items())
    assert cut.widths == env.filled(picked)
    return gates


@pytest.mark.parametrize("method", METHODS)
@pytest.mark.parametrize(
    "name", [each if each in FAMILIES else pytest.param(each, marks=pytest.mark.slow) for each in sorted(MODELS)]
)
@given(st.integers(0, 1000), st.floats(0.2, 1.0), st.sampled_from(["macs", "params"]), st.booleans())
@settings(max_examples=3)
def test_the_budget_is_met_and_no_further_channel_fits(method, name, seed, share, metric, counted):
    spec, graph, widths, _ = start(name)
    budget = Budget(metric=metric, target=share)
    if counted:
        budget = Budget(metric=metric, target=round(share * cost_of(graph, budget)))
    gates = gates_of(method, name, seed, budget)
    found = extract(graph, gates, budget, model=spec, method=method)
    limit = budget.limit(cost_of(graph, budget))
    assert getattr(found.cost, metric) <= limit
    groups = graph.prunable()
    _, owners = ranked_channels(gates)
    names = list(gates)
    kept = {group.name: found.widths[group.name] // group.per_gate for group in groups}
    counts = dict.fromkeys(names, 0)
    following = None
    for owner in owners:
        counts[names[owner]] += 1
        if counts[names[owner]] > max(kept[names[owner]], 1):
            following = names[owner]
            break
    if following is not None:
        wider = found.widths | {following: found.widths[following] + graph.group(following).per_gate}
        assert cost_of(graph, budget, wider) > limit
    else:
        assert found.widths == widths


def test_random_widths_are_drawn_in_proportion():
    _, graph, widths, _ = start("vgg16")
    shares = [random_gates(graph, widths, 0.1, seed) for seed in range(2)]
    cuts = [extract(graph, gates, HALF, model=start("vgg16")[0]).widths for gates in shares]
    assert cuts[0] != cuts[1]
    for gates, cut in zip(shares, cuts, strict=True):
        drawn = {name: float(scores.min()) for name, scores in gates.items()}  # the last channel's is the share itself
        kept = {name: cut[name] / widths[name] for name in drawn if cut[name] < widths[name]}
        factors = [kept[name] / drawn[name] for name in kept if cut[name] > 20]
        assert max(factors) / min(factors) < 1.1


@pytest.mark.parametrize(
    ("changes", "says"),
    [
        (
            {"method": "magic"},
            "search.method: 'magic' is not known; known: pfs, uniform, random, network_slimming, amc",
        ),
        ({"method": "random", "epochs": 3}, "search.epochs is not a setting; known: method, expand"),
        (
            {"method": "amc", "episodes": 5, "warmup_episodes": 6},
            "search.warmup_episodes: must be at most search.episodes",
        ),
    ],
)
def test_a_wrong_setting_is_named(changes, says):
    with pytest.raises(UserError, match=says.replace("(", r"\(")):
        method_config(recipe("demo"), changes)


def test_only_our_own_search_is_profiled(digits, tmp_path):
    with pytest.raises(UserError, match="--profile is of search.method=pfs, not of random"):
        steps.search("resnet20", digits, tmp_path / "out", settings={"method": "random"}, profile=True)


def test_an_agents_gates_rank_every_channel(undisturbed):
    gates, _ = load_gates(undisturbed("amc")[2])
    assert all(0 <= float(scores.min()) <= float(scores.max()) <= 1 for scores in gates.values())
    assert all(len(scores.unique()) == len(scores) for scores in gates.values())


def test_the_cost_of_a_method_is_what_it_looked_at(narrow, digits, digits_data, undisturbed, tmp_path):
    """Forward and backward images by stage, from the recipe and the rows of the split alone."""
    train, validation = (len(digits_data.parts[part]) for part in ("train", "validation"))
    folders = {method: undisturbed(method)[2] for method in METHODS} | {"pfs trained": tmp_path / "gates"}
    trained = brief("pfs").updated({"pretrain_epochs": 1}, "search")
    search(narrow, digits, folders["pfs trained"], HALF, trained)
    cost = {name: read_json(folder / "search.json")["cost"] for name, folder in folders.items()}
    counted = {
        method: {stage: (spent["forward_images"], spent["backward_images"]) for stage, spent in stages.items()}
        for method, stages in cost.items()
    }
    assert counted == {
        "pfs trained": {"pretrain": (train + validation, train), "search": (2 * (train + validation), 2 * train)},
        "pfs": {"search": (2 * (train + validation), 2 * train)},
        "uniform": {"search": (0, 0)},
        "random": {"search": (0, 0)},
        "network_slimming": {"search": (4 * (train + validation), 4 * train)},
        "amc": {"pretrain": (train + validation, train), "search": (6 * (50 + 64), 0)},
    }
    assert all(spent["device_seconds"] > 0 for spent in (cost["amc"]["pretrain"], cost["pfs"]["search"]))
