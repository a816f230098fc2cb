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
    defaults = {
        name: parameter.default
        for name, parameter in inspect.signature(model.forward).parameters.items()
        if parameter.default is not parameter.empty
    }
    try:
        traced = fx.symbolic_trace(copy.deepcopy(model), concrete_args=defaults)
    except Exception:  # whatever the code of a model does to torch.fx's proxies
        return model
    modules = dict(traced.named_modules())
    calls = Counter(id(modules[str(node.target)]) for node in traced.graph.nodes if node.op == "call_module")
    readers = Counter(id(p) for m in modules.values() for p in m.parameters(recurse=False))
    parameters = dict(traced.named_parameters(remove_duplicate=False))
    readers.update(id(parameters.get(str(node.target))) for node in traced.graph.nodes if node.op == "get_attr")

    def once(module: nn.Module) -> bool:
        hooked = module._forward_hooks or module._forward_pre_hooks
        return (
            not hooked and calls[id(module)] == 1 and all(readers[id(p)] == 1 for p in module.parameters(recurse=False))
        )

    for node in list(traced.graph.nodes):
        before = node.args[0] if node.op == "call_module" and node.args else None
        if not isinstance(before, fx.Node) or before.op != "call_module" or len(before.users) != 1:
            continue
        name = str(before.target)
        conv, norm = modules[name], modules[str(node.target)]
        if (type(conv), type(norm)) in _PAIRS and norm.track_running_stats and once(conv) and once(norm):
            modules[name] = fuse_conv_bn_eval(conv, norm)
            calls[id(modules[name])] = 1
            readers.update(id(p) for p in modules[name].parameters())
            traced.set_submodule(name, modules[name])
            node.replace_all_uses_with(before)
            traced.graph.erase_node(node)
    traced.delete_all_unused_submodules()
    traced.recompile()
    return traced if _same(traced(images), model(images)) else model


def _same(outputs: object, expected: object) -> bool:
    """Return whether two networks return the same up to rounding."""
    found, wanted = tensors_in(outputs), tensors_in(expected)
    return len(found) == len(wanted) and all(
        one.shape == other.shape and bool((one - other).abs().max() <= _TOLERANCE * other.abs().max())
        for one, other in zip(found, wanted, strict=True)
    )
