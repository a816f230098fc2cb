"""The result of a method."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from torch import Tensor

from pfs_core.runtime.cost import StageCost
from pfs_core.structure.inherited_weights import Trained


@dataclass(frozen=True)
class MethodResult:
    """The gates that a method chose, and a record of how it did so.

    Attributes:
        gates: ``{group: float32 [gates]}`` in [0, 1]; extraction keeps the channels with the largest gates.
        history: one row per epoch, evaluation or episode; empty for methods that compute nothing.
        cost: ``{stage: cost}``, each as :func:`pfs_core.runtime.cost.stage_cost` returns it.
        facts: further entries of ``search.json``, such as the validation accuracy.
        trained: the network that the method trained, for fine-tuning; None if it trained none.
        pretraining: one row per epoch of a training that preceded the search; empty if there was none.
    """

    gates: Mapping[str, Tensor]
    history: Sequence[Mapping[str, Any]] = ()
    cost: Mapping[str, StageCost] = field(default_factory=dict)
    facts: Mapping[str, Any] = field(default_factory=dict)
    trained: Trained | None = None
    pretraining: Sequence[Mapping[str, Any]] = ()
