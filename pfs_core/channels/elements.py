"""What a channel graph is made of: channels, the sides of layers that span them, groups, and summands of the cost.

One multiply-accumulate of a convolution or linear layer is one MAC; what other operations compute is counted only
where PyTorch's own counter counts it (matrix products of attention).
"""

import math
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass
from fractions import Fraction
from typing import Literal, NamedTuple

from torch import Tensor

Role = Literal["writes", "reads", "depthwise", "norm", "scale", "gate"]


class Cost(NamedTuple):
    """The MACs of one image's forward pass, and the number of parameters."""

    macs: int
    params: int


class ChannelSlice(NamedTuple):
    """A range of a tensor's features: the channels of ``group``, each ``repeat`` times side by side.

    ``repeat`` is the number of pixels behind a flatten, and the multiplier behind a depthwise convolution. Where the
    network divides the group's channels into ``blocks`` equal blocks, the slice may be block number ``block`` alone.
    """

    group: str
    repeat: int = 1
    block: int = 0
    blocks: int = 1


class AxisTensor(NamedTuple):
    """Dimension ``dim`` of the parameter or buffer ``name``, on which the channels of an axis are.

    Dimension 1 of a grouped convolution's weight, [C', C / groups, ...], spans only one of its groups: ``shares`` is
    their number.
    """

    name: str
    dim: int
    shares: int = 1


@dataclass(frozen=True, slots=True)
class Axis:
    """One side of a layer, and the channels that it spans: behind a concatenation, several groups in a row.

    The role ``writes`` stands for the layer's outputs, ``reads`` for its inputs, ``depthwise`` for the inputs that a
    depthwise convolution keeps apart, ``norm`` for a normalisation, ``scale`` for other parameters of one value per
    channel, and ``gate`` for the output of a module that has none but can be multiplied by gates. A parameter that
    belongs to no layer is named by its own path.

    ``tensors`` are the parameters and buffers that have the channels on one of their dimensions; ``trailing`` is the
    number of dimensions behind the channels in the layer's output.
    """

    module: str
    role: Role
    segments: tuple[ChannelSlice, ...]
    tensors: tuple[AxisTensor, ...] = ()
    trailing: int = 0

    def slices(self, widths: Mapping[str, int]) -> Iterator[tuple[ChannelSlice, slice]]:
        """Yield every segment with the range of the features that it spans at ``widths``.

        >>> axis = Axis("fc", "reads", (ChannelSlice("conv1"), ChannelSlice("conv2", repeat=4)))
        >>> [place for _, place in axis.slices({"conv1": 3, "conv2": 5})]
        [slice(0, 3, None), slice(3, 23, None)]
        """
        start = 0
        for segment in self.segments:
            stop = start + features([segment], widths)
            yield segment, slice(start, stop)
            start = stop


class Sizes(NamedTuple):
    """An attribute of a module in which its code has widths as numbers, such as those that it splits a tensor into.

    ``rows`` are the channels of each number, none where it is no width; an attribute that is a single number has one
    row. ``unit`` is how many channels count as one in the number: those that are normalised at once, where it is the
    number of a GroupNorm's groups, and a half where the code takes half of the number.
    """

    module: str
    attribute: str
    rows: tuple[tuple[ChannelSlice, ...], ...]
    unit: Fraction = Fraction(1)


@dataclass(frozen=True, slots=True)
class ChannelGroup:
    """Channels that must stay equally wide wherever they appear.

    Attributes:
        name: the first layer that writes the channels.
        width: the number of channels as traced.
        prunable: whether channels may be removed.
        resizable: whether the width may change at all.
        stream: whether it is a residual stream: joined by an addition, or named in the network's ``stream_layers``.
        reason: why the group is not prunable; empty if it is.
        blocks: the number of equal blocks that the width is divided in. Where a grouped convolution has G groups, the
            channels at the same place of each group come and go together, so that G channels have one gate.
        gates: the layers whose output is multiplied by the gate: the last ones before the channels are mixed.
            A channel that is 0 behind all of them has the same effect as a channel that is absent.
        widens: whether it may have more channels than traced.
        rectified: whether only rectifiers read what the gates let through. A gate that is 0 then has no gradient, since
            the derivative of ReLU at 0 is 0.
        unit: the number of neighbouring channels that come and go together: those that a GroupNorm normalises at once,
            since a channel that is absent changes what it does to the others.
    """

    name: str
    width: int
    prunable: bool
    resizable: bool
    stream: bool
    reason: str
    blocks: int
    gates: tuple[str, ...]
    rectified: bool = False
    widens: bool = True
    unit: int = 1

    @property
    def per_gate(self) -> int:
        """The number of channels that have one gate, of which the width is a multiple."""
        return self.blocks * self.unit

    @property
    def gate_count(self) -> int:
        """The number of gates of the group: its width, except at grouped convolutions and GroupNorms."""
        return self.width // self.per_gate

    def by_channel(self, gates: Tensor, blocks: int = 1) -> Tensor:
        """Return a value for each channel of the group, or of one of so many ``blocks`` of it.

        Args:
            gates: the value of each gate, [gates].
            blocks: the number of equal blocks of which the channels are one.
        """
        values = gates if self.unit == 1 else gates.repeat_interleave(self.unit)
        times = self.blocks // blocks
        return values if times == 1 else values.repeat(times)


@dataclass(frozen=True, slots=True)
class Term:
    """One summand of the cost: coefficients times the width of every span, divided by a convolution's ``groups``.

    A convolution, for example, has the spans (input channels, output channels), pixels x kernel as ``macs`` and the
    size of the kernel as ``params``.
    """

    module: str
    spans: tuple[tuple[ChannelSlice, ...], ...]
    macs: int
    params: int
    groups: int = 1

    def factor(self, widths: Mapping[str, int]) -> int:
        """Return what ``macs`` and ``params`` are multiplied by at ``widths``."""
        return math.prod(features(span, widths) for span in self.spans) // self.groups


def features(segments: Iterable[ChannelSlice], widths: Mapping[str, int]) -> int:
    """Return the number of features of the segments at ``widths``.

    >>> features([ChannelSlice("conv1"), ChannelSlice("conv2", repeat=4)], {"conv1": 3, "conv2": 5})
    23
    """
    return sum(s.repeat * widths[s.group] // s.blocks for s in segments)


class Branch(NamedTuple):
    """The ``f`` of an addition ``x + f(x)``, which the network can do without. It is left out where its width is 0.

    Attributes:
        name: the module that returns ``f(x)``.
        groups: the prunable groups in it; where one of them has the width 0, all of them have.
        modules: the modules that compute it, none of them within another.
        entries: those that read ``x``.
        layers: the layers in it that cost something, as the terms of the cost name them.
        params: the number of parameters in it that no term counts.
    """

    name: str
    groups: tuple[str, ...]
    modules: tuple[str, ...]
    entries: tuple[str, ...]
    layers: tuple[str, ...]
    params: int
