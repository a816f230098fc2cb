"""Several processes that train together, started by ``torchrun``."""

import contextlib
import os
from collections.abc import Iterable, Iterator

import torch
import torch.distributed as dist
from torch import Tensor


class Ranks:
    """The processes that train together, which may be a single one.

    Every process must call the same methods in the same order.

    Attributes:
        rank: the rank of this process. Process 0 writes results and prints.
        world: the number of processes.

    Args:
        rank: as above.
        world: as above.
        device: the device that this process computes on.
    """

    def __init__(self, rank: int, world: int, device: torch.device) -> None:
        self.rank, self.world, self._device = rank, world, device

    def any(self, flag: bool) -> bool:
        """Return whether ``flag`` is set in any process."""
        return bool(self.sum(torch.tensor(int(flag), device=self._device))) if self.world > 1 else flag

    def sum(self, values: Tensor) -> Tensor:
        """Sum ``values`` over the processes, element by element and in place."""
        if self.world > 1:
            dist.all_reduce(values)
        return values

    def all_gather(self, values: Tensor) -> list[Tensor]:
        """Gather a tensor of every process, which must all have the same shape and type.

        Returns:
            The tensors by rank, on the CPU.
        """
        if self.world == 1:
            return [values]
        own = values.to(self._device)
        gathered = [torch.empty_like(own) for _ in range(self.world)]
        dist.all_gather(gathered, own)
        return [tensor.cpu() for tensor in gathered]

    def broadcast(self, data: bytes | None) -> bytes | None:
        """Return the ``data`` of process 0 in every process."""
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
        """Overwrite the tensors, in place, with their values in process 0."""
        if self.world > 1:
            for tensor in tensors:
                dist.broadcast(tensor, 0)

    def wait(self) -> None:
        """Wait until all processes have called this."""
        if self.world > 1:
            dist.barrier()


ALONE = Ranks(0, 1, torch.device("cpu"))
"""A single process."""


@contextlib.contextmanager
def joined(device: torch.device) -> Iterator[Ranks]:
    """Join the processes that torchrun has started; without torchrun, this process is alone.

    Their process group (nccl on GPUs, gloo on CPUs) exists while the context lasts.
    """
    world = int(os.environ.get("WORLD_SIZE", "1"))
    if world == 1:
        yield Ranks(0, 1, device)
        return
    gpu = device.type == "cuda"
    store, rank, world = next(dist.rendezvous("env://"))  # type: ignore[attr-defined]
    # torchrun keeps its store when it restarts the processes. Without a prefix per start, the new process group would
    # find the addresses of the old one.
    store = dist.PrefixStore(os.environ.get("TORCHELASTIC_RESTART_COUNT", "0"), store)  # type: ignore[attr-defined]
    dist.init_process_group(
        "nccl" if gpu else "gloo", store=store, rank=rank, world_size=world, device_id=device if gpu else None
    )
    try:
        yield Ranks(rank, world, device)
    finally:
        dist.destroy_process_group()
