"""The latency model: exact where its form holds, monotone, measured once, and a budget that the cut keeps."""

import dataclasses
import json
import sys
from types import SimpleNamespace

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from torch import nn

from pfs_core.config.spec import Budget, ModelSpec
from pfs_core.config.stages import ExtractConfig
from pfs_core.errors import UserError
from pfs_core.latency import aiming, learning
from pfs_core.latency import fastest as chosen
from pfs_core.latency.aiming import MeasuredRatios
from pfs_core.latency.learning import latency_model
from pfs_core.latency.model import BLOCKS, LatencyModel, MeasuredNetwork, fit, macs_by_kind
from pfs_core.latency.sampling import PairTimer, draw_widths, prepared
from pfs_core.models import build_model
from pfs_core.steps.extraction import extract_structures
from pfs_core.storage.artifacts import read_json
from pfs_core.structure import Structure, unexpanded_graph
from pfs_core.structure.budget_cut import CostModel, prune_to_budget
from pfs_core.structure.cut_rules import CutRules
from tests.budgets import SPEC, graph, random_gates

EXPANDED = graph().expanded(SPEC.expand)
DENSE_MS = 2.0


class Planted:
    """A stopwatch on which a network takes a constant and a time a MAC of each kind, in blocks."""

    def __init__(self, block=8, noise=0.0):
        self.block, self.dense_ms = block, [DENSE_MS]
        self.slopes = np.random.default_rng(1).uniform(0.1, 1.0, len(macs_by_kind(graph(), graph().widths(), 1)))
        self.noise, self.calls = np.random.default_rng(2).normal(0, noise, 10_000), 0

    def ratio(self, widths):
        self.calls += 1
        macs = np.array(list(macs_by_kind(graph(), widths, self.block).values())) / graph().cost().macs
        return (0.2 + float(macs @ self.slopes)) * (1 + self.noise[self.calls])


def samples(planted, count, multiple=1, seed=0):
    rng = np.random.default_rng(seed)
    drawn = [draw_widths(graph(), EXPANDED, multiple, rng) for _ in range(count)]
    return [MeasuredNetwork(widths=widths, ratio=planted.ratio(widths)) for widths in drawn]


@pytest.fixture
def planted(monkeypatch, tmp_path):
    """The planted stopwatch in place of the real one, and an empty cache."""
    watch = Planted()

    class Always:
        def __enter__(self):
            return watch

        def __exit__(self, *error):
            return None

    for module in (learning, aiming):
        monkeypatch.setattr(module, "pair_timer", lambda *a: Always())
    monkeypatch.setenv("PFS_CACHE", str(tmp_path / "cache"))
    return watch


@pytest.mark.parametrize("block", [1, 4, 8, 16])
def test_what_is_of_the_models_form_is_found_exactly(block):
    planted = Planted(block)
    found = fit(graph(), samples(planted, 60), DENSE_MS)
    assert found["block"] == block
    model = LatencyModel.model_validate(
        {
            **{"machine": {}, "runtime": "eager", "threads": 1, "channel_multiple": 1, "dense_ms": DENSE_MS},
            **{"measured": (), "schema": "pfs.latency-model/2"},
            **found,
        }
    )
    for sample in samples(planted, 20, seed=9):
        assert model.milliseconds(graph(), sample.widths) == pytest.approx(sample.ratio * DENSE_MS, rel=1e-3)


@given(st.integers(0, 10_000), st.sampled_from([1, 4, 8]))
def test_drawn_widths_are_those_of_an_extraction(seed, multiple):
    widths = draw_widths(graph(), EXPANDED, multiple, np.random.default_rng(seed))
    graph().check(widths)
    for group in graph().groups:
        assert widths[group.name] <= EXPANDED[group.name]
        if group.prunable:
            assert widths[group.name] % multiple == 0 or widths[group.name] == EXPANDED[group.name]
        else:
            assert widths[group.name] == EXPANDED[group.name]


