"""The loop learns gates, and only gates."""

from dataclasses import replace

import pytest
import torch

from pfs_core.channels import resize
from pfs_core.config.spec import Budget
from pfs_core.errors import UserError
from pfs_core.methods.pfs import search as loop
from pfs_core.methods.pfs.config import PfsConfig
from pfs_core.methods.pfs.history import SearchHistory
from pfs_core.methods.pfs.network import GatedNetwork
from pfs_core.models import build_model
from pfs_core.runtime.device import native_bf16
from pfs_core.runtime.progress import ignore
from pfs_core.structure import unexpanded_graph
from pfs_core.structure.budget_cut import prune_to_budget


def expanded(spec, data, policy="inner"):
    """The network of ``spec`` at 1.25 times its widths, and its graph."""
    torch.manual_seed(0)
    spec = spec.updated({"input_shape": data.input_shape}, "model")
    model, graph = build_model(spec), unexpanded_graph(spec, policy)
    widths = graph.expanded(1.25)
    return resize(model, graph, widths), graph.with_widths(widths)


def small(data, rows=96):
    """The first rows of every part."""
    return replace(data, parts={part: index[:rows] for part, index in data.parts.items()})


def learn(network, data, target=0.5, seed=0, **recipe):
    """The evaluation whose gates are kept, and all rows."""
    settings = PfsConfig(**{"precision": "fp32", "batch_size": 32, **recipe})
    gated = GatedNetwork(*network, settings.precision, settings.lr)
    evaluations = SearchHistory(network[1], network[1].widths(), Budget(target=target), target, settings)
    loop.learn_gates(gated, evaluations, data, settings, seed, ignore)
    return evaluations.best or {**evaluations.rows[-1], "gates": gated.by_group()}, evaluations.rows


def joined(best):
    return torch.cat(list(best["gates"].values()))


@pytest.mark.parametrize("policy", ["inner", "all"])
def test_weights_stay_bit_identical_and_gates_change(digits_data, narrow, policy):
    data = small(digits_data)
    model, graph = expanded(narrow, data, policy)
    before = {name: p.detach().clone() for name, p in model.named_parameters()}
    best, _ = learn((model, graph), data, epochs=2, policy=policy)
    for name, parameter in model.named_parameters():
        assert torch.equal(parameter, before[name]), name
    gates = joined(best)
    assert (gates < 1).any()
    assert ((gates >= 0) & (gates <= 1)).all()


def test_the_running_statistics_are_those_of_the_images(digits_data, narrow):
    data = small(digits_data)
    model, graph = expanded(narrow, data)
    learn((model, graph), data, epochs=1)
    assert model.bn1.running_mean.abs().max() > 0
    assert model.bn1.num_batches_tracked == 3


@pytest.mark.parametrize("precision", ["fp32", "bf16"])
def test_both_precisions_learn(digits_data, narrow, precision):
    if precision == "bf16" and not native_bf16(torch.device("cpu")):
        pytest.skip("bf16 is not native here")
    data = small(digits_data, 256)
    best, history = learn(expanded(narrow, data), data, epochs=3, precision=precision)
    assert joined(best).dtype == torch.float32
    assert history[-1]["loss"] < history[0]["loss"]


def test_the_seed_alone_decides_the_order_of_the_images(digits_data, narrow):
    data = small(digits_data)
    found = []
    for seed, elsewhere in ((0, 0), (0, 1), (1, 0)):
        network = expanded(narrow, data)
        torch.manual_seed(elsewhere)
        found.append(joined(learn(network, data, epochs=1, seed=seed)[0]))
    assert torch.equal(found[0], found[1])
    assert not torch.equal(found[0], found[2])


@pytest.mark.parametrize("target", [0.2, 0.6])
def test_the_regulariser_pulls_the_mean_gate_to_the_target(digits_data, narrow, target):
    data = small(digits_data)
    _, pulled = learn(expanded(narrow, data), data, target=target, epochs=12, gamma=1000.0, lr=0.05)
    _, free = learn(expanded(narrow, data), data, target=target, epochs=12, gamma=0.0, lr=0.05)
    assert abs(pulled[-1]["mean_gate"] - target) < 0.1
    assert abs(pulled[-1]["mean_gate"] - target) < abs(free[-1]["mean_gate"] - target)
    assert free[-1]["regulariser"] == 0.0


