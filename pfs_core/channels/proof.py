"""The proof of a channel graph on the network itself: what a graph of operators cannot say is found by trying.

A graph does not say whether a size is a number that only fits this width, what a kernel of one's own computes, or
whether a handler is wrong. So the network is tried: resized, each group unlike the others, does it run, forward and
backward, and cost what the closed form says? With random channels of every group masked, does it compute what it
computes without them? Groups for which it does not are found by halving, and are left as they are, with the reason.
So are branches: left out, does the network compute what it computes where the branch returns 0?
"""

import contextlib
import copy
import functools
import re
from collections import Counter
from collections.abc import Callable, Iterable, Mapping
from typing import Any

import torch
from torch import Tensor, nn
from torch._subclasses import FakeTensorMode

from pfs_core.channels.elements import Cost
from pfs_core.channels.export import count_macs, in_a_line, named, on_meta, quiet
from pfs_core.channels.graph import ChannelGraph, Refuted
from pfs_core.channels.resizing import slice_weights, with_widths
from pfs_core.channels.tracer import BATCH
from pfs_core.errors import UserError
from pfs_core.nn.batch_statistics import recompute_statistics
from pfs_core.nn.returned import tensors_in

EXACT = 1e-6
"""The largest difference, relative to the largest output, that is taken for rounding (float64; 1e-12 is usual)."""
EXACT_IN_FLOAT32 = 1e-2
"""The same in float32 and less (1e-5 is usual; what is wrong is almost always above 0.1)."""

Reasons = dict[str, str]
"""``{group or branch: why it must stay as it is}``."""
Trial = Callable[[list[str]], str]
"""Tries some groups or branches together; returns what is wrong, or nothing."""


