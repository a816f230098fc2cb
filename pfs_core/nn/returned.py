"""What a network returns: a tensor, or several in tuples, lists and mappings."""

from collections.abc import Mapping

from torch import Tensor


def tensors_in(returned: object) -> list[Tensor]:
    """Return the tensors of what a network returns, in order."""
    if isinstance(returned, Tensor):
        return [returned]
    values = (
        returned.values() if isinstance(returned, Mapping) else returned if isinstance(returned, tuple | list) else ()
    )
    return [tensor for value in values for tensor in tensors_in(value)]
