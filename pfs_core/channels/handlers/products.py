"""What products of two tensors do to channels: matrix products, einsum, attention. All are read as an einsum.

A dimension that both factors have and the result lacks is summed over. Channels on such a dimension are mixed there,
and have to be as many in both factors; channels on a dimension that stays are as wide as they were, and a channel that
is 0 is still 0, whatever the pixels that the product sums over are weighted by.
"""

import math
import string
from collections.abc import Sequence
from typing import Any, NamedTuple

from torch import fx

from pfs_core.channels.abstract_values import Channels, FixedTensor, Value
from pfs_core.channels.groups import Parts, zero_in_one
from pfs_core.channels.handlers.elementwise import along
from pfs_core.channels.handlers.layers import Handler, matrix_product
from pfs_core.channels.nodes import argument, first, joint, modules_around, operation, place, shape_of
from pfs_core.channels.tracer import ChannelTracer


class Factor(NamedTuple):
    """One of two tensors that are multiplied: what is known of it, its shape, and a letter for each dimension."""

    value: Value
    shape: tuple[int, ...]
    letters: str


def contract(tracer: ChannelTracer, node: fx.Node, factors: Sequence[Factor], output: str) -> Any:
    """Return what is known of the product of two tensors, of which the result has the dimensions ``output``."""
    followed = _followed(tracer, node, factors, output)
    if followed is None:
        return NotImplemented
    letters, parts = followed
    _count(tracer, node, factors, output, parts)
    if set(letters) <= set(output):
        outer = output.index(letters[0]) if len(letters) > 1 else None
        return Channels(output.index(letters[-1]), parts, outer)
    # An einsum over a single channel is no matrix product for PyTorch, whose counter then counts nothing.
    single = operation(node) == "einsum" and _summed(factors, output) <= set(letters)
    if letters[-1] in output or (single and not tracer.keep_together(parts, 2)):
        return NotImplemented
    tracer.mix(parts)
    return FixedTensor(node.name, f"is the {operation(node)} of channels")


def _followed(tracer: ChannelTracer, node: fx.Node, factors: Sequence[Factor], output: str) -> tuple[str, Parts] | None:
    """Return the channels of a product and the letters of their dimensions; None where they cannot be followed.

    Where both factors have channels, these are the same ones, and 0 where one of the factors is.
    """
    rows = [(factor.value, factor) for factor in factors if isinstance(factor.value, Channels)]
    if len({_letters(x, factor) for x, factor in rows}) > 1:
        rows = _without_single(tracer, node, rows)
    if not rows:
        return None
    (x, one), *rest = rows
    letters = _letters(x, one)
    for y, other in rest:
        if letters != _letters(y, other) or _sizes(one, letters) != _sizes(other, letters):
            return None
        if tracer.unify(x.parts, y.parts, f"{joint(node)} multiplies channels with other borders"):
            return letters, tuple(map(zero_in_one, *tracer.matched(x.parts, y.parts)))
    if not rest:
        other = next(factor for factor in factors if factor is not one)
        if letters[-1] in other.letters or not set(letters) <= set(output):
            return None
        tracer.compute_with(node, other.value)
    return letters, x.parts


def _without_single(
    tracer: ChannelTracer, node: fx.Node, rows: Sequence[tuple[Channels, Factor]]
) -> list[tuple[Channels, Factor]]:
    """Return the factors but those of a single channel, which is spread over what the other one has and stays."""
    many = []
    for x, factor in rows:
        if tracer.features(x.parts) == 1:
            tracer.freeze(x.parts, f"{joint(node)} spreads it over all channels")
        else:
            many.append((x, factor))
    return many


def _letters(x: Channels, factor: Factor) -> str:
    """Return the letters of the dimensions that channels are on, that of their blocks first if there are some."""
    dims = [x.dim] if x.outer is None else [x.outer, x.dim]
    return "".join(factor.letters[dim] for dim in dims)


def _sizes(factor: Factor, letters: str) -> list[int]:
    return [factor.shape[factor.letters.index(letter)] for letter in letters]


def _summed(factors: Sequence[Factor], output: str) -> set[str]:
    return (set(factors[0].letters) & set(factors[1].letters)) - set(output)


