"""What the tracer knows of an intermediate value: which of its features are the channels of which group."""

from collections.abc import Iterable
from dataclasses import dataclass, replace
from typing import NamedTuple


class TracedSlice(NamedTuple):
    """A range of a tensor's features: the channels of one group, each ``repeat`` times side by side.

    ``group`` is the number that the tracer gave the group. ``gates`` are the layers that can set a channel of this
    slice to 0 so that it is still 0 here; ``ungated`` says why there are none, and is empty where there are some or
    where there has been no layer yet.
    """

    group: int
    repeat: int = 1
    gates: frozenset[str] = frozenset()
    ungated: str = ""


@dataclass(frozen=True, slots=True)
class Channels:
    """A tensor whose dimension ``dim`` consists of channels: the slices ``parts``, one after the other."""

    dim: int
    parts: tuple[TracedSlice, ...]

    def on_dim(self, dim: int) -> "Channels":
        """Return the same channels on another dimension."""
        return replace(self, dim=dim)

    def repeated(self, times: int) -> "Channels":
        """Return these channels with every feature ``times`` side by side.

        >>> Channels(1, (TracedSlice(0), TracedSlice(1, repeat=2))).repeated(4).parts
        (TracedSlice(group=0, repeat=4, gates=frozenset(), ungated=''), \
TracedSlice(group=1, repeat=8, gates=frozenset(), ungated=''))
        """
        return replace(self, parts=tuple(p._replace(repeat=p.repeat * times) for p in self.parts))

    def gated_by(self, gates: Iterable[str]) -> "Channels":
        """Return these channels as the output of layers that can set them to 0."""
        return replace(self, parts=tuple(p._replace(gates=frozenset(gates), ungated="") for p in self.parts))

    def without_gates(self, reason: str) -> "Channels":
        """Return these channels after an operation that turns the 0 of a masked channel into something else."""
        return replace(self, parts=tuple(p._replace(gates=frozenset(), ungated=reason) for p in self.parts))


@dataclass(frozen=True, slots=True)
class FixedTensor:
    """A tensor none of whose dimensions can change.

    ``origin`` is the operation that it comes from, ``reason`` says why its dimensions are fixed, and ``constant`` is
    set where it does not depend on the images.
    """

    origin: str
    reason: str
    constant: bool = False


@dataclass(frozen=True, slots=True)
class Shape:
    """The shape of a tensor with channels that has ``dims`` dimensions."""

    channels: Channels
    dims: int


@dataclass(frozen=True, slots=True)
class Size:
    """The number of features of the parts of ``channels``, as ``x.size(1)`` gives it."""

    channels: Channels


Value = Channels | FixedTensor | Shape | Size | None
"""A value that may depend on the width of a group; None for one that does not."""
