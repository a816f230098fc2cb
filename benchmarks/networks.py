"""What the channel graph finds in the convolutional networks of torchvision and timm, beside Torch-Pruning.

    python benchmarks/networks.py measure --results benchmarks/results/networks.jsonl [--timm] [--only NAME ...]
    python benchmarks/networks.py again --results benchmarks/results/networks.jsonl [--only NAME ...]
    python benchmarks/networks.py page --results benchmarks/results/networks.jsonl --docs docs/networks.md
        --list pfs_core/models/timm.json

One line a network goes to the results file as soon as it is measured; started again, those in the file are left out.
``again`` measures those in the file again, but for what Torch-Pruning leaves of them, which stays as it was.
The times are seconds of a processor on one thread, for one trace and one proof of a built network, nothing shared with
those before it.
"""

import argparse
import json
import signal
import time
import warnings
from collections import Counter
from collections.abc import Callable
from pathlib import Path
from typing import Any, TypeVar

import torch
import torch_pruning as tp
from networks_page import write_page
from torch import nn

from pfs_core.channels import ChannelGraph, refuted_groups, slice_weights, trace
from pfs_core.channels.export import count_macs
from pfs_core.channels.proof import BATCH, calibrated, mask, random_kept, relative_difference
from pfs_core.config.spec import ModelSpec
from pfs_core.errors import UserError
from pfs_core.latency.machine import machine
from pfs_core.models import build_model, published_fields

TORCHVISION = (
    "alexnet", "vgg11", "vgg16_bn", "resnet18", "resnet34", "resnet50", "resnet101", "wide_resnet50_2",
    "resnext50_32x4d", "densenet121", "densenet169", "googlenet", "inception_v3", "squeezenet1_0", "squeezenet1_1",
    "shufflenet_v2_x0_5", "shufflenet_v2_x1_0", "mobilenet_v2", "mobilenet_v3_small", "mobilenet_v3_large",
    "mnasnet0_5", "mnasnet1_0", "efficientnet_b0", "efficientnet_b3", "efficientnet_v2_s", "regnet_x_400mf",
    "regnet_x_1_6gf", "regnet_y_400mf", "regnet_y_1_6gf", "convnext_tiny", "convnext_small",
    "vit_b_16", "vit_b_32", "swin_t", "swin_v2_t", "maxvit_t",
)  # fmt: skip
TIMM = (
    # The smaller networks of every convolutional family of timm, and of every kind in it.
    "cs3darknet_focus_s", "cs3darknet_s", "cs3edgenet_x", "cs3sedarknet_l", "cspdarknet53", "cspresnet50",
    "cspresnext50", "cspnext_s", "darknet17", "darknet53", "darknetaa53", "sedarknet21",
    "convnext_atto", "convnext_tiny", "convnextv2_atto", "convmixer_768_32", "convformer_s18", "poolformer_s12",
    "densenet121", "densenetblur121d", "dla34", "dla46_c", "dla46x_c", "dla60_res2net", "dla60x_c", "dpn48b", "dpn68b",
    "efficientnet_b0", "efficientnet_b1", "efficientnet_b0_gn", "efficientnet_b0_g16_evos", "efficientnet_blur_b0",
    "efficientnet_cc_b0_4e", "efficientnet_el", "efficientnet_es", "efficientnet_lite0", "efficientnet_x_b3",
    "efficientnetv2_rw_t", "gc_efficientnetv2_rw_t", "tf_efficientnet_b0", "tf_efficientnet_lite0",
    "tf_efficientnetv2_b0", "tinynet_e", "fbnetc_100", "mixnet_s", "tf_mixnet_s", "mnasnet_050", "mnasnet_100",
    "semnasnet_100", "spnasnet_100", "mobilenet_edgetpu_v2_xs", "mobilenetv1_100", "mobilenetv2_050", "mobilenetv2_100",
    "mobilenetv3_small_100", "mobilenetv3_large_100", "mobilenetv3_rw", "tf_mobilenetv3_small_minimal_100", "fbnetv3_b",
    "lcnet_050", "lcnetv2_small", "hardcorenas_a", "mobilenetv4_conv_small", "mobilenetv4_conv_medium",
    "mobilenetv4_conv_aa_medium", "mobilenetv4_conv_blur_medium",
    "fasternet_t0", "fastvit_t8", "focalnet_tiny_srf", "ghostnet_050", "ghostnetv2_100", "ghostnetv3_050",
    "repghostnet_050", "hgnet_tiny", "hgnetv2_b0", "hrnet_w18_small", "inception_next_atto", "inception_resnet_v2",
    "inception_v3", "inception_v4", "mambaout_femto", "nasnetalarge", "pnasnet5large", "nf_regnet_b0", "nf_resnet26",
    "eca_nfnet_l0", "rdnet_tiny", "regnetx_002", "regnety_002", "regnetz_005", "regnetv_040",
    "gernet_s", "mobileone_s0", "regnetz_b16", "regnetz_c16_evos", "repvgg_a0", "repvgg_b1g4", "repvit_m0_9",
    "resnet33ts", "resnet51q", "resnet50_mlp", "resnext26ts", "seresnext26ts", "eca_resnext26ts", "gcresnext26ts",
    "resnet10t", "resnet18", "resnet26d", "resnet50", "resnet50_gn", "resnetaa50", "resnetblur50", "resnetrs50",
    "resnext50_32x4d", "seresnet50", "seresnext26d_32x4d", "ecaresnet26t", "ecaresnet50d", "senet154",
    "wide_resnet50_2", "resnetv2_18", "resnetv2_50", "resnetv2_50x1_bit", "resnetv2_50d_gn", "resnetv2_50d_evos",
    "res2net50_14w_8s", "res2next50", "resnest14d", "resnest26d", "skresnet18", "skresnext50_32x4d", "rexnet_100",
    "selecsls42", "legacy_seresnet18", "legacy_seresnext26_32x4d", "starnet_s050", "tresnet_m", "vgg11", "vgg11_bn",
    "eca_vovnet39b", "ese_vovnet19b_dw", "ese_vovnet19b_slim_dw", "ese_vovnet39b", "vovnet39a",
    "legacy_xception", "xception41", "xception41p",
)  # fmt: skip
T = TypeVar("T")
HALF = 0.5
LONGEST = 90
"""Seconds that Torch-Pruning may take for a network."""


