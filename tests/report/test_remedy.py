"""A network that is not faster gets advice that fits the runtime in which it was measured."""

import re
from pathlib import Path

import pytest

from pfs_core.config.recipes import standard
from pfs_core.report.remedy import remedy, usual_block
from pfs_core.report.results import RUNTIME_NAMES

AVX512, AVX2, ARM = ("avx2", "avx512f"), ("avx2",), ("asimd",)


@pytest.fixture
def cut(results):
    """In blocks of 16, as the runtime that is measured unless settings say otherwise computes them."""
    return results.structure.model_copy(update={"chosen_by": {**results.structure.chosen_by, "block": 16}})


def narrow(structure):
    """The structure, had its search not widened the residual streams."""
    return structure.model_copy(update={"model": structure.model.updated({"expand_stream": 1.0}, "model")})


def test_in_blocks_it_is_the_stream_or_the_budget_that_helps(cut):
    assert "search.expand_stream=1" in remedy(cut, "onnxruntime", AVX512)
    assert "--budget latency=0.8 --set search.policy=all" in remedy(narrow(cut), "onnxruntime", AVX512)
    pruned = cut.model_copy(update={"chosen_by": {**cut.chosen_by, "policy": "all"}})
    assert remedy(pruned, "onnxruntime", AVX512).endswith("--budget latency=0.8.")


def test_a_search_that_widened_nothing_is_not_said_to_have(cut):
    """As those of Network Slimming and AMC, which prune the published network."""
    as_published = cut.model_copy(update={"model": cut.model.updated({"expand": 1.0}, "model")})
    assert as_published.model.expand_stream is None
    assert "widened" not in remedy(as_published, "onnxruntime", AVX512)


@pytest.mark.parametrize("block", [1, 4])
def test_it_is_said_how_full_the_blocks_are_and_where_they_are_emptiest(results, block):
    """Of blocks of four, resizable groups of 4 use all and one of 1 a quarter."""
    groups = [group.name for group in results.structure.graph().groups if group.resizable]
    assert len(groups) > 2
    widths = {name: 4 if name in groups else width for name, width in results.structure.widths.items()}
    chosen_by = {**results.structure.chosen_by, **({"block": block} if block > 1 else {})}
    cut = {"widths": {**widths, groups[1]: 1}, "chosen_by": chosen_by}
    said = remedy(narrow(results.structure).model_copy(update=cut), "onnxruntime", ARM)
    used = 1 - 3 / (4 * len(groups))
    assert f"{used:.0%} of the channels computed are used ({groups[1]} 1 of 4, {groups[0]} 4 of 4)" in said


@pytest.mark.parametrize(
    ("runtime", "flags", "said", "setting"),
    [
        ("onnxruntime", AVX512, "ONNX Runtime computes channels in blocks of 16", "extract.blocks=auto"),
        ("onnxruntime", AVX2, "ONNX Runtime computes channels in blocks of 8", "extract.blocks=auto"),
        ("onnxruntime", ARM, "ONNX Runtime computes channels in blocks of 4", "extract.blocks=auto"),
        (
            "openvino",
            AVX512,
            "OpenVINO computes channels in blocks of 16",
            "extract.blocks=auto --set extract.runtime=openvino",
        ),
        (
            "eager",
            AVX512,
            "PyTorch computes channels in blocks of 4",
            "extract.blocks=auto --set extract.runtime=eager",
        ),
        ("aotinductor", AVX512, "AOTInductor computes channels in blocks of 16", "extract.blocks=16"),
    ],
)
def test_blocks_are_those_of_the_quoted_runtime_and_are_measured_in_it(results, runtime, flags, said, setting):
    """By default they are measured in ONNX Runtime, and nothing is in AOTInductor."""
    advice = remedy(results.structure, runtime, flags)
    assert advice.startswith(said)
    assert advice.endswith(f": try --set {setting}.")
    for part in setting.split(" --set "):
        key, value = part.removeprefix("extract.").split("=")
        standard().stage("extract", {key: int(value) if value.isdigit() else value})  # is no error


def test_a_cut_for_another_runtime_is_judged_by_the_blocks_of_the_quoted_one(cut):
    """And the time is asked for in it."""
    widths = {name: 4 if width < 16 else width for name, width in cut.widths.items()}
    quarter = narrow(cut).model_copy(update={"widths": widths})
    assert " 4 of 16" in remedy(quarter, "onnxruntime", AVX512)
    in_eager = remedy(quarter, "eager", AVX512)
    assert "blocks are not full" not in in_eager
    assert "--budget latency=0.8 --set extract.runtime=eager" in in_eager
    settings = {**cut.provenance["settings"], "runtime": "eager"}
    cut_in_eager = quarter.model_copy(update={"provenance": {**cut.provenance, "settings": settings}})
    assert " 4 of 16" in remedy(cut_in_eager, "eager", AVX512)


def test_a_network_without_any_of_its_branches_uses_what_it_computes(cut):
    """Its stream may be of a fixed width, so that no other group is left."""
    widths = {**cut.widths, **{group.name: 0 for group in cut.graph().groups if group.resizable}}
    said = remedy(narrow(cut).model_copy(update={"widths": widths}), "onnxruntime", AVX512)
    assert said.startswith("Most of the time goes where nothing was cut; ask for the time itself: ")


def test_whose_blocks_are_all_full_is_not_told_to_fill_them(results):
    widths = dict.fromkeys(results.structure.widths, 16)
    full = narrow(results.structure).model_copy(update={"widths": widths})
    assert "extract.blocks" not in remedy(full, "onnxruntime", AVX512)


def test_the_usual_blocks_are_those_of_the_documentation(results):
    """The table has a row for every runtime and instruction set that was measured in float32."""
    text = (Path(__file__).parents[2] / "docs/latency.md").read_text()
    rows = re.findall(r"\| (ONNX Runtime|OpenVINO|PyTorch|AOTInductor), float32 \| (AVX-512|AVX2) \| (\d+) \|", text)
    assert len(rows) == 6
    keys = {name: key for key, name in RUNTIME_NAMES.items()}
    for name, instructions, block in rows:
        assert usual_block(keys[name], {"AVX-512": AVX512, "AVX2": AVX2}[instructions]) == int(block)
