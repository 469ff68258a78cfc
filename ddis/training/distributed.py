"""One training in several processes, one GPU each: torchrun starts them, and each takes its part of every batch.

A batch has the size that it has in one process, and so has its randomness: indices, noise, levels and dropout belong to (seed,
step, place in the batch). The gradient of the mean loss of a batch is the mean of the gradients of its R equal parts, which
DistributedDataParallel takes. So R processes train as one does, up to the order in which float32 sums are taken.
"""

import os
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass

import numpy as np
import torch
import torch.distributed as dist
from torch import Tensor, nn

from ddis.errors import InputError
from ddis.signals import Stopped

Loss = Callable[[np.ndarray, int], Tensor]


@dataclass(frozen=True)
class Ranks:
    """The processes of a training: their number `size`, and this one's `rank`; 0 is the one that writes files."""

    rank: int = 0
    size: int = 1

    def places(self, batch: int) -> slice:
        """This process's places in a batch. Raises InputError if it cannot be divided equally."""
        part, rest = divmod(batch, self.size)
        if rest:
            raise InputError(f"training.batch {batch} for {self.size} processes; accepted: multiples of {self.size}")
        return slice(self.rank * part, (self.rank + 1) * part)

    def parallel(self, model: nn.Module, loss: Loss) -> Loss:
        """`loss` of this process's part of a batch, with gradients of the whole batch; changes the dropout layers of `model`."""
        if self.size == 1:
            return loss
        for name, layer in list(model.named_modules()):
            if type(layer) is nn.Dropout:
                model.set_submodule(name, PartialDropout(layer.p, self))
        return nn.parallel.DistributedDataParallel(_Loss(model, loss))

    def mean(self, value: Tensor) -> Tensor:
        """Mean of the processes' scalars."""
        if self.size == 1:
            return value
        total = value.detach().clone()
        dist.all_reduce(total)
        return total / self.size

    def largest(self, number: int) -> int:
        """The largest of the processes' numbers."""
        if self.size == 1:
            return number
        device = "cuda" if dist.get_backend() == "nccl" else "cpu"
        largest = torch.tensor(number, device=device)
        dist.all_reduce(largest, op=dist.ReduceOp.MAX)
        return int(largest)


@contextmanager
def processes(device: torch.device) -> Iterator[Ranks]:
    """The processes that torchrun started, or this one alone; none leaves a block that ends in order before all have.

    Raises InputError if there are not as many GPUs.
    """
    if not dist.is_torchelastic_launched():
        yield Ranks()
        return
    if device.type == "cuda":
        started, gpus = int(os.environ["LOCAL_WORLD_SIZE"]), torch.cuda.device_count()
        if started > gpus:
            raise InputError(f"torchrun started {started} processes for {gpus} GPUs; accepted: --nproc-per-node 1 to {gpus}")
        torch.cuda.set_device(int(os.environ["LOCAL_RANK"]))
    dist.init_process_group("nccl" if device.type == "cuda" else "gloo")
    try:
        try:
            yield Ranks(dist.get_rank(), dist.get_world_size())
        except Stopped:
            dist.barrier()
            raise
        dist.barrier()
    finally:
        dist.destroy_process_group()


class PartialDropout(nn.Dropout):
    """Dropout of the fields at a process's places, by the mask that one process would draw for the whole batch."""

    def __init__(self, p: float, ranks: Ranks):
        super().__init__(p)
        self.ranks = ranks

    def forward(self, x: Tensor) -> Tensor:
        if not self.training:
            return x
        whole = torch.cat([torch.ones_like(x)] * self.ranks.size)
        mask = nn.functional.dropout(whole, self.p)
        return x * mask.chunk(self.ranks.size)[self.ranks.rank]


class _Loss(nn.Module):
    """The loss as the module that DistributedDataParallel needs; holds `model` for its parameters."""

    def __init__(self, model: nn.Module, loss: Loss):
        super().__init__()
        self.model, self.loss = model, loss

    def forward(self, indices: np.ndarray, step: int) -> Tensor:
        return self.loss(indices, step)