def test_drawn_widths_reach_from_small_to_whole():
    rng = np.random.default_rng(0)
    drawn = [graph().cost(draw_widths(graph(), EXPANDED, 1, rng)).macs for _ in range(80)]
    least, most = graph().cost(CutRules().least(graph(), EXPANDED)).macs, graph().cost(EXPANDED).macs
    assert min(drawn) < least + 0.15 * (most - least)
    assert max(drawn) > least + 0.85 * (most - least)


def test_it_is_measured_once(planted):
    first = latency_model(SPEC, graph(), "eager", 1, 4)
    assert planted.calls == 80
    assert latency_model(SPEC, graph(), "eager", 1, 4) == first
    assert planted.calls == 80
    latency_model(SPEC, graph(), "eager", 1, 8)
    assert planted.calls == 160
    assert first.error_p90 < 0.01
    assert first.channel_multiple == 4


@pytest.mark.parametrize(("seconds", "structures"), [(0.01, 80), (0.5, 24), (1.5, 10)])
def test_a_slow_network_is_measured_less_often_and_says_where_it_is(planted, monkeypatch, caplog, seconds, structures):
    caplog.set_level("INFO")
    monkeypatch.setattr(learning, "time", SimpleNamespace(perf_counter=lambda: planted.calls * seconds))
    model = latency_model(SPEC, graph(), "eager", 1, 1)
    assert len(model.measured) == structures
    lines = [line for line in caplog.messages if "structures measured" in line]
    assert len(lines) >= structures * seconds // (3 + seconds)


def test_another_machine_measures_for_itself(planted, monkeypatch):
    latency_model(SPEC, graph(), "eager", 1, 4)
    monkeypatch.setattr(learning, "machine", lambda: {"cpu": "another"})
    assert latency_model(SPEC, graph(), "eager", 1, 4).machine == {"cpu": "another"}
    assert planted.calls == 160


def test_other_versions_and_other_layers_are_measured_anew(planted, monkeypatch):
    latency_model(SPEC, graph(), "eager", 1, 4)
    monkeypatch.setattr("pfs_core.latency.machine.version", lambda name: "99.0")
    latency_model(SPEC, graph(), "eager", 1, 4)
    assert planted.calls == 160
    fewer = dataclasses.replace(graph(), terms=graph().terms[:-1])
    monkeypatch.setattr(learning, "fit", lambda graph, measured, dense_ms: flat(graph, dense_ms))
    latency_model(SPEC, fewer, "eager", 1, 4)
    assert planted.calls == 240


def test_a_change_of_the_users_code_is_measured_anew(planted, monkeypatch, tmp_path):
    code = "from pfs_core.models.zoo import MODELS\ndef build():\n    return MODELS['resnet20'].load()(width={width})\n"
    monkeypatch.syspath_prepend(str(tmp_path))
    own = ModelSpec(name="timed_net:build", input_shape=SPEC.input_shape)
    chosen_from = []
    times = chosen.DenseTimes(times=(chosen.DenseTime(runtime="eager", threads=1, milliseconds=1.0),))
    monkeypatch.setattr(chosen, "_measure", lambda *a: chosen_from.append(a) or times)
    for text in ("", "", "# another activation\n"):
        (tmp_path / "timed_net.py").write_text(code.format(width=8) + text)
        sys.modules.pop("timed_net", None)
        latency_model(own, graph(), "eager", 1, 4)
        MeasuredRatios(own, graph(), "eager", 1)(EXPANDED)
        chosen.fastest(own, graph(), "auto", "auto")
    assert planted.calls == 2 * (80 + 3)
    assert len(chosen_from) == 2


def test_a_network_whose_code_was_typed_in_is_measured_every_time(planted, monkeypatch):
    monkeypatch.setattr(learning, "known_by", lambda spec: None)
    for _ in range(2):
        latency_model(SPEC, graph(), "eager", 1, 4)
    assert planted.calls == 160


