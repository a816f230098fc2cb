"""What figures say of the widths and of the cut is true of every cut."""

import dataclasses

import torch

from pfs_core.report.figures import channels, draw, gate_histogram


def caption(results, gates=None, **chosen_by):
    """The words below the histogram of the gates, had the cut been another."""
    cut = results.structure.model_copy(update={"chosen_by": {**results.structure.chosen_by, **chosen_by}})
    changed = {"structures": {**results.structures, "pruned": cut}, "gates": gates or results.gates}
    return draw(gate_histogram, dataclasses.replace(results, **changed), (4.6, 2.9))[1]


def test_below_the_gates_is_said_where_the_cut_is(results):
    threshold = results.structure.chosen_by["threshold"]
    assert caption(results).endswith(f"above 0.95; the cut is at {threshold:.3f}.")


def test_of_equal_gates_not_all_are_said_to_be_kept(results):
    equal = {name: torch.ones_like(values) for name, values in results.gates.items()}
    said = caption(results, equal, threshold=1.0)
    assert said.endswith("0% are below 0.05 and 100% above 0.95; the cut is at 1.000.")


def test_in_blocks_the_cut_does_not_say_which_gates_are_kept(results):
    assert caption(results, threshold=0.5, block=16).endswith(
        "the cut is at 0.500, and widths are then rounded to blocks of 16."
    )


def test_only_residual_streams_are_called_so(results):
    svg, _ = draw(channels, results, (9.6, 3.6))
    assert ">kept, not pruned (residual stream)</text>" in svg
    ungated = {name: values for name, values in results.gates.items() if name != "layer1.0.conv1"}
    assert len(ungated) == len(results.gates) - 1
    svg, _ = draw(channels, dataclasses.replace(results, gates=ungated), (9.6, 3.6))
    assert ">kept, not pruned</text>" in svg
    assert "residual stream" not in svg
