"""The first sentences of a report: speed, size and accuracy, and what to try where the network is not faster."""

import dataclasses

import pytest
from hypothesis import given
from hypothesis import strategies as st
from scipy.stats import binomtest

from pfs_core.latency.results import Ratio
from pfs_core.report import figures, write_report
from pfs_core.report.verdict import accuracy_difference, verdict


def with_ratio(results, ratio, low, high, said):
    found = Ratio(ratio=ratio, interval=(low, high), verdict=said)
    quoted = results.quoted.model_copy(update={"ratios_to_dense": {**results.quoted.ratios_to_dense, "pruned": found}})
    latency = results.latency.model_copy(update={"measurements": [quoted]})
    return dataclasses.replace(results, latency=latency)


def test_a_faster_network_leads_with_its_speed_and_gets_no_advice(results):
    said = verdict(with_ratio(results, 0.5, 0.4, 0.625, "faster"))
    assert said[0].startswith("2.00x faster [1.60, 2.50] in ONNX Runtime, ")
    assert "extract.blocks" not in " ".join(said)


@pytest.mark.parametrize(
    ("ratio", "words", "start"),
    [
        ((1.25, 1.1, 1.3), "slower", "1.25x slower [1.10, 1.30]"),
        ((1.0, 0.9, 1.1), "no measurable difference", "no measurable difference in time (ratio 1.00 [0.90, 1.10])"),
    ],
)
def test_a_network_that_is_not_faster_gets_a_setting_to_try(results, ratio, words, start):
    said = verdict(with_ratio(results, *ratio, words))
    assert said[0].startswith(start)
    assert any("try --set extract.blocks=auto" in line for line in said)


@pytest.mark.parametrize(
    ("options", "said"),
    [
        ({}, "cut as in the paper, to any width"),
        ({"block": 16}, "cut in blocks of 16 channels"),
        ({"channel_multiple": 8}, "cut to multiples of 8"),
        ({"floor": 0.1}, "cut to any width, to no less than 10% of a group"),
        (
            {"block": 16, "channel_multiple": 3, "floor": 0.1},
            "cut in blocks of 16 channels, to multiples of 3, to no less than 10% of a group",
        ),
    ],
)
def test_the_verdict_says_to_which_widths_was_cut(results, options, said):
    """Only what has neither blocks nor multiples nor a floor is the paper's cut."""
    cut = results.structure.model_copy(update={"chosen_by": {**results.structure.chosen_by, **options}})
    lines = verdict(dataclasses.replace(results, structures={**results.structures, "pruned": cut}))
    assert lines[3].endswith(said)


@pytest.mark.parametrize(
    ("metric", "block", "achieved", "said"),
    [
        ("macs", 16, 0.3, ["40% of the budget is left: 16 channels more would be over it. "
                           "--set extract.blocks=8 cuts in finer steps, extract.blocks=1 to any width."]),
        ("params", 8, 0.44, ["12% of the budget is left: 8 channels more would be over it. "
                             "--set extract.blocks=4 cuts in finer steps, extract.blocks=1 to any width."]),
        ("macs", 16, 0.47, []),
        ("macs", 1, 0.3, []),
        ("latency", 16, 0.3, []),
    ],
)  # fmt: skip
def test_much_of_a_budget_that_was_not_used_is_named(results, metric, block, achieved, said):
    record = {"metric": metric, "target": 0.5, "achieved": achieved, "gap": 0.5 - achieved}
    budget = results.structure.budget.model_copy(update=record)
    cut = {"budget": budget, "chosen_by": {**results.structure.chosen_by, "block": block}}
    structure = results.structure.model_copy(update=cut)
    lines = verdict(dataclasses.replace(results, structures={**results.structures, "pruned": structure}))
    assert [line for line in lines if "of the budget is left" in line] == said


@given(st.integers(0, 400), st.integers(0, 400))
def test_the_interval_of_a_difference_holds_it_and_narrows_with_the_images(right, other_right):
    """Newcombe's example of method 10 is in the test below; here, what must hold for all counts."""
    few, many = (difference(right * k, 400 * k, other_right * k, 400 * k) for k in (1, 25))
    for change, (low, high) in (few, many):
        assert -1 <= low <= change <= high <= 1
    assert many[1][1] - many[1][0] < few[1][1] - few[1][0]


def test_newcombes_example():
    """Newcombe (1998), Table II, contrast (a): 56/70 against 48/80 by method 10."""
    change, (low, high) = difference(56, 70, 48, 80)
    assert (round(change, 4), round(low, 4), round(high, 4)) == (0.2, 0.0524, 0.3339)


def with_uniform(results, right, images=1000, **changes):
    """The results with a trained uniform network and accuracies of ``right`` images, pruned and uniform."""
    trained = {}
    for network, count in zip(("pruned", "uniform"), right, strict=True):
        tested = Accuracy(count, images)
        trained[network] = results.pruned.model_copy(update={**vars(tested), "network": network})
    return dataclasses.replace(results, metrics={**results.metrics, **trained}, **changes)


@pytest.mark.parametrize(
    ("right", "said"),
    [
        ((900, 800), "the search paid: accuracy +10.0 points [+6.9, +13.1] against uniform widths of the same budget"),
        ((800, 900), "the search did not pay: accuracy -10.0 points [-13.1, -6.9] against uniform"),
        ((805, 800), "it cannot be told whether the search paid: accuracy +0.5 points [-3.0, +4.0] against uniform"),
    ],
)
def test_whether_the_search_paid_is_told_by_the_interval(results, right, said):
    (line,) = [line for line in verdict(with_uniform(results, right)) if "the search" in line]
    assert line.startswith(said)


def test_nothing_is_said_of_a_search_that_no_uniform_network_is_beside(results):
    assert not any("against uniform widths" in line for line in verdict(results))


def test_a_network_is_not_compared_with_itself(results):
    same = results.structure.model_copy(update={"widths": results.structures["uniform"].widths})
    found = with_uniform(results, (900, 800), structures={**results.structures, "pruned": same})
    assert not any("against uniform widths" in line for line in verdict(found))


class Accuracy:
    """A test accuracy with Wilson's interval."""

    def __init__(self, right, images):
        self.test_accuracy = right / images
        self.test_accuracy_interval = tuple(binomtest(right, images).proportion_ci(method="wilson"))


def difference(right, images, other_right, other_images):
    return accuracy_difference(Accuracy(right, images), Accuracy(other_right, other_images))


def test_the_page_shows_how_full_the_blocks_are(results):
    structure = results.structure
    widths = {name: 4 if width > 2 else width for name, width in structure.widths.items()}
    cut = structure.model_copy(update={"chosen_by": {**structure.chosen_by, "block": 4}, "widths": widths})
    blocks = dataclasses.replace(results, structures={**results.structures, "pruned": cut})
    _, words = figures.draw(figures.block_use, blocks, (9.6, 4.0))
    narrow = {g.name: widths[g.name] for g in cut.graph().groups if g.resizable and widths[g.name] < 4}
    assert narrow
    assert all(f"{name} {width / 4:.0%}" in words for name, width in narrow.items())
    assert words.startswith("Of whole blocks of 4 channels, all are used")


def test_a_paper_cut_has_no_blocks_to_show(results, tmp_path):
    write_report(results, tmp_path / "paper")
    assert "How full the blocks" not in (tmp_path / "paper/report.html").read_text()