def _count(tracer: ChannelTracer, node: fx.Node, factors: Sequence[Factor], output: str, parts: Parts) -> None:
    """Count the MACs of a product, which PyTorch's counter counts where it is a sum."""
    sizes: dict[str, int] = {}
    for factor in factors:
        for letter, size in zip(factor.letters, factor.shape, strict=True):
            sizes[letter] = max(size, sizes.get(letter, 1))
    if not (summed := _summed(factors, output)):
        return
    module = next(iter(modules_around(node)), "")
    name = f"{module}.<{node.name}>" if module else f"<{node.name}>"
    macs = math.prod(size for letter, size in sizes.items() if letter in summed or letter in output)
    tracer.add_macs(name, (parts,), macs // tracer.features(parts))


def product(tracer: ChannelTracer, node: fx.Node) -> Any:
    """Handle a matrix product: of channels with weights it is a linear layer."""
    value = matrix_product(tracer, node)
    if value is not NotImplemented:
        return value
    left, right = first(node), argument(node, "other", "mat2")
    batch = string.ascii_lowercase[: max(len(shape_of(left)), len(shape_of(right))) - 2]
    return contract(
        tracer, node, [_factor(tracer, left, f"{batch}MK"), _factor(tracer, right, f"{batch}KN")], f"{batch}MN"
    )


def added_product(tracer: ChannelTracer, node: fx.Node) -> Any:
    """Handle ``baddbmm``, a matrix product to which another tensor is added: one of zeros, or of no channels."""
    added = first(node)
    factors = [_factor(tracer, argument(node, "batch1"), "bMK"), _factor(tracer, argument(node, "batch2"), "bKN")]
    value = NotImplemented if tracer.channels(added) is not None else contract(tracer, node, factors, "bMN")
    if not isinstance(value, Channels) or tracer.number(added) == 0:
        return value
    if not along(tracer, node, value, added):
        return NotImplemented
    return value.without_gates(f"{operation(node)} adds another tensor ({place(node)})")


def einsum(tracer: ChannelTracer, node: fx.Node) -> Any:
    """Handle an einsum of two tensors, each of whose dimensions has a letter of its own."""
    tensors = argument(node, "tensors")
    inputs, arrow, output = argument(node, "equation").replace(" ", "").partition("->")
    names = inputs.split(",")
    if not arrow or len(tensors) != 2 or "." in inputs or any(len(set(one)) < len(one) for one in names):
        return NotImplemented
    factors = [_factor(tracer, tensor, letters) for tensor, letters in zip(tensors, names, strict=True)]
    return contract(tracer, node, factors, output)


def attention(tracer: ChannelTracer, node: fx.Node) -> Any:
    """Handle ``scaled_dot_product_attention``: the product of query and key, its softmax, and that times the value.

    Without a scale that is a number, the product is divided by the root of the width of the query.
    """
    query, key, value = (argument(node, name) for name in ("query", "key", "value"))
    batch = string.ascii_lowercase[: len(shape_of(query)) - 2]
    if tracer.channels(argument(node, "attn_mask")) is not None or argument(node, "enable_gqa"):
        return NotImplemented
    factors = [_factor(tracer, query, f"{batch}MK"), _factor(tracer, key, f"{batch}NK")]
    weights: Any = tracer.value(query)
    if any(isinstance(factor.value, Channels) for factor in factors):
        weights = contract(tracer, node, factors, f"{batch}MN")
        if not isinstance(weights, FixedTensor):
            return NotImplemented
        if argument(node, "scale") is None:
            for factor in factors:
                tracer.forbid_gating(factor.value.parts, f"{operation(node)} divides by its width ({place(node)})")  # type: ignore[union-attr]
    shape = (*shape_of(query)[:-1], shape_of(key)[-2])
    if tracer.channels(value) is None:
        return weights
    return contract(
        tracer, node, [Factor(weights, shape, f"{batch}MN"), _factor(tracer, value, f"{batch}NE")], f"{batch}ME"
    )


def _factor(tracer: ChannelTracer, node: Any, letters: str) -> Factor:
    """Return a tensor as a factor; with fewer dimensions than ``letters`` it is broadcast along the first ones."""
    shape = shape_of(node)
    return Factor(tracer.value(node), shape, letters[len(letters) - len(shape) :])


PRODUCTS: dict[str, Handler] = {
    **dict.fromkeys(("matmul", "mm", "bmm"), product),
    "baddbmm": added_product,
    "einsum": einsum,
    "scaled_dot_product_attention": attention,
}
"""The handler of every operator that multiplies two tensors and sums."""
