"""What the channel graph finds in torchvision's classification networks; writes docs/networks.md.

    python benchmarks/networks.py --docs docs/networks.md

The time is that of one trace of a built network, nothing shared with the traces before it.
"""

import argparse
import time
import warnings
from pathlib import Path

import torch

from pfs_core.channels import ChannelGraph, trace
from pfs_core.config.spec import ModelSpec
from pfs_core.latency.machine import machine
from pfs_core.models import build_model

PLAIN = (
    "alexnet", "vgg11", "vgg16_bn", "resnet18", "resnet34", "resnet50", "resnet101", "wide_resnet50_2",
    "resnext50_32x4d", "densenet121", "densenet169", "googlenet", "inception_v3", "squeezenet1_0", "squeezenet1_1",
    "shufflenet_v2_x0_5", "shufflenet_v2_x1_0", "mobilenet_v2", "mobilenet_v3_small", "mobilenet_v3_large",
    "mnasnet0_5", "mnasnet1_0", "efficientnet_b0", "efficientnet_b3", "efficientnet_v2_s", "regnet_x_400mf",
    "regnet_x_1_6gf", "regnet_y_400mf", "regnet_y_1_6gf", "convnext_tiny", "convnext_small",
)  # fmt: skip
TRANSFORMERS = ("vit_b_16", "vit_b_32", "swin_t", "swin_v2_t", "maxvit_t")

PAGE = """# What can be pruned in torchvision's networks

`python benchmarks/networks.py --docs docs/networks.md` on {cpu}, torch {torch}, one trace each.

*Prunable* counts channel groups under the policy `inner`, and the share is of the MACs of layers that read or write a
prunable group; `all` adds residual streams. *Left alone* is what else there is: residual streams (pruned by `all`), and
groups that keep their width for a reason that `pfs inspect torchvision:NAME` prints. MACs are those of one image of the
network's published size.

{networks}

In transformers the hidden widths of the MLPs are prunable and nothing else is: attention mixes the embedding in ways
that no handler follows, and a LayerNorm's output depends on how many channels there are. MaxViT's convolutional blocks
are pruned like any other. MACs of attention products are a constant term of the cost, as PyTorch's counter gives them.
ConvNeXt's residual stream passes through a parameter (`layer_scale`) and keeps its width. ShuffleNet's stream is split
and shuffled, and keeps its width; the inner widths of its branches are prunable.

That a masked channel is an absent one is proved for these networks, on every prunable group, in
`tests/channels/test_torchvision.py`.
"""
HEADER = "| network | MACs | trace, s | groups | prunable | share of MACs | share, `all` | left alone: stream | other |"


def row(name: str) -> str:
    """A table row."""
    size = 299 if name == "inception_v3" else 224
    spec = ModelSpec(name=f"torchvision:{name}", num_classes=1000, input_shape=(3, size, size))
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        model = build_model(spec)
    started = time.perf_counter()
    graph = trace(model, spec.input_shape)
    seconds = time.perf_counter() - started
    stream = sum(group.stream and group.resizable for group in graph.groups)
    prunable = len(graph.prunable())
    cells = (
        name, f"{graph.cost().macs:,}", f"{seconds:.2f}", len(graph.groups), prunable, share(graph),
        share(trace(model, spec.input_shape, "all")), stream, len(graph.groups) - prunable - stream,
    )  # fmt: skip
    return "| " + " | ".join(map(str, cells)) + " |"


def share(graph: ChannelGraph) -> str:
    """MACs of layers at prunable groups, as a share of all."""
    return f"{graph.prunable_macs() / graph.cost().macs:.1%}"


def main() -> None:
    """Write the page."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--docs", type=Path, required=True, metavar="FILE")
    docs = parser.parse_args().docs
    torch.manual_seed(0)
    trace(torch.nn.Sequential(torch.nn.Conv2d(3, 4, 1)), (3, 8, 8))  # what is loaded at the first trace
    rows = [HEADER, "| --- |" + " ---: |" * 8, *map(row, (*PLAIN, *TRANSFORMERS))]
    cpu = machine()
    docs.write_text(PAGE.format(networks="\n".join(rows), cpu=cpu["cpu"], torch=cpu["torch"]), encoding="utf-8")


if __name__ == "__main__":
    main()
