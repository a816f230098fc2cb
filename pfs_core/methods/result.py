"""What every way of choosing a structure ends with."""

from collections.abc import Mapping, Sequence
from typing import Any, NamedTuple

from torch import Tensor

from pfs_core.structure.inherited_weights import Trained


class Chosen(NamedTuple):
    """What a method found.

    Attributes:
        gates: ``{group: float32 [gates]}`` in [0, 1]; the largest will be kept.
        history: a row an epoch, evaluation or episode; may be empty.
        cost: :func:`pfs_core.runtime.cost.stage_cost` of each of its stages.
        facts: what else it has to say, for ``search.json``.
        trained: the network that it trained, where it did, for fine-tuning.
        pretraining: a row an epoch of the training before it, where there was one.
    """

    gates: Mapping[str, Tensor]
    history: Sequence[Mapping[str, Any]] = ()
    cost: Mapping[str, Mapping[str, Any]] = {}
    facts: Mapping[str, Any] = {}
    trained: Trained | None = None
    pretraining: Sequence[Mapping[str, Any]] = ()
