"""Can the latencies be believed? Run on a machine with nothing else to do.

python benchmarks/latency.py default   the default cut beside the paper's, at half the MACs and at half the time
python benchmarks/latency.py same      a network against itself, 20 times: how often the interval covers 1
python benchmarks/latency.py more      a network against itself with a tenth more to do: how soon it is told apart
python benchmarks/latency.py beside    whether a network's ratio depends on how many others are measured beside it
python benchmarks/latency.py exporters a network from the file that is measured against that which is deployed
python benchmarks/latency.py budget    how close a cut at latency=0.5 comes, and what its latency model takes
"""

import argparse
import tempfile
import time
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import torch

from pfs_core.config.spec import Budget, ModelSpec
from pfs_core.config.stages import ExtractConfig, LatencyConfig
from pfs_core.errors import UserError
from pfs_core.export.onnx_file import write_onnx, write_onnx_quickly
from pfs_core.latency import benchmark
from pfs_core.latency.blocks import runtime_block
from pfs_core.latency.learning import latency_model
from pfs_core.latency.machine import machine
from pfs_core.latency.networks import read_network, write_network
from pfs_core.latency.protocol import loaded_and_interleaved, quiet
from pfs_core.latency.results import Ratio
from pfs_core.latency.runtimes import RUNTIMES, Run, missing, run_onnx
from pfs_core.latency.statistics import paired_ratio
from pfs_core.nn.fuse import fuse_batchnorm
from pfs_core.steps.extraction import cut_structures
from pfs_core.structure import Structure, unexpanded_graph
from pfs_core.structure.budget_cut import equal_gates
from pfs_core.structure.references import dense

NETWORKS = {
    "resnet20": (3, 32, 32),
    "resnet56": (3, 32, 32),
    "vgg16": (3, 32, 32),
    "mobilenet_v1": (3, 224, 224),
    "mobilenet_v2": (3, 224, 224),
    "torchvision:resnet18": (3, 224, 224),
    "torchvision:resnet50": (3, 224, 224),
    "timm:efficientnet_b0": (3, 224, 224),
    "timm:mobilenetv3_large_100": (3, 224, 224),
}
HALF = Budget(target=0.5)
HALF_THE_TIME = Budget(metric="latency", target=0.5)


