"""Several processes that train one model; alone, one process is all of them."""

import contextlib
from collections.abc import Iterator
from dataclasses import dataclass
from datetime import timedelta

import torch
import torch.distributed as dist

PATIENCE = timedelta(hours=2)
"""How long processes wait for one that measures."""


@dataclass(frozen=True)
class Processes:
    """This process's number among all."""

    rank: int = 0
    count: int = 1

    def wait(self) -> None:
        """Go on only when all have come here."""
        if self.count > 1:
            dist.barrier()


@contextlib.contextmanager
def joined(rank: int, count: int, device: torch.device) -> Iterator[Processes]:
    """Join the processes that torchrun started, by NCCL on GPUs and gloo elsewhere."""
    if count == 1:
        yield Processes()
        return
    if device.type == "cuda":
        torch.cuda.set_device(device)
    backend = "nccl" if device.type == "cuda" else "gloo"
    dist.init_process_group(backend, rank=rank, world_size=count, timeout=PATIENCE)
    try:
        yield Processes(rank, count)
    finally:
        dist.destroy_process_group()