def test_a_cache_that_cannot_be_written_is_done_without(planted, monkeypatch, tmp_path):
    (tmp_path / "file").write_text("")
    monkeypatch.setenv("PFS_CACHE", str(tmp_path / "file" / "below"))
    assert latency_model(SPEC, graph(), "eager", 1, 4).dense_ms == DENSE_MS


@pytest.mark.parametrize("content", ["", "{}"])
def test_a_damaged_file_of_the_cache_is_made_again(planted, tmp_path, content):
    latency_model(SPEC, graph(), "eager", 1, 4)
    (file,) = (tmp_path / "cache").glob("latency-*.json")
    file.write_text(content)
    assert latency_model(SPEC, graph(), "eager", 1, 4).dense_ms == DENSE_MS
    assert planted.calls == 160
    latency_model(SPEC, graph(), "eager", 1, 4)
    assert planted.calls == 160


def test_noise_is_reported_as_error(planted):
    planted.noise = np.random.default_rng(3).normal(0, 0.2, 10_000)
    model = latency_model(SPEC, graph(), "eager", 1, 1)
    assert 0.05 < model.error_median < model.error_p90


def test_a_runtime_that_is_missing_is_refused(planted, monkeypatch):
    monkeypatch.setattr("pfs_core.latency.runtimes.missing", lambda runtime: "not installed (pip install openvino)")
    with pytest.raises(UserError, match="a latency budget cannot be measured in openvino here: not installed"):
        latency_model(SPEC, graph(), "openvino", 1, 1)


@given(st.integers(0, 1000), st.floats(0.55, 1.0), st.sampled_from([1, 4]))
def test_a_latency_budget_is_kept_and_used_up(seed, target, multiple):
    planted = Planted()
    cost_model = CostModel(planted.ratio, 1.0, str)
    gates = random_gates(seed)
    widths, threshold = prune_to_budget(
        graph(), gates, Budget(metric="latency", target=target), EXPANDED, CutRules(multiple), cost_model
    )
    assert planted.ratio(widths) <= target
    if multiple > 1 or widths == EXPANDED:
        return
    below = [(gate, name) for name, values in gates.items() for gate in values.tolist() if gate < threshold]
    if below:
        more = {name: max(1, sum(g >= max(below)[0] for g in gates[name].tolist())) for name in gates}
        assert planted.ratio({**widths, **more}) > target


@given(st.integers(0, 1000), st.sampled_from(BLOCKS))
def test_a_latency_never_falls_as_a_network_gets_wider(seed, block):
    rng = np.random.default_rng(seed)
    kinds = [
        {"layers": ("x",), "ns_per_mac": slope} for slope in rng.uniform(0, 1, len(macs_by_kind(graph(), EXPANDED, 1)))
    ]
    about = {"machine": {}, "runtime": "eager", "threads": 1, "channel_multiple": 1, "dense_ms": DENSE_MS}
    errors = {"error_median": 0, "error_p90": 0}
    model = LatencyModel.model_validate(
        {**about, **errors, "measured": (), "block": block, "constant_ms": 0.1, "kinds": kinds}
    )
    narrow = draw_widths(graph(), EXPANDED, 1, rng)
    wide = {name: int(rng.integers(width, EXPANDED[name] + 1)) for name, width in narrow.items()}
    graph().check(wide)
    assert model.milliseconds(graph(), narrow) <= model.milliseconds(graph(), wide)


