"""Groups of channels that turn out to be the same, or to be blocks of one another, or to have a border within.

A tensor's channels are a row of slices of groups. Where two rows meet, in an addition for example, their groups become
one, slice by slice.
"""

import functools
import math
from collections.abc import Collection, Iterable

from pfs_core.channels.abstract_values import TracedSlice

Parts = tuple[TracedSlice, ...]


class GroupDraft:
    """A group under construction; ``frozen``, ``stream`` and ``ungated`` are reasons, empty where they do not apply."""

    def __init__(self, name: str, width: int) -> None:
        self.name = name
        self.width = width
        self.blocks = 1
        self.unit = 1
        self.gates: set[str] = set()
        self.frozen = ""
        self.stream = ""
        self.ungated = ""


class Groups:
    """The groups found so far, each named by a number.

    Groups that are merged, gathered or taken apart keep their number, which then stands for a row of slices of others:
    a union-find forest.

    Args:
        taken: names that a group of no layer must not have.
    """

    def __init__(self, taken: Collection[str]) -> None:
        self._drafts: list[GroupDraft] = []
        self._parent: list[Parts] = []
        self._group_of_key: dict[str, int] = {}
        self._taken = taken

    def features(self, parts: Iterable[TracedSlice]) -> int:
        """Return the number of features that the parts have together."""
        return sum(map(self._size, self._resolved(parts)))

    def is_one_channel(self, parts: Parts) -> bool:
        """Return whether the parts are one channel, several times: as a map that is repeated for all channels."""
        resolved = self._resolved(parts)
        places = {(part.group, part.block, part.blocks) for part in resolved}
        return len(resolved) > 1 == len(places) and self._size(resolved[0]) == resolved[0].repeat

    def unify(self, a: Parts, b: Parts, mismatch: str, stream: str = "") -> bool:
        """Merge the groups of ``a`` and ``b`` pairwise, and return whether that was possible.

        A group that meets several, one after the other, is taken apart at their borders, and the channels of one that
        meets channels of several features each are gathered. Where that is not possible, everything in both is frozen.

        Args:
            a: the parts of one tensor.
            b: the parts of another one with as many features.
            mismatch: the reason to freeze them for.
            stream: the addition that makes the groups a residual stream, if it is one.
        """
        left, right = list(self._resolved(a)), list(self._resolved(b))
        if self.is_one_channel(a) != self.is_one_channel(b):  # it would make one channel of all that it meets
            self.freeze((*a, *b), mismatch)
            return False
        while left and right:
            one, other = self._size(left[0]), self._size(right[0])
            if left[0].repeat != right[0].repeat:
                if not self._gather_as(left[0], right[0]):
                    break
            elif one != other:
                row = left if one > other else right
                if not self._take_apart(row[0], min(one, other) // row[0].repeat):
                    break
            elif self._merge(left.pop(0), right.pop(0), mismatch, stream):
                pass
            else:
                return False
            left, right = list(self._resolved(left)), list(self._resolved(right))
        if left or right:
            self.freeze((*a, *b), mismatch)
            return False
        return True

    def matched(self, a: Parts, b: Parts) -> tuple[Parts, Parts]:
        """Return two rows of parts that have been unified slice by slice."""
        return self._resolved(a), self._resolved(b)

    def require_multiple(self, parts: Parts, groups: int) -> bool:
        """Keep the width a multiple of ``groups``, and return whether it is one now.

        The channels at the same place of every group then come and go together.
        """
        parts = self._resolved(parts)
        return len(parts) == 1 and parts[0].repeat == 1 and self._divide(parts[0], groups)

    def keep_together(self, parts: Parts, size: int) -> bool:
        """Let every ``size`` neighbouring features come and go together, and return whether that is possible."""
        resolved = self._resolved(parts)
        if any(self._size(part) % size or (part.repeat % size and size % part.repeat) for part in resolved):
            return False
        return all(self._bundle(self._drafts[part.group], max(size // part.repeat, 1)) for part in resolved)

    def gathered(self, parts: Parts, times: int) -> Parts | None:
        """Return parts of which every ``times`` neighbouring features are of one channel; None where that cannot be."""
        while narrow := next((part for part in self._resolved(parts) if part.repeat % times), None):
            if times % narrow.repeat or not self._gather(narrow, times // narrow.repeat):
                return None
        return self._resolved(parts)

    def block_of(self, parts: Parts, start: int, stop: int) -> Parts | None:
        """Return the features ``start`` to ``stop`` of the parts; None where they are not whole blocks of channels.

        Where they end within a group, the group is divided into equal blocks, which have to stay equally wide.
        """
        found: list[TracedSlice] = []
        at = 0
        for part in self._resolved(parts):
            size = self._size(part)
            begin, end = max(start - at, 0), min(stop - at, size)
            at += size
            if begin >= end:
                continue
            if (begin, end) == (0, size):
                found.append(part)
                continue
            unit = math.gcd(begin, end, size)
            count = size // unit
            if unit % part.repeat or unit == part.repeat or not self._divide(part, count):
                return None
            found += [
                part._replace(block=part.block * count + i, blocks=part.blocks * count)
                for i in range(begin // unit, end // unit)
            ]
        return self.joined(tuple(found))

    def blocks_at_once(self, parts: Parts, count: int, where: str) -> Parts | None:
        """Return the channels of ``count`` equal blocks as those of one, None where the parts are not such blocks.

        Each place of the result stands for that place in every block, so all gates of the blocks have to mask it. Where
        the blocks have other borders, they are frozen, with a reason that says ``where``.
        """
        size = self.features(parts) // count
        blocks = [self.block_of(parts, i * size, (i + 1) * size) for i in range(count)]
        out = blocks[0]
        for block in blocks[1:]:
            if out is None or block is None or not self.unify(out, block, f"{where} joins blocks with other borders"):
                return None
            out = tuple(map(zero_in_both, *self.matched(out, block)))
        return out

    def joined(self, parts: Parts) -> Parts:
        """Return the parts with all blocks of a group, one after the other, as the whole group."""
        out: list[TracedSlice] = []
        for part in parts:
            out.append(part)
            count = part.blocks
            tail = out[-count:]
            every = [(part.group, part.repeat, block, count) for block in range(count)]
            if count > 1 and [(p.group, p.repeat, p.block, p.blocks) for p in tail] == every:
                whole = functools.reduce(zero_in_both, tail)
                out[-count:] = [whole._replace(block=0, blocks=1)]
        return tuple(out)

    def freeze(self, parts: Iterable[TracedSlice], reason: str) -> None:
        """Forbid any other width of the groups; the first reason given is the one that users see."""
        for part in self._resolved(parts):
            draft = self._drafts[part.group]
            draft.frozen = draft.frozen or reason

    def forbid_gating(self, parts: Iterable[TracedSlice], reason: str) -> None:
        """Forbid pruning the groups: a channel that is removed is not like one that is set to 0, wherever it is set."""
        for part in self._resolved(parts):
            draft = self._drafts[part.group]
            draft.ungated = draft.ungated or reason

    def _group_for(self, key: str, name: str, width: int) -> int:
        """Return the group that was made for ``key``; where there is none, make one called ``name``."""
        if key not in self._group_of_key:
            taken = {draft.name for draft in self._drafts}
            if key != name and name in self._taken:  # a group of no layer must not be called like one
                name = f"<{name}>"
            while name in taken:
                name += "'"
            self._group_of_key[key] = self._new_group(name, width)
        return self._group_of_key[key]

    def _new_group(self, name: str, width: int) -> int:
        self._drafts.append(GroupDraft(name, width))
        self._parent.append(())
        return len(self._parent) - 1

    def _size(self, part: TracedSlice) -> int:
        """Return the number of features of a resolved slice."""
        return part.repeat * self._drafts[part.group].width // part.blocks

    def _divide(self, part: TracedSlice, count: int) -> bool:
        """Divide the channels of a resolved slice into equal blocks, and return whether that is possible."""
        draft = self._drafts[part.group]
        blocks = math.lcm(draft.blocks, part.blocks * count)
        if draft.width % (blocks * draft.unit):
            return False
        draft.blocks = blocks
        return True

    def _bundle(self, draft: GroupDraft, size: int) -> bool:
        """Let every ``size`` neighbouring channels of a group have one gate, and return whether that is possible."""
        unit = math.lcm(draft.unit, size)
        if draft.width % (draft.blocks * unit):
            return False
        draft.unit = unit
        return True

    def _take_apart(self, part: TracedSlice, width: int) -> bool:
        """Make a group two groups, the first of ``width`` channels, and return whether that is possible."""
        draft = self._drafts[part.group]
        if draft.blocks > 1 or width % draft.unit or (draft.width - width) % draft.unit:
            return False
        sizes = ((draft.name, width), (f"{draft.name}[{width}:]", draft.width - width))
        self._parent[part.group] = tuple(TracedSlice(self._new_like(draft, *size)) for size in sizes)
        return True

    def _gather_as(self, a: TracedSlice, b: TracedSlice) -> bool:
        """Gather the channels of one of two resolved slices so that both have channels of equally many features."""
        less, more = sorted((a, b), key=lambda part: part.repeat)
        times, rest = divmod(more.repeat, less.repeat)
        return a.group != b.group and not rest and self._gather(less, times)

    def _gather(self, part: TracedSlice, times: int) -> bool:
        """Make every ``times`` neighbouring channels of a group one channel, and return whether that is possible."""
        draft = self._drafts[part.group]
        if draft.width % (math.lcm(draft.blocks, part.blocks) * times) or (draft.unit % times and times % draft.unit):
            return False
        number = self._new_like(draft, draft.name, draft.width // times)
        self._drafts[number].blocks = draft.blocks
        self._drafts[number].unit = max(draft.unit // times, 1)
        self._parent[part.group] = (TracedSlice(number, repeat=times),)
        return True

    def _new_like(self, draft: GroupDraft, name: str, width: int) -> int:
        """Return a new group that takes the place of another one, or of some of its channels."""
        number = self._new_group(name, width)
        new = self._drafts[number]
        new.unit = draft.unit
        new.gates |= draft.gates
        new.frozen, new.stream, new.ungated = draft.frozen, draft.stream, draft.ungated
        return number

    def _merge(self, a: TracedSlice, b: TracedSlice, mismatch: str, stream: str) -> bool:
        """Make the groups of two resolved slices of equal width one, with the restrictions of both.

        It has the name of the earlier group. A group that is as wide as a block of the other becomes a block of it: all
        blocks keep the channels at the same places, so that it does not matter which.

        Returns:
            Whether they are one now; if not, both are frozen.
        """
        a, b = sorted((a, b))
        kept, other = self._drafts[a.group], self._drafts[b.group]
        if a.group != b.group and kept.width < other.width:
            a, b, kept, other = b, a, other, kept
        if a.group == b.group:
            if a.blocks == b.blocks:  # two blocks are as wide as each other, and have the same gates
                return True
            self.freeze((a,), mismatch)
            return False
        kept.stream = kept.stream or other.stream or stream
        times, rest = divmod(kept.width, other.width)
        if rest or a.blocks != b.blocks * times:
            self.freeze((a, b), mismatch)
            return False
        if not self._bundle(kept, other.unit) or not self._divide(TracedSlice(a.group), times * other.blocks):
            blocks, unit = math.lcm(kept.blocks, times * other.blocks), math.lcm(kept.unit, other.unit)
            what = "grouped convolutions" if unit == 1 else "grouped convolutions and norms"
            self.freeze((a, b), f"its {what} need a multiple of {blocks * unit} channels")
            if times > 1:
                return False
            kept.blocks = kept.unit = 1
        self._parent[b.group] = (TracedSlice(a.group, blocks=times),)
        kept.gates |= other.gates
        kept.frozen = kept.frozen or other.frozen
        kept.ungated = kept.ungated or other.ungated
        return True

    def _resolved(self, parts: Iterable[TracedSlice]) -> Parts:
        """Return slices as those of the groups that their groups have been merged into, or taken apart into."""
        out: list[TracedSlice] = []
        for part in parts:
            parents = self._parent[part.group]
            if not parents:
                out.append(part)
            for parent in parents:
                block = parent.block * part.blocks + part.block
                moved = part._replace(
                    group=parent.group,
                    repeat=part.repeat * parent.repeat,
                    block=block,
                    blocks=parent.blocks * part.blocks,
                )
                out += self._resolved((moved,))
        return tuple(out)


def zero_in_both(a: TracedSlice, b: TracedSlice) -> TracedSlice:
    """Return the slice of a sum, which is 0 where both terms are: all gates of both have to mask a channel."""
    ungated = a.ungated or b.ungated
    gates = (a.gates or a.spare) | (b.gates or b.spare)
    if not ungated:
        return a._replace(gates=gates)
    reachable = all(part.spare or not part.ungated for part in (a, b))
    return a._replace(gates=frozenset(), ungated=ungated, spare=gates if reachable else frozenset())


def zero_in_one(a: TracedSlice, b: TracedSlice) -> TracedSlice:
    """Return the slice of a product, which is 0 where one of the factors is: the first that has a gate gates it."""
    if not a.ungated or (b.ungated and not b.spare):
        return a
    return b if not b.ungated or not a.spare else a