def main() -> None:
    """Run one of the parts and print its table."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("part", choices=list(PARTS))
    parser.add_argument("--networks", nargs="+", default=list(NETWORKS), choices=list(NETWORKS))
    parser.add_argument("--runtimes", nargs="+", default=[name for name in RUNTIMES if not missing(name)])
    parser.add_argument("--seconds", type=float, default=20.0, help="at most, for a measurement")
    parser.add_argument("--repeats", type=int, default=20)
    parser.add_argument("--threads", nargs="+", type=int, default=[1, 0], help="for the part default; 0 is all cores")
    parser.add_argument("--seed", type=int, default=0, help="of the drawn gates")
    a = parser.parse_args()
    here = machine()
    print(f"{here['cpu']} ({', '.join(here['flags'])}), {here['cores']} cores, torch {here['torch']}\n")
    PARTS[a.part](a)


def spec_of(name: str, stream: float | None = None) -> ModelSpec:
    """The network as it is searched, at 1.25 times its width, its residual streams ``stream`` times as wide."""
    classes = 10 if NETWORKS[name][1] == 32 else 1000
    return ModelSpec(name=name, input_shape=NETWORKS[name], num_classes=classes, expand=1.25, expand_stream=stream)


def default(a: argparse.Namespace) -> None:
    """The default cut beside the paper's, all in one measurement of each runtime and number of threads.

    The gates are drawn. What a latency was asked in is the first row of a network.
    """
    print("| network | runtime | threads | dense, ms | the paper's, macs=0.5 | macs=0.5 | latency=0.5 |")
    print("| --- | --- | ---: | ---: | ---: | ---: | ---: |")
    for name in a.networks:
        cuts = {"paper": _cut(spec_of(name), HALF, ExtractConfig(blocks=1), a.seed)}
        here = spec_of(name, 1.0)
        for budget in (HALF, HALF_THE_TIME):
            try:
                cuts[budget.metric] = _cut(here, budget, ExtractConfig(), a.seed)
            except UserError as error:
                print(f"({name}: {error})")
        renamed = [s.model_copy(update={"chosen_by": {"method": key}}) for key, s in cuts.items()]
        config = LatencyConfig(runtimes=tuple(a.runtimes), threads=tuple(a.threads), max_seconds=a.seconds)
        with tempfile.TemporaryDirectory() as folder:
            info = benchmark(renamed, Path(folder) / "latency", config)
        for found in info.measurements:
            cells = [
                _interval(found.ratios_to_dense[key]) if key in cuts else "-" for key in ("paper", "macs", "latency")
            ]
            where = f"{name} | {found.runtime} | {found.threads} | {found.models['dense'].p50_ms:.3f}"
            print(f"| {where} | {' | '.join(cells)} |", flush=True)
        print("".join(f"(noisy: {reason})\n" for reason in info.noisy), end="")


def _cut(spec: ModelSpec, budget: Budget, config: ExtractConfig, seed: int) -> Structure:
    """A structure of gates that are drawn so that groups keep different shares, as after a search."""
    graph = unexpanded_graph(spec)
    gates = equal_gates(graph, graph.expanded(spec.expand, spec.expand_stream))
    random = np.random.default_rng(seed)
    for group, ones in gates.items():
        share = random.lognormal(-0.5, 0.35)
        falling = np.clip(share + 0.5 - np.linspace(0, 1, len(ones)), 0, 1)
        gates[group] = torch.from_numpy(falling)
    return cut_structures(spec, graph, gates, budget, config, {}, {})[0]["pruned"]


def same(a: argparse.Namespace) -> None:
    """The 95% interval of a ratio that is 1 should cover 1 about 19 times of 20."""
    for name in a.networks:
        for runtime in a.runtimes:
            ratios = [_pair(name, runtime, a.seconds, seed, extra=0.0) for seed in range(a.repeats)]
            covered = sum(low <= 1 <= high for low, high in (ratio.interval for ratio in ratios))
            widths = [ratio.interval[1] - ratio.interval[0] for ratio in ratios]
            print(f"{name} in {runtime}: covers 1 in {covered} of {a.repeats}; median width {np.median(widths):.4f}")


def more(a: argparse.Namespace) -> None:
    """A tenth more work, in the same process."""
    for name in a.networks:
        for runtime in a.runtimes:
            start = time.perf_counter()
            ratio = _pair(name, runtime, a.seconds, seed=0, extra=0.1)
            print(f"{name} in {runtime}: {_interval(ratio)}, {ratio.verdict}, {time.perf_counter() - start:.0f} s")


def beside(a: argparse.Namespace) -> None:
    """The default cut at half the MACs, with as few others as there can be and with three more."""
    print("| network | runtime | beside 2 others | beside 5 |")
    print("| --- | --- | ---: | ---: |")
    for name in a.networks:
        cuts = [
            _cut(spec_of(name, 1.0), Budget(target=target), ExtractConfig(blocks=block), a.seed)
            for target, block in ((0.5, 16), (0.5, 1), (0.4, 16), (0.6, 16))
        ]
        renamed = [cut.model_copy(update={"chosen_by": {"method": f"cut{i}"}}) for i, cut in enumerate(cuts)]
        config = LatencyConfig(runtimes=tuple(a.runtimes), threads=(1,), max_seconds=a.seconds)
        with tempfile.TemporaryDirectory() as folder:
            few, many = (benchmark(renamed[:n], Path(folder) / str(n), config).measurements for n in (1, 4))
        for alone, among in zip(few, many, strict=True):
            ratios = [_interval(found.ratios_to_dense["cut0"]) for found in (alone, among)]
            print(f"| {name} | {alone.runtime} | {' | '.join(ratios)} |", flush=True)


def exporters(a: argparse.Namespace) -> None:
    """The file of torch's older exporter, which is quickly made, against the file that a training writes."""
    for name in a.networks:
        spec = spec_of(name)
        images = np.random.default_rng(a.seed).standard_normal((1, *spec.input_shape), dtype=np.float32)
        with tempfile.TemporaryDirectory() as scratch, quiet(1):
            folder = Path(scratch) / "network"
            write_network(dense(unexpanded_graph(spec), model=spec), folder, a.seed)
            network, files, took = read_network(folder), {}, {}
            for kind in ("deployed", "measured"):
                start, files[kind] = time.perf_counter(), folder / f"{kind}.onnx"
                if kind == "deployed":
                    write_onnx(network, spec.input_shape, files[kind])
                else:
                    tried = torch.from_numpy(images)
                    write_onnx_quickly(fuse_batchnorm(network, tried), tried, files[kind])
                took[kind] = time.perf_counter() - start
            loaders = {kind: partial(run_onnx, path, images, 1) for kind, path in files.items()}
            samples, loads = loaded_and_interleaved(loaders, LatencyConfig(max_seconds=a.seconds), a.seed)
        ratio = paired_ratio(samples["measured"], samples["deployed"], loads)
        print(f"{name}: {_interval(ratio)}, written in {took['measured']:.1f} s instead of {took['deployed']:.1f} s")