def test_a_structure_at_a_latency_says_by_which_model(gates, planted, monkeypatch, tmp_path):
    monkeypatch.setattr(learning, "fit", lambda graph, measured, dense_ms: flat(graph, dense_ms))
    extract_structures(
        gates, tmp_path / "out", Budget(metric="latency", target=0.8), ExtractConfig(runtime="eager", blocks=1)
    )
    found = Structure.load(tmp_path / "out" / "structure.json")
    record = read_json(tmp_path / "out" / "latency_model.json")
    model = LatencyModel.parse(record, "latency_model.json")
    assert found.budget.metric == "latency"
    assert found.budget.achieved == pytest.approx(planted.ratio(found.widths))
    assert found.provenance["latency_model"] == model.summary()
    assert found.title == "resnet20 latency=0.8"
    evenly = Structure.load(tmp_path / "out" / "uniform.json")
    assert evenly.budget.achieved == pytest.approx(planted.ratio(evenly.widths))
    assert Structure.load(tmp_path / "out" / "dense.json").budget.achieved == 1


def flat(graph, dense_ms):
    """A fit under which every MAC of the dense network takes the same time, without a constant."""
    kinds = macs_by_kind(graph, graph.widths(), 1)
    slope = dense_ms / sum(kinds.values()) * 1e6
    found = tuple({"layers": ("x",), "ns_per_mac": slope} for _ in kinds)
    return {"block": 1, "constant_ms": 0.0, "kinds": found, "error_median": 0.0, "error_p90": 0.0}


def test_a_latency_that_cannot_be_reached_says_what_can(gates, planted, monkeypatch, tmp_path):
    monkeypatch.setattr(learning, "fit", lambda graph, measured, dense_ms: flat(graph, dense_ms))
    goal = Budget(metric="latency", target=0.01)
    with pytest.raises(UserError, match=r"the smallest structure has 0\.\d+ ms, so ask for latency=0\.\d+ or more"):
        extract_structures(gates, tmp_path / "out", goal, ExtractConfig(runtime="eager", blocks=1))
    assert not (tmp_path / "out").exists()


@pytest.mark.parametrize("runtime", ["eager", "onnxruntime"])
def test_the_stopwatch_tells_a_wide_network_from_a_narrow_one(runtime):
    spec = ModelSpec(name="resnet20", kwargs={"width": 8}, expand=2.0)
    traced = unexpanded_graph(spec)
    watch = PairTimer(build_model(spec).eval(), traced, runtime, 1)
    narrow = {**traced.widths(), **{group.name: 1 for group in traced.prunable()}}
    assert watch.ratio(traced.expanded(4.0)) > watch.ratio(narrow)
    assert min(watch.dense_ms) > 0


def test_the_file_is_plain_json(planted, tmp_path):
    model = latency_model(SPEC, graph(), "eager", 1, 1)
    (file,) = (tmp_path / "cache").iterdir()
    values = json.loads(file.read_text())
    assert values["schema"] == "pfs.latency-model/2"
    assert values["kinds"][0]["layers"] == list(model.kinds[0].layers)
    assert len(values["measured"]) == 80


UNKNOWN_TO_THE_OLDER_EXPORTER = nn.Sequential(nn.Conv2d(1, 4, 3, padding=1), nn.AdaptiveAvgPool2d(3), nn.Flatten())
"""Its map of 8x8 has no equal parts for a pool to 3x3."""


def test_a_network_that_the_older_exporter_does_not_know_runs_in_onnx_runtime():
    images = torch.randn(1, 1, 8, 8)
    run = prepared(UNKNOWN_TO_THE_OLDER_EXPORTER, images, "onnxruntime", 1)
    with torch.no_grad():
        assert np.allclose(run(), UNKNOWN_TO_THE_OLDER_EXPORTER(images).numpy(), atol=1e-5)


def test_a_network_that_a_runtime_cannot_run_is_refused_in_a_line():
    class Fourier(nn.Module):
        def forward(self, x):
            return torch.linalg.svdvals(x)

    with pytest.raises(UserError, match="^onnxruntime cannot run this network: .*svd.*") as refused:
        prepared(Fourier(), torch.randn(1, 1, 8, 8), "onnxruntime", 1)
    assert "\n" not in str(refused.value)
