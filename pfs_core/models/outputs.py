"""What a network must be for the pipeline: float32 weights, and one tensor of logits out of images, in both modes."""

import torch
from torch import Tensor, nn

from pfs_core.channels.export import named, run_without_values, without_weights
from pfs_core.config.spec import ModelSpec
from pfs_core.errors import UserError


def check_network(model: nn.Module, spec: ModelSpec) -> None:
    """Check a network's weights, and run it without values, in evaluation and in training mode.

    Raises:
        UserError: it does not turn images [N, C, H, W] into logits [N, classes], or its weights are not float32, or
            they cannot be stored and loaded.
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
    shape = "x".join(map(str, spec.input_shape))
    for mode in (False, True):
        with named(f"{type(model).__name__} cannot process {shape} images{' in training mode' * mode}"):
            outputs = run_without_values(tried.train(mode), torch.empty(2, *spec.input_shape))
        _check_logits(outputs, spec, " in training mode" * mode)


def _check_logits(outputs: object, spec: ModelSpec, when: str) -> None:
    right = f"it must return logits [images, classes], here [N, {spec.num_classes}]"
    if not isinstance(outputs, Tensor):
        raise UserError(f"model {spec.name}: it returns an object of type {type(outputs).__name__}{when}; {right}")
    if outputs.dim() != 2:
        sizes = ", ".join(["N", *map(str, outputs.shape[1:])])
        raise UserError(f"model {spec.name}: it returns a tensor [{sizes}]{when}; {right}")
    if outputs.shape[1] != spec.num_classes:
        raise UserError(
            f"model {spec.name}: it returns {outputs.shape[1]} values an image{when}, and there are "
            f"{spec.num_classes} classes; let its factory take num_classes"
        )
