"""Training by several processes, as ``torchrun`` starts them."""

import contextlib
import os
from collections.abc import Iterable, Iterator

import torch
import torch.distributed as dist
from torch import Tensor


class Ranks:
    """The processes that train together; one alone, unless torchrun's environment says otherwise.

    Attributes:
        rank: which one this is. Process 0 writes, logs and prints.
        world: how many there are.

    Args:
        device: where this process computes.
    """

    def __init__(self, rank: int, world: int, device: torch.device) -> None:
        self.rank, self.world, self._device = rank, world, device

    def any(self, flag: bool) -> bool:
        """Whether ``flag`` is set in any process."""
        return bool(self.sum(torch.tensor(int(flag), device=self._device))) if self.world > 1 else flag

    def sum(self, values: Tensor) -> Tensor:
        """The sum over the processes, element by element, in place."""
        if self.world > 1:
            dist.all_reduce(values)
        return values

    def all_gather(self, values: Tensor) -> list[Tensor]:
        """A tensor on the CPU of every process, by rank; all of one shape and type."""
        if self.world == 1:
            return [values]
        mine = values.to(self._device)
        every = [torch.empty_like(mine) for _ in range(self.world)]
        dist.all_gather(every, mine)
        return [each.cpu() for each in every]

    def broadcast(self, data: bytes | None) -> bytes | None:
        """What process 0 gives, in all of them."""
        if self.world == 1:
            return data
        size = torch.tensor(-1 if data is None else len(data), device=self._device)
        dist.broadcast(size, 0)
        if size < 0:
            return None
        values = torch.empty(int(size), dtype=torch.uint8, device=self._device)
        if data is not None:
            values.copy_(torch.frombuffer(bytearray(data), dtype=torch.uint8))
        dist.broadcast(values, 0)
        return bytes(values.cpu().numpy())

    @torch.no_grad()
    def sync_buffers(self, tensors: Iterable[Tensor]) -> None:
        """Give every process the values that the tensors have in the first one."""
        if self.world > 1:
            for tensor in tensors:
                dist.broadcast(tensor, 0)

    def wait(self) -> None:
        """Go on when all processes have come here."""
        if self.world > 1:
            dist.barrier()


ALONE = Ranks(0, 1, torch.device("cpu"))
"""One process."""


@contextlib.contextmanager
def joined(device: torch.device) -> Iterator[Ranks]:
    """The ranks, with their process group (nccl on GPUs, gloo on CPUs) while the context lasts."""
    world = int(os.environ.get("WORLD_SIZE", "1"))
    if world == 1:
        yield Ranks(0, 1, device)
        return
    gpu = device.type == "cuda"
    store, rank, world = next(dist.rendezvous("env://"))
    # torchrun keeps its store over a restart; without a name of its own a new group finds addresses of the old one
    store = dist.PrefixStore(os.environ.get("TORCHELASTIC_RESTART_COUNT", "0"), store)
    dist.init_process_group(
        "nccl" if gpu else "gloo", store=store, rank=rank, world_size=world, device_id=device if gpu else None
    )
    try:
        yield Ranks(rank, world, device)
    finally:
        dist.destroy_process_group()