def refuted_groups(model: nn.Module, graph: ChannelGraph) -> Refuted:
    """Return the groups and branches for which ``graph`` does not hold on ``model``, with the reasons.

    The model is not changed, nor is torch's global random state.

    Args:
        model: the network that ``graph`` was traced from, with weights (not on the meta device).
        graph: its channel graph.

    Raises:
        UserError: the model fails in training mode as it is.
    """
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        resizing = _Resizing(model, graph)
        groups = [g.name for g in graph.groups if g.resizable]
        failed = _refuted(groups, [resizing.count_narrow, resizing.train_narrow])
        frozen = {name: f"resized, the network fails: {why}" for name, why in failed.items()}
        rest = [name for name in groups if name not in frozen]
        # Found only roughly: it may be most of the groups, and they can be pruned all the same.
        no_wider = _refuted(rest, [resizing.count_wide], least=max(1, len(rest) // 8))
        graph = graph.frozen(frozen)
        masking = Masking(model, graph)
        frozen |= _refuted([g.name for g in graph.prunable()], [masking])
        branches = [branch.name for branch in graph.frozen(frozen).branches]
        needed = _refuted(branches, [resizing.count_without, resizing.train_without, masking.without])
        return Refuted(frozen, {name: why for name, why in no_wider.items() if name not in frozen}, needed)


def _refuted(groups: list[str], trials: list[Trial], least: int = 1) -> Reasons:
    """Return the groups without which all others pass every trial together, each with what is wrong with it."""
    refuted: Reasons = {}
    # Layers that play the same part in their blocks fail alike; side by side they are found in fewer trials.
    alike = sorted(groups, key=lambda name: re.sub(r"\d+", "", name))
    while rest := [name for name in alike if name not in refuted]:
        found = next(filter(None, (_halved(rest, trial, least) for trial in trials)), None)
        if not found:
            break
        refuted |= found
    return {name: refuted[name] for name in groups if name in refuted}


def _halved(groups: list[str], trial: Trial, least: int, fail: bool = False) -> Reasons:
    """Return those of several groups that fail the trial alone, or all of them if they fail only together.

    No more than ``least`` groups are not told apart. Groups that are known to ``fail``, since what they were halved
    from does and the other half does not, are not tried together once more.
    """
    wrong = "" if fail and len(groups) > least else trial(groups)
    if (wrong or fail) and len(groups) > least:
        middle = len(groups) // 2
        found = _halved(groups[:middle], trial, least)
        found |= _halved(groups[middle:], trial, least, fail=not found)
        if found:
            return found
        wrong = wrong or trial(groups)
    return dict.fromkeys(groups, wrong) if wrong else {}


def _at(groups: list[str]) -> str:
    """Return where something is wrong: behind the layer that writes the channels of these groups first.

    >>> _at(["layer1.0.conv1", "layer2.0.conv1"])
    ' (behind layer1.0.conv1 and 1 more)'
    """
    more = f" and {len(groups) - 1} more" if len(groups) > 1 else ""
    return f" (behind {groups[0]}{more})" if groups else ""


_StandIn = tuple[nn.Module, contextlib.AbstractContextManager[Any], str]
"""A model to try resizes on, the context to do so in, and the device of its images."""


def _meta(model: nn.Module) -> _StandIn:
    return on_meta(model), contextlib.nullcontext(), "meta"


def _fake(model: nn.Module) -> _StandIn:
    fake = FakeTensorMode(allow_non_fake_inputs=True)
    with fake:
        memo: dict[int, Tensor] = {id(t): fake.from_tensor(t.detach()) for t in (*model.parameters(), *model.buffers())}
        memo |= {id(p): nn.Parameter(memo[id(p)], p.requires_grad) for p in model.parameters()}
    return copy.deepcopy(model, memo), fake, "cpu"


def _real(model: nn.Module) -> _StandIn:
    return model, contextlib.nullcontext(), "cpu"


class _Resizing:
    """Tries resizes, without values where that goes: narrower in training mode, narrower and wider against the cost."""

    def __init__(self, model: nn.Module, graph: ChannelGraph) -> None:
        self._graph = graph
        self._dtype = _precision(model)
        # A model may make tensors of its own, which are on no meta device, or need values, as one that counts batches.
        for stand_in in (_meta, _fake, _real):
            self._model, self._context, self._device = stand_in(model)
            if not (wrong := self._attempt(self._train, {}, [])):
                break
        else:
            raise UserError(f"{type(model).__name__} cannot be trained: {wrong}")
        narrow, wide = self._unlike(0), self._unlike(1)  # an expansion makes networks wider
        self.count_narrow: Trial = functools.partial(self._attempt, self._count, narrow)
        self.train_narrow: Trial = functools.partial(self._attempt, self._train, narrow)
        self.count_wide: Trial = functools.partial(self._attempt, self._count, wide)
        self.count_without: Trial = functools.partial(self._attempt_without, self._count)
        self.train_without: Trial = functools.partial(self._attempt_without, self._train)

    def _unlike(self, times: int) -> dict[str, int]:
        """Return other widths than those of the groups: narrower ones (``times`` 0), or wider ones (1).

        Groups that are equally wide get as different ones as there are, so that none passes for another.
        """
        seen: Counter[int] = Counter()
        widths = {}
        for group in self._graph.groups:
            count = group.gate_count
            widths[group.name] = (count * times + 1 + seen[count] % max(1, count - 1)) * group.per_gate
            seen[count] += 1
        return widths

    def _attempt(self, run: Callable[[Mapping[str, int]], str], drawn: Mapping[str, int], groups: list[str]) -> str:
        widths = self._graph.widths() | {name: drawn[name] for name in groups}
        try:
            with self._context, quiet():
                wrong = run(widths)
        except Exception as e:  # whatever a user's model raises
            return in_a_line(e, _at(groups))
        return wrong and f"{wrong}{_at(groups)}"

    def _attempt_without(self, run: Callable[[Mapping[str, int]], str], branches: list[str]) -> str:
        groups = [name for branch in self._graph.branches if branch.name in branches for name in branch.groups]
        return self._attempt(run, dict.fromkeys(groups, 0), groups)

    def _count(self, widths: Mapping[str, int]) -> str:
        resized = with_widths(self._model, self._graph, widths).eval()
        macs = count_macs(resized, torch.empty(1, *self._graph.input_shape, dtype=self._dtype, device=self._device))
        counted = Cost(macs, sum(p.numel() for p in resized.parameters()))
        expected = self._graph.cost(widths)
        return "" if counted == expected else f"it costs {counted} and not {expected}"

    def _train(self, widths: Mapping[str, int]) -> str:
        resized = with_widths(self._model, self._graph, widths).train()
        images = torch.zeros(BATCH, *self._graph.input_shape, dtype=self._dtype, device=self._device)
        outputs = tensors_in(resized(images))
        if not (learned := [output.sum() for output in outputs if output.requires_grad]):
            return "what it returns has no gradient"
        torch.stack(learned).sum().backward()
        return ""


class Masking:
    """Tries masks: a network with some channels set to 0 where gates act computes what it computes without them.

    Once half of the channels stay and once a single one of every group, since a network may do something else from some
    width on. It computes in float64 or, where the model's own code mixes in numbers of another precision, in the
    model's.

    Args:
        model: the network.
        graph: its channel graph.

    Raises:
        UserError: the model fails.
    """

    def __init__(self, model: nn.Module, graph: ChannelGraph) -> None:
        self._graph = graph
        self._exact = EXACT
        self._images = torch.randn(BATCH, *graph.input_shape, dtype=torch.float64)
        try:
            self._model = calibrated(copy.deepcopy(model), self._images)
        except Exception:  # a model that mixes in numbers of another precision
            self._exact = EXACT_IN_FLOAT32
            self._images = self._images.to(_precision(model))
            with named(f"{type(model).__name__} cannot process its images"):
                self._model = calibrated(copy.deepcopy(model), self._images)
        self._kept = [random_kept(graph), random_kept(graph, share=0.0)]

    @torch.no_grad()
    def __call__(self, groups: list[str]) -> str:
        """Return what is wrong when random channels of these groups alone are masked and removed; empty if nothing."""
        return next(filter(None, (self._masked({name: kept[name] for name in groups}) for kept in self._kept)), "")

    @torch.no_grad()
    def without(self, names: list[str]) -> str:
        """Return what is wrong when these branches are left out, beside the network in which they return 0."""
        branches = [branch for branch in self._graph.branches if branch.name in names]
        kept = {group: torch.arange(0) for branch in branches for group in branch.groups}
        return self._difference(lambda: silenced(self._model, names), kept)

    def _masked(self, kept: Mapping[str, Tensor]) -> str:
        return self._difference(lambda: mask(self._model, self._graph, kept), kept)

    def _difference(self, masked: Callable[[], nn.Module], kept: Mapping[str, Tensor]) -> str:
        try:
            expected = self._compute(masked())
            removed = self._compute(slice_weights(self._model, self._graph, kept))
        except Exception as e:  # whatever a user's model raises
            return in_a_line(e, _at([*kept]))
        difference = relative_difference(expected, removed)
        exact = difference <= self._exact
        return "" if exact else f"masked and removed channels differ by {difference:.2g}{_at([*kept])}"

    def _compute(self, model: nn.Module) -> Tensor:
        torch.manual_seed(0)
        return torch.cat([output.flatten(1).double() for output in tensors_in(model(self._images))], 1)


def calibrated(model: nn.Module, images: Tensor) -> nn.Module:
    """Return ``model``, changed, in evaluation mode and the images' precision, such that masks on any channels show.

    BatchNorms get random affines and the statistics of ``images``; layers that start at zero or almost (a classifier,
    a residual branch) get random values.

    Args:
        model: the network.
        images: [N, C, H, W].
    """
    model = model.to(images.dtype).eval()
    for parameter in model.parameters():
        if parameter.numel() > 1 and parameter.abs().max() < 1e-3:
            nn.init.normal_(parameter, 0.0, 0.1)
    for module in model.modules():
        if isinstance(module, nn.modules.batchnorm._NormBase) and module.affine:
            nn.init.uniform_(module.weight, 0.5, 1.5)
            nn.init.normal_(module.bias, 0.0, 0.5)
    recompute_statistics(model, [images])
    return model


def mask(model: nn.Module, graph: ChannelGraph, kept: Mapping[str, Tensor]) -> nn.Module:
    """Return a copy of ``model`` that sets all channels but the ``kept`` to 0 where the graph says that gates act.

    Args:
        model: the network.
        graph: its channel graph.
        kept: ``{group: int64 [n]}``, indices of gates; groups that are not named keep all.
    """
    out = copy.deepcopy(model)
    for axis in graph.axes:
        if axis.role not in ("writes", "norm", "gate"):
            continue
        factors = []
        for part in axis.segments:
            group = graph.group(part.group)
            gate = torch.ones(group.gate_count)
            if group.name in kept and axis.module in group.gates:
                gate = torch.zeros_like(gate)
                gate[kept[group.name]] = 1
            factors.append(group.by_channel(gate, part.blocks).repeat_interleave(part.repeat))
        factor = torch.cat(factors)
        if not factor.all():
            out.get_submodule(axis.module).register_forward_hook(_multiplied(factor, axis.trailing))
    return out


def silenced(model: nn.Module, modules: Iterable[str]) -> nn.Module:
    """Return a copy of ``model`` in which these modules return 0."""
    out = copy.deepcopy(model)
    for path in modules:
        out.get_submodule(path).register_forward_hook(_multiplied(torch.zeros(1), 0))
    return out


def _multiplied(factor: Tensor, trailing: int) -> Callable[[nn.Module, object, Tensor], Tensor]:
    def hook(module: nn.Module, inputs: object, output: Tensor) -> Tensor:
        return output * factor.view(-1, *[1] * trailing).to(output.dtype)

    return hook


def random_kept(graph: ChannelGraph, seed: int = 0, share: float = 0.5) -> dict[str, Tensor]:
    """Return a random share of the gates of every prunable group, at least one: ``{group: int64 [n]}``, rising."""
    random = torch.Generator().manual_seed(seed)
    kept = {}
    for group in graph.prunable():
        order = torch.randperm(group.gate_count, generator=random)
        kept[group.name] = order[: max(1, round(group.gate_count * share))].sort().values
    return kept


def relative_difference(a: Tensor, b: Tensor) -> float:
    """Return the largest difference of two outputs, relative to the largest value of the second."""
    difference = (a - b).abs().max()
    return float(difference / b.abs().max()) if difference else 0.0


def _precision(model: nn.Module) -> torch.dtype:
    """Return the precision of a network's weights."""
    return next((p.dtype for p in model.parameters() if p.is_floating_point()), torch.float32)
