"""How far a training loop has come, so that it can go on at the very step where it was stopped."""

from collections.abc import Iterable
from typing import Any

import torch
from torch import Tensor

from pfs_core.errors import UserError
from pfs_core.runtime.distributed import ALONE, Ranks


class LoopState:
    """Epoch, step and batch of a loop, the sums of its epoch, and the random generators.

    Attributes:
        epoch: the epoch that is to be done, or goes on, from 1.
        step: optimiser steps done.
        images: that they were computed from.

    Args:
        device: where the loop computes.
        random: the generator of the loop's batches.
        ranks: the processes that train together.
    """

    def __init__(self, device: torch.device, random: torch.Generator, ranks: Ranks = ALONE) -> None:
        self._ranks = ranks
        self.epoch = 1
        self.step = 0
        self.images = 0
        self._device = device
        self._random = random
        self._at_start = random.get_state()
        self._batches = 0
        self._rows = 0
        self._sums: Tensor | None = None
        self._from_step = 0
        self._finite_steps: Tensor | int = 0
        self._went_on = False

    def begin(self, epoch: int) -> int:
        """Start an epoch, or go on with one; returns how many of its batches are done."""
        self.epoch = epoch
        self._from_step, self._finite_steps = self.step, 0
        if self._went_on:
            self._went_on = False
            return self._batches
        self._at_start = self._random.get_state()
        self._batches, self._rows, self._sums = 0, 0, None
        return 0

    def add(self, sums: Tensor, rows: int) -> None:
        """A batch is done: add ``sums`` and ``rows`` to the epoch's."""
        self._sums = sums if self._sums is None else self._sums + sums
        self._finite_steps = self._finite_steps + self._sums.isfinite().all()
        self._rows += rows
        self._batches += 1
        self.images += rows
        self.step += 1

    def means(self) -> list[float]:
        """The epoch's sums, divided by its rows, over all processes."""
        assert self._sums is not None
        rows = self._ranks.sum(torch.tensor(self._rows, device=self._device))
        return (self._ranks.sum(self._sums.clone()) / rows).tolist()

    def check(self, tensors: Iterable[Tensor], what: str, advice: str) -> None:
        """Stop where the epoch's sums or these tensors are no longer finite.

        This waits for the device: call it before a checkpoint is written and when an epoch is done, not every step.

        Args:
            tensors: what the loop has learned.
            what: the name of the loop.
            advice: what to try.

        Raises:
            UserError: it names the epoch and the first step whose loss is not finite, or else the last step.
        """
        step = self._from_step + int(self._finite_steps) + 1
        if step > self.step and all(bool(tensor.isfinite().all()) for tensor in tensors):
            return
        where = f"{what} diverged in epoch {self.epoch} at step {min(step, self.step)}"
        raise UserError(
            f"{where}: loss or weights are no longer finite; the same settings would end here again, try {advice}"
        )

    def state_dict(self) -> dict[str, Any]:
        """Everything, for a checkpoint; sums, rows and torch's global generators by process."""
        assert self._sums is not None
        cuda = self._device.type == "cuda"
        return {
            "epoch": self.epoch,
            "step": self.step,
            "images": self._ranks.all_gather(torch.tensor(self.images)),
            "batches": self._batches,
            "rows": self._ranks.all_gather(torch.tensor(self._rows)),
            "sums": self._ranks.all_gather(self._sums.cpu()),
            "at_start": self._at_start,
            "rng": self._ranks.all_gather(torch.get_rng_state()),
            "cuda_rng": self._ranks.all_gather(torch.cuda.get_rng_state(self._device)) if cuda else None,
        }

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """Go on from :meth:`state_dict`, with as many processes or others."""
        self.epoch, self.step = state["epoch"], state["step"]
        rank = self._ranks.rank
        mine = slice(rank, None, self._ranks.world)
        self._batches, self._rows = state["batches"], int(sum(state["rows"][mine]))
        self.images = int(sum(state["images"][mine]))
        self._sums = sum(state["sums"][mine], torch.zeros_like(state["sums"][0])).to(self._device)
        self._random.set_state(state["at_start"])
        self._at_start = state["at_start"]
        self._went_on = True
        torch.set_rng_state(state["rng"][rank % len(state["rng"])])
        if state["cuda_rng"] is not None:
            torch.cuda.set_rng_state(state["cuda_rng"][rank % len(state["cuda_rng"])], self._device)
