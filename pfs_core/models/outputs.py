"""What a network must be for the pipeline: float32 weights, and one tensor of logits out of images, in both modes."""

import contextlib
from collections.abc import Mapping
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn
from torch.overrides import TorchFunctionMode

from pfs_core.channels.export import named, on_meta, quiet, run_without_values, without_weights
from pfs_core.config.spec import ModelSpec
from pfs_core.errors import UserError
from pfs_core.models import build_model


def check_network(model: nn.Module, spec: ModelSpec) -> None:
    """Check a network's weights, and run it without values, in evaluation and in training mode.

    Raises:
        UserError: it does not turn images [N, C, H, W] into logits [N, classes], or trains on the probabilities of a
            softmax, or its weights are not float32, or they cannot be stored and loaded.
    """
    tried = without_weights(model)
    other = next((p.dtype for p in model.parameters() if p.is_floating_point() and p.dtype != torch.float32), None)
    if other:
        raise UserError(f"model {spec.name}: it has weights in {other}; return it in float32, as .float() makes it")
    for name, value in model.state_dict().items():
        if not isinstance(value, Tensor):
            raise UserError(
                f"model {spec.name}: its state has {name}, an object of type {type(value).__name__}, and files of "
                "weights hold tensors alone; leave it out of get_extra_state"
            )
        if any(stride == 0 and size > 1 for stride, size in zip(value.stride(), value.shape, strict=True)):
            raise UserError(f"model {spec.name}: {name} is an expanded tensor, which cannot be loaded; add .clone()")
    _check_registered(model, spec)
    made = _made_by_forward(tried, torch.empty(2, *spec.input_shape, device="meta"))
    if made:
        raise UserError(
            f"model {spec.name}: its forward makes the parameter or buffer {made}, which no optimiser would know and "
            "no file of weights would have; make it in __init__"
        )
    shape = "x".join(map(str, spec.input_shape))
    for mode, count, when in ((False, 2, ""), (True, 2, " in training mode"), (False, 1, " for a single image")):
        with named(f"{type(model).__name__} cannot process {shape} images{when}"), _Softmax() as softmax:
            outputs = run_without_values(tried.train(mode), torch.empty(count, *spec.input_shape))
        _check_logits(outputs, spec, count, when)
        if mode and any(outputs is one for one in softmax.returned):
            raise UserError(
                f"model {spec.name}: it returns the probabilities of a softmax{when}, and the loss takes logits; leave "
                "the softmax out, or return it in evaluation mode alone"
            )


class _Softmax(TorchFunctionMode):
    """Collects what softmax returns."""

    def __init__(self) -> None:
        super().__init__()
        self.returned: list[Tensor] = []

    def __torch_function__(
        self, function: Any, types: Any, args: tuple[Any, ...] = (), kwargs: Mapping[str, Any] | None = None
    ) -> Any:
        """Call the function, and keep what it returns if it is a softmax."""
        result = function(*args, **(kwargs or {}))
        if getattr(function, "__name__", "") == "softmax":
            self.returned.append(result)
        return result


def check_built_again(model: nn.Module, spec: ModelSpec) -> None:
    """Check that what a network holds beside its state is the same whenever it is built, so that its state is enough.

    Raises:
        UserError: a tensor or a list of numbers that is not part of the state differs in another one.
    """
    with torch.random.fork_rng(devices=[]):
        other = _beside_state(build_model(spec))
    for name, value in _beside_state(model).items():
        if name in other and not torch.equal(value, other[name]):
            raise UserError(
                f"model {spec.name}: {name} is drawn at random when the network is made, and no file of weights would "
                "have it; make it a buffer (register_buffer) that is persistent"
            )


def _beside_state(model: nn.Module) -> dict[str, Tensor]:
    """Return the tensors and lists of numbers of a network that are not part of its state."""
    stored = model.state_dict()
    found = {name: buffer for name, buffer in model.named_buffers() if name not in stored}
    for path, module in model.named_modules():
        for name, value in vars(module).items():
            numbers = isinstance(value, list | tuple) and value and all(isinstance(one, int | float) for one in value)
            numbers = numbers or (isinstance(value, np.ndarray) and value.dtype.kind in "biuf")
            if numbers or isinstance(value, Tensor):
                found[f"{path}.{name}".lstrip(".")] = torch.as_tensor(value)
    return found


def _check_registered(model: nn.Module, spec: ModelSpec) -> None:
    """Raise UserError if a layer or a parameter is in a list or a dict, where PyTorch does not find it."""
    known = {id(one) for one in (*model.modules(), *model.parameters())}
    for path, module in model.named_modules():
        for name, value in vars(module).items():
            if name.startswith("_") or not isinstance(value, list | tuple | dict):
                continue
            for one in value.values() if isinstance(value, dict) else value:
                if isinstance(one, nn.Module | nn.Parameter) and id(one) not in known:
                    kind = "Module" if isinstance(one, nn.Module) else "Parameter"
                    raise UserError(
                        f"model {spec.name}: {f'{path}.{name}'.lstrip('.')} is a {type(value).__name__} of layers or "
                        "parameters, which PyTorch neither trains nor stores; make it an "
                        f"nn.{kind}{'Dict' if isinstance(value, dict) else 'List'}"
                    )


def _made_by_forward(model: nn.Module, images: Tensor) -> str:
    """Return the name of a parameter or persistent buffer that a network makes where it is first called; or nothing."""
    model = on_meta(model)
    before = set(model.state_dict())
    with contextlib.suppress(Exception), torch.no_grad(), quiet():  # whether it can be called is found out elsewhere
        model(images)
    return min(set(model.state_dict()) - before, default="")


def _check_logits(outputs: object, spec: ModelSpec, count: int, when: str) -> None:
    right = f"it must return logits [images, classes], here [N, {spec.num_classes}]"
    if not isinstance(outputs, Tensor):
        raise UserError(f"model {spec.name}: it returns an object of type {type(outputs).__name__}{when}; {right}")
    if outputs.dim() != 2 or len(outputs) != count:
        sizes = [str(size) for size in outputs.shape]
        if sizes[:1] == [str(count)]:
            sizes[0] = "N"
        raise UserError(f"model {spec.name}: it returns a tensor [{', '.join(sizes)}]{when}; {right}")
    if outputs.shape[1] != spec.num_classes:
        raise UserError(
            f"model {spec.name}: it returns {outputs.shape[1]} values an image{when}, and there are "
            f"{spec.num_classes} classes; let its factory take num_classes"
        )
