"""BatchNorm fused into the convolution before it, as a network is deployed."""

import copy
import inspect
from collections import Counter

import torch
from torch import Tensor, fx, nn
from torch.nn.utils.fusion import fuse_conv_bn_eval

from pfs_core.nn.returned import tensors_in

_TOLERANCE = 1e-3
"""How far outputs may be apart by rounding, as a fraction of the largest one."""
_PAIRS = {(nn.Conv1d, nn.BatchNorm1d), (nn.Conv2d, nn.BatchNorm2d), (nn.Conv3d, nn.BatchNorm3d)}


@torch.no_grad()
def fuse_batchnorm(model: nn.Module, images: Tensor) -> nn.Module:
    """Return a copy of ``model``, in evaluation mode, without the BatchNorms that directly follow a convolution.

    In evaluation a BatchNorm is a factor and a shift per channel, which the weights and the bias of the convolution
    take over; the result computes the same up to rounding. Layers that are called more than once, that have hooks, or
    whose weights are read elsewhere, stay as they are. ``model`` itself is put into evaluation mode too, and is what is
    returned where torch.fx cannot trace it, or traces something else, as of code that asks whether it has a tensor.

    Args:
        model: the network.
        images: what it is tried on, float32 [N, C, H, W].

    >>> layers = nn.Sequential(nn.Conv2d(3, 8, 3, bias=False), nn.BatchNorm2d(8), nn.ReLU())
    >>> fused = fuse_batchnorm(layers, torch.randn(1, 3, 8, 8))
    >>> [type(module).__name__ for module in fused.children()]
    ['Conv2d', 'ReLU']
    """
    model.eval()
    traced = _traced(model)
    if traced is None:
        return model
    modules, uses = dict(traced.named_modules()), _Uses(traced)
    for node in list(traced.graph.nodes):
        before = node.args[0] if node.op == "call_module" and node.args else None
        if not isinstance(before, fx.Node) or before.op != "call_module" or len(before.users) != 1:
            continue
        name = str(before.target)
        conv, norm = modules[name], modules[str(node.target)]
        pair = (type(conv), type(norm)) in _PAIRS and norm.track_running_stats
        if pair and uses.once(conv) and uses.once(norm):
            modules[name] = fuse_conv_bn_eval(conv, norm)
            uses.add(modules[name])
            traced.set_submodule(name, modules[name])
            node.replace_all_uses_with(before)
            traced.graph.erase_node(node)
    traced.delete_all_unused_submodules()
    traced.recompile()
    return traced if _same(traced(images), model(images)) else model


def _traced(model: nn.Module) -> fx.GraphModule | None:
    """Return a copy of a network as a graph of calls, or None where torch.fx cannot trace it."""
    parameters = inspect.signature(model.forward).parameters.items()
    defaults = {name: p.default for name, p in parameters if p.default is not p.empty}
    try:
        return fx.symbolic_trace(copy.deepcopy(model), concrete_args=defaults)
    except Exception:  # whatever the code of a model does to torch.fx's proxies
        return None


class _Uses:
    """How often layers are called, and parameters read, in a traced network."""

    def __init__(self, traced: fx.GraphModule) -> None:
        modules, parameters = dict(traced.named_modules()), dict(traced.named_parameters(remove_duplicate=False))
        self._calls: Counter[int] = Counter()
        self._readers = Counter(id(p) for module in modules.values() for p in module.parameters(recurse=False))
        for node in traced.graph.nodes:
            if node.op == "call_module":
                self._calls[id(modules[str(node.target)])] += 1
            elif node.op == "get_attr":
                self._readers[id(parameters.get(str(node.target)))] += 1

    def add(self, module: nn.Module) -> None:
        """Count a new layer, which is called once."""
        self._calls[id(module)] += 1
        self._readers.update(id(p) for p in module.parameters())

    def once(self, module: nn.Module) -> bool:
        """Return whether a layer is called once and has no hooks, and nothing else reads its parameters."""
        hooked = module._forward_hooks or module._forward_pre_hooks
        alone = all(self._readers[id(p)] == 1 for p in module.parameters(recurse=False))
        return not hooked and self._calls[id(module)] == 1 and alone


def _same(outputs: object, expected: object) -> bool:
    """Return whether two networks return the same up to rounding."""
    found, wanted = tensors_in(outputs), tensors_in(expected)
    return len(found) == len(wanted) and all(
        one.shape == other.shape and bool((one - other).abs().max() <= _TOLERANCE * other.abs().max())
        for one, other in zip(found, wanted, strict=True)
    )
