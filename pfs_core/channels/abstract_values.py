"""What the tracer knows of an intermediate value: which of its features are the channels of which group."""

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field, replace
from typing import NamedTuple


class TracedSlice(NamedTuple):
    """A range of a tensor's features: the channels of one group, each ``repeat`` times side by side.

    ``group`` is the number that the tracer gave the group. ``gates`` are the layers that can set a channel of this
    slice to 0 so that it is still 0 here; ``ungated`` says why there are none, and is empty where there are some or
    where there has been no layer yet. ``spare`` are modules without weights that could, where no layer can. Of a group
    that is divided into ``blocks`` equal blocks, the slice has the channels of block number ``block`` only.
    """

    group: int
    repeat: int = 1
    gates: frozenset[str] = frozenset()
    ungated: str = ""
    block: int = 0
    blocks: int = 1
    spare: frozenset[str] = frozenset()

    def without_gates(self, reason: str) -> "TracedSlice":
        """Return the slice after an operation that turns the 0 of a masked channel into something else."""
        return self._replace(gates=frozenset(), ungated=reason, spare=frozenset())


@dataclass(frozen=True, slots=True)
class Channels:
    """A tensor whose dimension ``dim`` consists of channels: the slices ``parts``, one after the other.

    Where a view has divided that dimension in two, ``outer`` is the dimension before it, which counts equal blocks of
    the channels, and ``dim`` counts those of each block.
    """

    dim: int
    parts: tuple[TracedSlice, ...]
    outer: int | None = None

    def on_dim(self, dim: int) -> "Channels":
        """Return the same channels on another dimension."""
        return replace(self, dim=dim)

    def shifted(self, by: int) -> "Channels":
        """Return the same channels behind ``by`` new dimensions."""
        return replace(self, dim=self.dim + by, outer=None if self.outer is None else self.outer + by)

    def repeated(self, times: int) -> "Channels":
        """Return these channels with every feature ``times`` side by side.

        >>> Channels(1, (TracedSlice(0), TracedSlice(1, repeat=2))).repeated(4).parts[1].repeat
        8
        """
        return replace(self, parts=tuple(p._replace(repeat=p.repeat * times) for p in self.parts))

    def gated_by(self, gates: Iterable[str]) -> "Channels":
        """Return these channels as the output of layers that can set them to 0."""
        only = frozenset(gates)
        return replace(self, parts=tuple(p._replace(gates=only, ungated="", spare=frozenset()) for p in self.parts))

    def without_gates(self, reason: str) -> "Channels":
        """Return these channels after an operation that turns the 0 of a masked channel into something else."""
        return replace(self, parts=tuple(p.without_gates(reason) for p in self.parts))

    def with_spare(self, module: str) -> "Channels":
        """Return these channels as the output of a module that can set them to 0 where no layer can."""
        spare = frozenset([module])
        return replace(self, parts=tuple(p._replace(spare=spare) if p.ungated else p for p in self.parts))


class Span(NamedTuple):
    """Dimension ``dim`` of the parameter or buffer ``tensor``."""

    tensor: str
    dim: int


@dataclass(frozen=True, slots=True)
class Weights:
    """A parameter or buffer, or what is computed of some: which of their dimensions each of its own comes from.

    A dimension that is not in ``dims`` mixes several, or comes from none.
    """

    dims: Mapping[int, frozenset[Span]] = field(default_factory=dict)

    def spans(self) -> set[Span]:
        """Return every dimension that the value still has."""
        return {span for spans in self.dims.values() for span in spans}


@dataclass(frozen=True, slots=True)
class FixedTensor:
    """A tensor none of whose dimensions can change.

    ``origin`` is the operation that it comes from, ``reason`` says why its dimensions are fixed, and ``constant`` is
    set where it does not depend on the images. ``number`` is the value that all of a constant is known to have.
    """

    origin: str
    reason: str
    constant: bool = False
    number: float | None = None


Tensor = Channels | Weights | FixedTensor | None
"""What is known of one tensor; None for what is not a tensor."""
Value = Tensor | tuple[Tensor, ...]
"""What is known of the output of an operator, which may be several tensors."""