def measure(name: str) -> dict[str, Any]:
    """Return everything that is known of one network, as JSON values."""
    found = measure_here(name)
    return found if "refused" in found else {**found, "torch_pruning": halved_by_torch_pruning(*build(name))}


def measure_here(name: str) -> dict[str, Any]:
    """Return what this package finds in one network."""
    model, shape = build(name)
    found: dict[str, Any] = {"network": name, **{key: machine()[key] for key in ("cpu", "torch")}}
    try:
        seconds, traced = timed(lambda: trace(model, shape, "all"))
    except UserError as e:
        return {**found, "refused": str(e)}
    found["trace_s"] = round(seconds, 2)
    # What the policy all prunes contains what the policy inner does, so that one proof is that of both.
    seconds, refuted = timed(lambda: refuted_groups(model, traced))
    graph, inner = refuted.corrected(traced), refuted.corrected(trace(model, shape))
    half = {g.name: max(1, int(g.gate_count * HALF)) * g.per_gate if g.prunable else g.width for g in graph.groups}
    return {
        **found,
        "proof_s": round(seconds, 1),
        "params": graph.cost().params,
        "macs": graph.cost().macs,
        "groups": sum(group.resizable for group in traced.groups),
        "refuted": dict(refuted.frozen),
        "no_wider": dict(refuted.no_wider),
        "share_inner": inner.prunable_macs() / inner.cost().macs,
        "share_all": graph.prunable_macs() / graph.cost().macs,
        "half": graph.cost(half).macs / graph.cost().macs,
        "reason_inner": main_reason(inner),
        "reason_all": main_reason(graph),
        "difference": difference(model, graph),
    }


def timed(function: Callable[[], T]) -> tuple[float, T]:
    """Call a function; returns the seconds of a processor that it took, and its result."""
    started = time.process_time()
    result = function()
    return time.process_time() - started, result


def build(name: str) -> tuple[nn.Module, tuple[int, int, int]]:
    """Return a network as it was published, and the shape of its images."""
    torch.manual_seed(0)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        spec = ModelSpec.parse({**published_fields(name), "name": name}, "model")
        return build_model(spec), spec.input_shape


@torch.no_grad()
def difference(model: nn.Module, graph: ChannelGraph) -> float | None:
    """Return how far a network with random channels masked is from one without them; None if nothing is prunable.

    The model is changed.
    """
    kept = random_kept(graph)
    if not kept:
        return None
    images = torch.randn(BATCH, *graph.input_shape, dtype=torch.float64)
    exact = calibrated(model, images)
    return relative_difference(mask(exact, graph, kept)(images), slice_weights(exact, graph, kept)(images))