def _pair(name: str, runtime: str, seconds: float, seed: int, extra: float) -> Ratio:
    """The ratio of a network to itself, the first one with a share ``extra`` more to do."""
    spec = spec_of(name)
    images = np.random.default_rng(seed).standard_normal((1, *spec.input_shape), dtype=np.float32)
    with tempfile.TemporaryDirectory() as scratch, quiet(1):
        folder = Path(scratch) / "network"
        write_network(dense(unexpanded_graph(spec), model=spec), folder, seed)

        def load() -> Run:
            return RUNTIMES[runtime](folder, images, 1)

        loaders = {"dense": load, "other": (lambda: _busier(load(), extra)) if extra else load}
        samples, loads = loaded_and_interleaved(loaders, LatencyConfig(max_seconds=seconds), seed)
    return paired_ratio(samples["other"], samples["dense"], loads)


def _busier(run: Run, extra: float) -> Run:
    """``run``, and then matrix products that take a share ``extra`` of its time."""
    a, b = torch.randn(64, 64), torch.randn(64, 64)
    product = min(_nanoseconds(lambda: torch.mm(a, b)) for _ in range(500))
    count = round(extra * np.median([_nanoseconds(run) for _ in range(100)]) / product)

    def busier() -> Any:
        for _ in range(count):
            torch.mm(a, b)
        return run()

    return busier


def _nanoseconds(run: Run) -> int:
    start = time.perf_counter_ns()
    run()
    return time.perf_counter_ns() - start


def budget(a: argparse.Namespace) -> None:
    """Cuts at half the time on one thread: what the latency model takes and misses by, and where the cut lands."""
    print("| network | runtime | block | model, s | its error, median | p90 | when cut | measured | MACs |")
    print("| --- | --- | ---: | ---: | ---: | ---: | ---: | ---: | ---: |")
    for name in a.networks:
        for runtime in [runtime for runtime in a.runtimes if runtime != "aotinductor"]:
            print(_budget_row(name, runtime, a.seconds, a.seed), flush=True)


def _budget_row(name: str, runtime: str, seconds: float, seed: int) -> str:
    spec = spec_of(name, 1.0)
    config = ExtractConfig.model_validate({"runtime": runtime, "threads": 1})
    graph, block = unexpanded_graph(spec), runtime_block(runtime)
    start = time.perf_counter()
    model = latency_model(spec, graph, runtime, 1, 1, block)
    taken = f"{time.perf_counter() - start:.0f}"
    cells = [name, runtime, str(block), taken, f"{model.error_median:.1%}", f"{model.error_p90:.1%}"]
    try:
        found = _cut(spec, HALF_THE_TIME, config, seed)
        share = found.cost.macs / found.reference.macs
        cells += [f"{found.budget.achieved:.3f}", _measured(found, runtime, seconds), f"{share:.1%}"]
    except UserError as error:
        cells += [str(error).partition(", so ")[2] or str(error), "-", "-"]
    return f"| {' | '.join(cells)} |"


def _measured(structure: Structure, runtime: str, seconds: float) -> str:
    """The ratio of a pruned structure to the dense network, and what disturbed its measurement."""
    with tempfile.TemporaryDirectory() as folder:
        config = LatencyConfig.model_validate({"runtimes": (runtime,), "threads": (1,), "max_seconds": seconds})
        info = benchmark([structure], Path(folder) / "latency", config)
    noisy = f" (noisy: {'; '.join(info.noisy)})" if info.noisy else ""
    return _interval(info.quoted.ratios_to_dense["pruned"]) + noisy


def _interval(ratio: Ratio) -> str:
    low, high = ratio.interval
    return f"{ratio.ratio:.3f} [{low:.3f}, {high:.3f}]"


PARTS = {
    "default": default,
    "same": same,
    "more": more,
    "beside": beside,
    "exporters": exporters,
    "budget": budget,
}


if __name__ == "__main__":
    main()
