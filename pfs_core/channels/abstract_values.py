"""What the trace knows of an intermediate value: which of its features are the channels of which group."""

from collections.abc import Iterable
from dataclasses import dataclass, replace
from typing import NamedTuple


class TracedSlice(NamedTuple):
    """A stretch of a tensor's features: the channels of one group, each ``repeat`` times side by side.

    ``gates`` are the layers whose output a masked channel is set to 0 at; ``ungated`` says why there are none
    (a channel masked upstream would not be 0 here).
    """

    group: int
    repeat: int = 1
    gates: frozenset[str] = frozenset()
    ungated: str = ""


@dataclass(frozen=True, slots=True)
class Channels:
    """A tensor whose dimension ``dim`` is made of channels: the parts, one after the other."""

    dim: int
    parts: tuple[TracedSlice, ...]

    def at(self, dim: int) -> "Channels":
        """The same channels on another dimension."""
        return replace(self, dim=dim)

    def repeated(self, times: int) -> "Channels":
        """Each feature ``times`` side by side."""
        return replace(self, parts=tuple(p._replace(repeat=p.repeat * times) for p in self.parts))

    def gated_by(self, gates: Iterable[str]) -> "Channels":
        """These channels behind layers that can set them to 0."""
        return replace(self, parts=tuple(p._replace(gates=frozenset(gates), ungated="") for p in self.parts))

    def lose_gates(self, reason: str) -> "Channels":
        """These channels where a masked one is no longer 0."""
        return replace(self, parts=tuple(p._replace(gates=frozenset(), ungated=reason) for p in self.parts))


@dataclass(frozen=True, slots=True)
class Fixed:
    """A tensor none of whose dimensions can change.

    ``origin`` is the operation that it comes from; ``constant`` if it does not depend on the images.
    """

    origin: str
    reason: str
    constant: bool = False


@dataclass(frozen=True, slots=True)
class Shape:
    """The shape of a tensor of ``dims`` dimensions with channels."""

    of: Channels
    dims: int


@dataclass(frozen=True, slots=True)
class Size:
    """A number that is how many features the parts are."""

    of: Channels


Value = Channels | Fixed | Shape | Size | None
"""None: nothing that follows a width."""
