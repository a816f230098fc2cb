"""Gates that are averaged over several draws of the random weights.

A channel has no identity from one draw to another: channel 7 of a layer has other weights in each. What draws have in
common is the *profile* of a group, its gates in falling order, which says how many channels are worth how much. So the
gates of each group are sorted before they are averaged. Which channels a cut then keeps is immaterial, since the
weights of the cut network are drawn anew: only their number counts.
"""

from collections.abc import Mapping, Sequence
from typing import Any

import torch
from torch import Tensor


def mean_profile(draws: Sequence[Mapping[str, Tensor]]) -> dict[str, Tensor]:
    """Return the gates of each group in falling order, averaged over the draws.

    Args:
        draws: ``{group: float32 [gates]}`` of each draw.

    >>> mean_profile([{"a": torch.tensor([0.0, 1.0, 0.5])}, {"a": torch.tensor([1.0, 0.0, 0.0])}])
    {'a': tensor([1.0000, 0.2500, 0.0000])}
    """
    return {
        group: torch.stack([gates[group].sort(descending=True).values for gates in draws]).mean(0) for group in draws[0]
    }


def row_of_draw(row: Mapping[str, Any], number: int, before: Mapping[str, Any]) -> dict[str, Any]:
    """Return a row of the history with the number of its draw, its epoch and step counted from the first draw on.

    Args:
        row: of a search on one draw.
        number: of the draw, counted from 1.
        before: the last row of the draw before; empty for the first one.
    """
    counted = {key: row[key] + before.get(key, 0) for key in ("epoch", "step")}
    return {"draw": number, **row, **counted}
