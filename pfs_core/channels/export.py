"""From a model to one graph of ATen operators, by ``torch.export``: whatever class or Python code made them."""

import contextlib
import copy
import logging
import traceback
import warnings
from collections.abc import Callable, Iterable, Iterator
from pathlib import Path
from typing import NamedTuple

import torch
from torch import Tensor, fx, nn
from torch._subclasses.fake_tensor import DataDependentOutputException, FakeTensor, FakeTensorMode
from torch.utils.flop_counter import FlopCounterMode

from pfs_core.errors import UserError


class Exported(NamedTuple):
    """A network as a graph of ATen operators, with the shape of every tensor.

    Attributes:
        graph: the operators, in the order in which they run. Operators in place are in it as such.
        tensors: ``{placeholder: parameter or buffer}``, by the first of its names.
        images: the placeholders of the network's input.
        numbers: ``{placeholder: value}`` of constants of a single value, such as ``torch.tensor(0.0)``.
    """

    graph: fx.Graph
    tensors: dict[str, str]
    images: set[str]
    numbers: dict[str, float]

    def read_tensors(self) -> set[str]:
        """Return the parameters and buffers that an operator reads."""
        placeholders = [node for node in self.graph.nodes if node.op == "placeholder" and node.users]
        return {self.tensors[str(node.target)] for node in placeholders if str(node.target) in self.tensors}


def export(model: nn.Module, images: Tensor) -> Exported:
    """Return the graph of what ``model``, in the mode that it is in, does to such images.

    Its tensors are only looked at: nothing is computed on real values.

    Raises:
        UserError: what it does depends on the values of the images, or it computes with tensors of the network that
            it was copied from.
    """
    with named(f"{type(model).__name__} cannot be traced"), quiet(), _attention_in_full():
        program = torch.export.export(model, (images,), strict=False)
    _check_constants(model, program.constants.values())
    signature = program.graph_signature
    first_name = _first_names(model)
    stored = {**signature.inputs_to_parameters, **signature.inputs_to_buffers}
    constants = {name: program.constants[of] for name, of in signature.inputs_to_lifted_tensor_constants.items()}
    return Exported(
        program.graph,
        {placeholder: first_name.get(name, name) for placeholder, name in stored.items()},
        set(signature.user_inputs),
        {name: one.item() for name, one in constants.items() if one.numel() == 1 and _has_values(one)},
    )


def _has_values(tensor: Tensor) -> bool:
    return not tensor.is_meta and not isinstance(tensor, FakeTensor)


def _check_constants(model: nn.Module, constants: Iterable[object]) -> None:
    """Raise UserError if a constant of a network's graph is one of its own tensors.

    A function that holds a network, such as a lambda in an attribute, holds it still in a copy: what it computes with
    are the tensors of the first network, which nobody resizes, trains or stores.
    """
    named_tensors = (*model.named_parameters(), *model.named_buffers())
    own = {tensor.data_ptr(): name for name, tensor in named_tensors if tensor.numel() and not tensor.is_meta}
    for constant in constants:
        if isinstance(constant, Tensor) and (name := own.get(constant.data_ptr())):
            raise UserError(
                f"{type(model).__name__} cannot be traced: {name} is read by a function or an attribute that holds the "
                "network's own layers or tensors, and would go on reading these in a copy of it; make it a method"
            )


def count_macs(model: nn.Module, images: Tensor) -> int:
    """Return the multiply-accumulates of a forward pass as PyTorch counts them (two FLOPs each).

    A model on the meta device, which its images say, runs there.
    """
    if images.is_meta:
        return _counted(run_as_it_is, model, images)
    try:
        return _counted(_on_meta, model, images)
    except Exception:  # as below
        return _counted(_as_fake, model, images)


def run_without_values(model: nn.Module, images: Tensor) -> object:
    """Run a model on the shapes of its tensors; returns what it returns, without values."""
    try:
        return _on_meta(model, images)
    except Exception:  # its code makes tensors of its own, which are on another device
        return _as_fake(model, images)


def _counted(run: Callable[[nn.Module, Tensor], object], model: nn.Module, images: Tensor) -> int:
    flops = FlopCounterMode(display=False)
    with flops:
        run(model, images)
    return flops.get_total_flops() // 2


def _on_meta(model: nn.Module, images: Tensor) -> object:
    """Run a copy of a model whose tensors have no values: a few times as quick as :func:`_as_fake`."""
    return run_as_it_is(on_meta(model), images.to("meta"))


def run_as_it_is(model: nn.Module, images: Tensor) -> object:
    """Run a model on the device that it is on."""
    with torch.no_grad(), quiet(), _attention_in_full():
        return model(images)


