"""The widths that a cut may choose from, because a runtime computes whole blocks of channels.

A vector unit multiplies 4, 8 or 16 channels at once. Of a layer with 20 channels in blocks of 16, two blocks are
computed: 32 channels would take the same time, and 16 only half of it.
"""


def fast_widths(widest: int, block: int, multiple: int = 1) -> list[int]:
    """Return the widths that a group may be cut to, rising.

    They are the multiples of ``block``; halves of a block, halves of these and so on, or else a layer of one block
    could not be cut; and ``widest`` itself if at least half of its last block is used. A block that is hardly used is
    not worth its time.

    Args:
        widest: the width of the group before the cut.
        block: the number of channels that the runtime computes at once; with 1 every width is fast.
        multiple: all widths are multiples of this, unless ``widest`` is less. It takes precedence over the block where
            the two together would leave no narrow width.

    >>> fast_widths(40, 16), fast_widths(20, 16), fast_widths(5, 1)
    ([1, 2, 4, 8, 16, 32, 40], [1, 2, 4, 8, 16], [1, 2, 3, 4, 5])
    >>> fast_widths(18, 8, multiple=3)
    [3, 6, 9, 12, 15, 18]
    """
    halves = [block >> n for n in range(block.bit_length() - 1, 0, -1) if block % (1 << n) == 0]
    fast = [*halves, *range(block, widest + 1, block)]
    found = [width for width in fast if width <= widest and width % multiple == 0]
    if not found or (multiple > 1 and found[0] > widest / 2):
        return list(range(multiple, widest + 1, multiple)) or [widest]
    missing = -widest % block
    if widest % multiple == 0 and 0 < missing <= widest - found[-1]:
        found.append(widest)
    return found