def test_the_loss_is_the_sum_of_its_parts(digits_data, narrow):
    data = small(digits_data)
    _, history = learn(expanded(narrow, data), data, epochs=2)
    for row in history:
        assert row["loss"] == pytest.approx(row["cross_entropy"] + row["regulariser"])
    assert [row["epoch"] for row in history] == [1, 2]
    assert [row["step"] for row in history] == [3, 6]


def scripted(monkeypatch, nonzero, accuracy):
    """Make the loop see these evaluations, one an epoch."""
    nonzero, accuracy = iter(nonzero), iter(accuracy)
    monkeypatch.setattr(GatedNetwork, "nonzero", lambda self: next(nonzero))
    monkeypatch.setattr(loop, "accuracy", lambda *_: next(accuracy))


@pytest.mark.parametrize(
    ("nonzero", "accuracy", "kept"),
    [
        ([1.0, 0.5, 0.4, 0.3], [0.9, 0.3, 0.6, 0.5], 3),  # best of those within the target
        ([1.0, 0.5, 0.4, 0.3], [0.9, 0.6, 0.6, 0.5], 2),  # the first of equals
        ([0.4, 0.6, 0.6, 0.6], [0.1, 0.9, 0.9, 0.9], 1),  # the only one
        ([1.0, 0.9, 0.8, 0.7], [0.9, 0.8, 0.7, 0.6], 4),  # none: the last
    ],
)
def test_the_best_validated_gates_within_the_target_are_kept(digits_data, narrow, monkeypatch, nonzero, accuracy, kept):
    data = small(digits_data, 64)
    scripted(monkeypatch, nonzero, accuracy)
    best, history = learn(expanded(narrow, data), data, epochs=4)
    assert best["epoch"] == kept
    assert best["val_accuracy"] == history[kept - 1]["val_accuracy"] == accuracy[kept - 1]
    scripted(monkeypatch, [0.9] * kept, [0.5] * kept)
    last, _ = learn(expanded(narrow, data), data, epochs=kept)
    assert torch.equal(joined(best), joined(last))


def test_evaluations_may_come_within_an_epoch(digits_data, narrow):
    data = small(digits_data)
    _, history = learn(expanded(narrow, data), data, epochs=2, evaluate_every=2)
    assert [(row["epoch"], row["step"]) for row in history] == [(1, 2), (1, 3), (2, 4), (2, 6)]


def test_evaluations_do_not_change_what_is_learnt(digits_data, narrow):
    data = small(digits_data)
    _, often = learn(expanded(narrow, data), data, epochs=2, evaluate_every=1)
    _, seldom = learn(expanded(narrow, data), data, epochs=2)
    same = ("step", "loss", "mean_gate", "nonzero", "val_accuracy")
    assert [often[2][key] for key in same] == [seldom[0][key] for key in same]
    assert [often[-1][key] for key in same] == [seldom[-1][key] for key in same]


def test_a_search_ends_when_the_structure_has_settled(digits_data, narrow):
    data = small(digits_data)
    _, history = learn(expanded(narrow, data), data, epochs=30, lr=1e-9, settled=0.0, settled_evaluations=2)
    assert [row["moved"] for row in history] == [1.0, 0.0, 0.0]
    _, history = learn(expanded(narrow, data), data, epochs=4, lr=1e-9)
    assert len(history) == 4


def test_what_moved_is_the_share_of_newly_kept_channels(digits_data, narrow):
    data = small(digits_data)
    _, graph = expanded(narrow, data)
    sizes = {group.name: group.width for group in graph.prunable()}
    first = {name: torch.linspace(1, 0.1, size) for name, size in sizes.items()}
    other = {name: values.flip(0) for name, values in first.items()}
    evaluations = SearchHistory(graph, graph.widths(), Budget(target=0.5), 0.5, PfsConfig())
    moved = [evaluations.add({"nonzero": 1.0, "val_accuracy": 0.0}, gates)["moved"] for gates in (first, first, other)]
    widths, _ = prune_to_budget(graph, first, Budget(target=0.5), graph.widths())
    kept = sum(widths[name] for name in sizes)
    stay = sum(max(0, 2 * widths[name] - size) for name, size in sizes.items())
    assert moved == [1.0, 0.0, pytest.approx(1 - stay / kept)]


def test_a_search_whose_loss_is_not_finite_stops(digits_data, narrow):
    data = small(digits_data)
    model, graph = expanded(narrow, data)
    with torch.no_grad():
        model.fc.weight.fill_(float("inf"))
    with pytest.raises(UserError, match=r"search diverged in epoch 1 at step 1: .* a lower search.lr"):
        learn((model, graph), data, epochs=1)
