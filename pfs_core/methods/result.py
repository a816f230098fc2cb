"""The result of a method."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from torch import Tensor

from pfs_core.structure.inherited_weights import Trained


@dataclass(frozen=True)
class MethodResult:
    """What a method found.

    Attributes:
        gates: ``{group: float32 [gates]}`` in [0, 1]; the largest will be kept.
        history: one row per epoch, evaluation or episode; may be empty.
        cost: :func:`pfs_core.runtime.cost.stage_cost` of each of its stages.
        facts: what else it has to say, for ``search.json``.
        trained: the network that it trained, where it did, for fine-tuning.
        pretraining: one row per epoch of the training before it, where there was one.
    """

    gates: Mapping[str, Tensor]
    history: Sequence[Mapping[str, Any]] = ()
    cost: Mapping[str, Mapping[str, Any]] = field(default_factory=dict)
    facts: Mapping[str, Any] = field(default_factory=dict)
    trained: Trained | None = None
    pretraining: Sequence[Mapping[str, Any]] = ()