def _as_fake(model: nn.Module, images: Tensor) -> object:
    """Run a model with tensors that stand for those of any device."""
    fake = FakeTensorMode(allow_non_fake_inputs=True)
    with torch.no_grad(), fake, quiet(), _attention_in_full():
        return model(fake.from_tensor(images))


def on_meta(model: nn.Module) -> nn.Module:
    """Return a copy of ``model`` whose parameters and buffers have shapes and no values."""
    memo: dict[int, Tensor] = {id(b): b.detach().to("meta") for b in model.buffers()}
    memo |= {id(p): nn.Parameter(p.detach().to("meta"), p.requires_grad) for p in model.parameters()}
    return copy.deepcopy(model, memo)


def without_weights(model: nn.Module) -> nn.Module:
    """Return a copy of ``model`` that has the same tensors, so that its mode and attributes can be changed.

    Raises:
        UserError: it cannot be copied.
    """
    for name, module in model.named_modules():
        if isinstance(module, torch.jit.ScriptModule):
            what = f"its layer {name}" if name else "it"
            raise UserError(
                f"{type(model).__name__} cannot be copied: {what} is a TorchScript module, whose operators are not "
                "seen; give the nn.Module that it was made from"
            )
    if any(map(nn.parameter.is_lazy, (*model.parameters(), *model.buffers()))):
        raise UserError(
            f"{type(model).__name__} cannot be copied: it has lazy layers, which need a first batch of images"
        )
    for path, module in model.named_modules():
        for name, value in vars(module).items():
            if isinstance(value, Tensor) and not value.is_leaf:
                raise UserError(
                    f"{type(model).__name__} cannot be copied: {f'{path}.{name}'.lstrip('.')} was computed from its "
                    "parameters, as by torch.nn.utils.weight_norm or prune; use torch.nn.utils.parametrizations, or "
                    "make it a parameter again (remove_weight_norm, prune.remove)"
                )
    with named(f"{type(model).__name__} cannot be copied"):
        # The tensors enter the copy through deepcopy's memo, so that the weights are never copied.
        return copy.deepcopy(model, {id(t): t for t in (*model.parameters(), *model.buffers())})


def _first_names(model: nn.Module) -> dict[str, str]:
    """Return the first name of every parameter and buffer by all of its names."""
    every = (*model.named_parameters(remove_duplicate=False), *model.named_buffers(remove_duplicate=False))
    first: dict[int, str] = {}
    for name, tensor in every:
        first.setdefault(id(tensor), name)
    return {name: first[id(tensor)] for name, tensor in every}


@contextlib.contextmanager
def _attention_in_full() -> Iterator[None]:
    """Keep ``nn.MultiheadAttention`` from its fused kernel for evaluation, whose products PyTorch does not count."""
    fused = torch.backends.mha.get_fastpath_enabled()
    torch.backends.mha.set_fastpath_enabled(False)
    try:
        yield
    finally:
        torch.backends.mha.set_fastpath_enabled(fused)


@contextlib.contextmanager
def quiet() -> Iterator[None]:
    """Keep PyTorch from printing tracebacks of errors that become one line, and warnings about fake tensors."""
    log = logging.getLogger("torch._subclasses.fake_tensor")
    level = log.level
    log.setLevel(logging.CRITICAL + 1)
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            yield
    finally:
        log.setLevel(level)


@contextlib.contextmanager
def named(what: str) -> Iterator[None]:
    """Turn any error that a user's model raises into one line that says where it was raised."""
    try:
        yield
    except UserError:
        raise
    except Exception as e:
        raise UserError(f"{what}: {in_a_line(e)}") from None


def in_a_line(error: Exception, elsewhere: str = "") -> str:
    """Return what is wrong by an error that a user's model raised, and the line of their code that raised it.

    Where none of their lines did, ``elsewhere`` stands in its place.
    """
    reason = (str(error).strip() or type(error).__name__).splitlines()[0]
    if isinstance(error, KeyError):  # which says the key alone
        reason = f"KeyError: {reason}"
    if isinstance(error, DataDependentOutputException):
        reason = "what it does depends on their values"
    return f"{reason}{_place(error) or elsewhere}"


def _place(error: Exception) -> str:
    """Return the line of the user's own code that raised an error: the innermost one outside PyTorch and pfs."""
    ours = (Path(torch.__file__).parent, Path(__file__).parents[1])
    for frame in reversed(traceback.extract_tb(error.__traceback__)):
        path = Path(frame.filename)
        if path.parent in (Path(copy.__file__).parent, Path(contextlib.__file__).parent):
            continue
        if path.is_file() and not any(path.is_relative_to(folder) for folder in ours):
            return f" ({path.name}, line {frame.lineno}: {frame.line})"
    return ""
