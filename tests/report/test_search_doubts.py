"""Where a run says nothing of its search, a line says why."""

import dataclasses

import pytest

from pfs_core.config.recipes import recipe
from pfs_core.methods.registry import method_config
from pfs_core.report.search_doubts import not_searched, search_doubts


def with_pruned(results, **changes):
    pruned = results.structure.model_copy(update=changes)
    return dataclasses.replace(results, structures={**results.structures, "pruned": pruned})


def by(results, method):
    config = method_config(recipe("demo"), {"method": method})
    search = results.search.model_copy(update={"method": method, "config": config})
    return dataclasses.replace(results, search=search)


def test_the_widths_of_the_uniform_network_are_nothing_of_its_own(results):
    said = search_doubts(with_pruned(results, widths=results.structures["uniform"].widths))
    assert any(line.startswith("The search made no difference") for line in said)
    said = search_doubts(with_pruned(results, widths=results.structures["dense"].widths))
    assert said[:1] == ["The budget leaves the dense network whole, so there was nothing to choose: ask for less."]
    assert not any("difference" in line for line in said)


@pytest.mark.parametrize(
    ("method", "advice"),
    [
        ("pfs", " More epochs of it may help: --set search.epochs=N."),
        ("network_slimming", " More epochs of it may help: --set search.epochs=N."),
        ("amc", " More episodes of it may help: --set search.episodes=N."),
        ("random", ""),
    ],
)
def test_only_a_setting_that_the_method_has_is_advised(results, method, advice):
    said = search_doubts(by(with_pruned(results, widths=results.structures["uniform"].widths), method))
    assert f"The search made no difference: its widths are those of the uniform network.{advice}" in said


def test_uniform_widths_that_were_asked_for_are_no_doubt(results):
    """There was no search that could have done or chosen more."""
    structure = results.structures["uniform"]
    graph = structure.graph()
    fewest = {g.name: g.per_gate if g.prunable else structure.widths[g.name] for g in graph.groups}
    for widths in (structure.widths, fewest):
        uniform = with_pruned(results, widths=widths, cost=graph.cost(widths))
        uniform = dataclasses.replace(uniform, structures={**uniform.structures, "uniform": uniform.structure})
        assert [line for line in search_doubts(by(uniform, "pfs")) if "search" in line]
        assert not any("search" in line for line in search_doubts(by(uniform, "uniform")))


def test_what_was_not_searched_is_what_remains_at_the_fewest_channels(results):
    structure = results.structure
    graph = structure.graph()
    fewest = {g.name: g.per_gate if g.prunable else structure.widths[g.name] for g in graph.groups}
    cut = structure.model_copy(update={"widths": fewest, "cost": graph.cost(fewest)})
    assert not_searched(cut) == 1
    assert 0 < not_searched(structure) < 1
    said = search_doubts(with_pruned(results, widths=fewest, cost=cut.cost))
    assert any(line.startswith("100% of the MACs left") and "search.policy=all" in line for line in said)


def test_who_has_pruned_the_streams_is_not_told_to(results):
    """And what was not searched is counted on the graph of their policy."""
    structure = results.structure
    searched = structure.model_copy(update={"chosen_by": {**structure.chosen_by, "policy": "all"}})
    assert not_searched(searched) < not_searched(structure)
    graph = searched.graph()
    fewest = {g.name: g.per_gate if g.prunable else structure.widths[g.name] for g in graph.groups}
    cost = graph.cost(fewest)
    said = search_doubts(with_pruned(results, chosen_by=searched.chosen_by, widths=fewest, cost=cost))
    (line,) = [line for line in said if line.startswith("100% of the MACs left")]
    assert line.endswith("try a larger budget.")


def test_a_dense_network_at_chance_compares_with_nothing(results):
    dense = results.metrics["dense"].model_copy(update={"test_accuracy_interval": (0.05, 0.15)})
    said = search_doubts(dataclasses.replace(results, metrics={**results.metrics, "dense": dense}))
    assert any(line.startswith("The dense network has learned nothing") for line in said)
    able = dense.model_copy(update={"test_accuracy_interval": (0.9, 0.95)})
    said = search_doubts(dataclasses.replace(results, metrics={**results.metrics, "dense": able}))
    assert not any("has learned nothing" in line for line in said)


def test_a_pruned_network_at_chance_is_named_where_no_dense_one_was_trained(results):
    pruned = results.metrics["pruned"].model_copy(update={"test_accuracy_interval": (0.05, 0.15)})
    said = search_doubts(dataclasses.replace(results, metrics={"pruned": pruned}))
    (line,) = [line for line in said if "has learned nothing" in line]
    assert line.startswith("The pruned network")
    assert "compare" not in line