def main_reason(graph: ChannelGraph) -> str:
    """Return the reason why most MACs that cannot be pruned cannot be."""
    widths, prunable = graph.widths(), {group.name for group in graph.prunable()}
    reasons: Counter[str] = Counter()
    for term in graph.terms:
        groups = [graph.group(s.group) for span in term.spans for s in span]
        if not prunable & {group.name for group in groups}:
            inner = [g for g in groups if g.reason not in ("the network's input", "the network's output")]
            reasons[(inner or groups)[0].reason if groups else "attention"] += term.macs * term.factor(widths)
    return reasons.most_common(1)[0][0] if reasons else ""


def halved_by_torch_pruning(model: nn.Module, shape: tuple[int, int, int]) -> dict[str, Any]:
    """Return the share of the MACs that Torch-Pruning leaves when asked for half of all channels, or why it fails."""
    images = torch.randn(1, *shape)
    signal.signal(signal.SIGALRM, _too_long)
    signal.alarm(LONGEST)
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            before = count_macs(model.eval(), images)
            head = [m for m in model.modules() if isinstance(m, nn.Linear | nn.Conv2d)][-1:]
            importance = tp.importance.MagnitudeImportance(p=2)
            tp.pruner.MetaPruner(model, images, importance, pruning_ratio=HALF, ignored_layers=head).step()
            model(images)
            return {"half": count_macs(model, images) / before}
    except Exception as e:  # whatever it raises on this network
        return {"error": f"{type(e).__name__}: {(str(e) or ' ').splitlines()[0][:120]}"}
    finally:
        signal.alarm(0)


def _too_long(*_: object) -> None:
    raise TimeoutError(f"not done after {LONGEST} s")


def listed(rows: list[dict[str, Any]]) -> list[dict[str, Any]]:
    """Return what ``pfs models --timm`` says of the networks of timm that are proved, by name."""
    found = []
    for row in sorted(rows, key=lambda row: str(row["network"])):
        if row["network"].startswith("timm:") and "refused" not in row:
            groups, refuted = row["groups"], len(row["refuted"])
            text = f"{row['share_inner']:.0%} of the MACs prunable, {groups - refuted} of {groups} groups proved"
            shape = "x".join(map(str, published_fields(row["network"])["input_shape"]))
            about = {"params": row["params"], "macs": row["macs"], "description": text}
            found.append({"model": row["network"], "input": shape, **about})
    return found


def main() -> None:
    """Measure networks, or write the page."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("what", choices=("measure", "again", "page"))
    parser.add_argument("--results", type=Path, required=True, metavar="FILE")
    parser.add_argument("--timm", action="store_true", help="networks of timm as well")
    parser.add_argument("--only", nargs="+", metavar="NAME", help="these networks, such as timm:resnet18")
    parser.add_argument("--docs", type=Path, metavar="FILE", help="the page to write")
    parser.add_argument("--list", type=Path, metavar="FILE", help="what pfs models --timm prints")
    a = parser.parse_args()
    rows = [json.loads(line) for line in a.results.read_text().splitlines()] if a.results.exists() else []
    if a.what == "page":
        write_page(rows, a.docs)
        a.list.write_text(json.dumps(listed(rows), indent=1) + "\n")
        return
    torch.set_num_threads(1)
    trace(nn.Sequential(nn.Conv2d(3, 4, 1)), (3, 8, 8))  # what is loaded at the first trace
    if a.what == "again":
        for row in rows:
            if row["network"] in (a.only or [row["network"]]):
                row.update(measure_here(row["network"]))
                print(f"{row['network']:<40} {row.get('trace_s')} s, {row.get('proof_s')} s", flush=True)
                a.results.write_text("".join(json.dumps(row) + "\n" for row in rows))
        return
    names = [f"torchvision:{name}" for name in TORCHVISION] + [f"timm:{name}" for name in TIMM] * a.timm
    done = {row["network"] for row in rows}
    for name in a.only or names:
        if name not in done:
            row = measure(name)
            with a.results.open("a") as file:
                file.write(json.dumps(row) + "\n")
            print(f"{name:<40} {row.get('refused') or format(row['share_inner'], '.1%')}", flush=True)


if __name__ == "__main__":
    main()
