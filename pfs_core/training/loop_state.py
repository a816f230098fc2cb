"""The position of a training loop, so that a stopped loop resumes at the very next batch."""

from collections.abc import Iterable
from typing import Any

import torch
from torch import Tensor

from pfs_core.errors import UserError
from pfs_core.runtime.distributed import ALONE, Ranks


class LoopState:
    """Epoch, step and batch of a loop, the sums of the epoch so far, and the random generators.

    Attributes:
        epoch: the current epoch, counted from 1.
        step: optimiser steps done.
        images: images that this process has trained on.

    Args:
        device: the device that the loop computes on.
        random: the generator that the order and augmentation of the loop's batches are drawn from.
        ranks: the processes that train together.
    """

    def __init__(self, device: torch.device, random: torch.Generator, ranks: Ranks = ALONE) -> None:
        self._ranks = ranks
        self.epoch = 1
        self.step = 0
        self.images = 0
        self._device = device
        self._random = random
        # An epoch draws its order and every augmentation from the generator. A resumed epoch draws them again from the
        # state at its start, and skips the batches that are done: those that follow are then the same to the bit.
        self._random_at_start = random.get_state()
        self._batches = 0
        self._rows = 0
        self._sums: Tensor | None = None
        self._first_step = 0
        self._finite_steps: Tensor | int = 0
        self._resumes = False

    def begin(self, epoch: int) -> int:
        """Begin an epoch, or resume the one of the checkpoint; returns how many of its batches are done."""
        self.epoch = epoch
        self._first_step, self._finite_steps = self.step, 0
        if self._resumes:
            self._resumes = False
            return self._batches
        self._random_at_start = self._random.get_state()
        self._batches, self._rows, self._sums = 0, 0, None
        return 0

    def add(self, sums: Tensor, rows: int) -> None:
        """Count a batch as done.

        Args:
            sums: float [k] on the device, the sums of the loop's k measures over the images of the batch.
            rows: the images of the batch, in this process.
        """
        self._sums = sums if self._sums is None else self._sums + sums
        # Stays on the device: reading it here would make every step wait for the device. Sums that are not finite once
        # stay so, hence the count ends at the first bad step.
        self._finite_steps = self._finite_steps + self._sums.isfinite().all()
        self._rows += rows
        self._batches += 1
        self.images += rows
        self.step += 1

    def means(self) -> list[float]:
        """Return the means of the loop's measures over the images of the epoch so far, of all processes."""
        assert self._sums is not None
        rows = self._ranks.sum(torch.tensor(self._rows, device=self._device))
        return (self._ranks.sum(self._sums.clone()) / rows).tolist()

    def check(self, tensors: Iterable[Tensor], what: str, advice: str) -> None:
        """Raise an error if the epoch's sums or ``tensors`` are no longer finite.

        This waits for the device: call it before a checkpoint is written and at the end of an epoch, not in every step.

        Args:
            tensors: what the loop has learned.
            what: the name of the loop, for the message.
            advice: what the user could try, for the message.

        Raises:
            UserError: they are not finite. The message names the epoch and the first step whose loss is not finite, or
                the last step if all losses are.
        """
        step = self._first_step + int(self._finite_steps) + 1
        if step > self.step and all(bool(tensor.isfinite().all()) for tensor in tensors):
            return
        where = f"{what} diverged in epoch {self.epoch} at step {min(step, self.step)}"
        raise UserError(
            f"{where}: the loss or what is learned is no longer finite; the same settings would end here again, "
            f"try {advice}"
        )

    def state_dict(self) -> dict[str, Any]:
        """Return the state for a checkpoint; every process must call this, as it gathers the state of all of them.

        Lists in it have one entry per process, by rank.
        """
        assert self._sums is not None
        cuda = self._device.type == "cuda"
        return {
            "epoch": self.epoch,
            "step": self.step,
            "images": self._ranks.all_gather(torch.tensor(self.images)),
            "batches": self._batches,
            "rows": self._ranks.all_gather(torch.tensor(self._rows)),
            "sums": self._ranks.all_gather(self._sums.cpu()),
            "at_start": self._random_at_start,
            "rng": self._ranks.all_gather(torch.get_rng_state()),
            "cuda_rng": self._ranks.all_gather(torch.cuda.get_rng_state(self._device)) if cuda else None,
        }

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """Resume from the result of :meth:`state_dict`, be it of as many processes, of more or of fewer.

        Images in memory go on in the same order; those that are streamed have another one for another number.
        """
        self.epoch, self.step = state["epoch"], state["step"]
        rank = self._ranks.rank
        # The entries of the old processes are dealt out to the new ones, so that the sums over all processes stay.
        mine = slice(rank, None, self._ranks.world)
        self._batches, self._rows = state["batches"], int(sum(state["rows"][mine]))
        self.images = int(sum(state["images"][mine]))
        self._sums = sum(state["sums"][mine], torch.zeros_like(state["sums"][0])).to(self._device)
        self._random.set_state(state["at_start"])
        self._random_at_start = state["at_start"]
        self._resumes = True
        torch.set_rng_state(state["rng"][rank % len(state["rng"])])
        if state["cuda_rng"] is not None:
            torch.cuda.set_rng_state(state["cuda_rng"][rank % len(state["cuda_rng"])], self._device)
