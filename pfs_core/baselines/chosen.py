"""What the methods that a search is compared with have in common."""

from collections.abc import Mapping, Sequence
from typing import Any, NamedTuple

from torch import Tensor

from pfs_core.kept_weights import Trained


class Chosen(NamedTuple):
    """What a method found.

    Attributes:
        gates: ``{group: float32 [gates]}`` in [0, 1]; the largest will be kept.
        history: a row an epoch or episode.
        cost: :func:`pfs_core.spent.stage_cost` of each of its stages.
        facts: what else it has to say.
        trained: the network that it trained, where it did.
    """

    gates: Mapping[str, Tensor]
    history: Sequence[Mapping[str, Any]] = ()
    cost: Mapping[str, Mapping[str, Any]] = {}
    facts: Mapping[str, Any] = {}
    trained: Trained | None = None
