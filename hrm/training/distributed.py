"""Several processes that train one model, started by torchrun: what they tell one another.

Each holds its share of the slots, all weights, and all of the optimizers' state. Rows and random
numbers go by global slot, and gradients are summed (the loss is divided by the number of all slots
as it is), so that N processes do what one does, up to rounding. Decisions are taken alike in all
of them, from what all know, or in the first one and passed on. The first one alone writes.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from datetime import timedelta
from importlib import import_module
from typing import Any, TypeVar

import numpy as np
import torch
import torch.distributed as dist
from numpy.typing import NDArray
from torch import Tensor, nn

from hrm import launch
from hrm.device import pick_device
from hrm.errors import UserError

T = TypeVar("T")
CPU = torch.device("cpu")
PATIENCE = timedelta(days=7)
"""Others wait while the first one evaluates or makes a data set; torchrun notices who has died."""


@dataclass(frozen=True)
class Processes:
    """This process among all. Alone it asks nobody, and `torch.distributed` is not touched.

    What every process has to call, in the same order, is marked with "all:".
    """

    rank: int = 0
    count: int = 1

    @property
    def first(self) -> bool:
        """Whether this one speaks and writes for all."""
        return self.rank == 0

    def device(self, name: str) -> torch.device:
        """What a setting names; of several processes each has a GPU of its own.

        Raises:
            UserError: it is not here, or they would have to share it.
        """
        if self.count == 1 or name == "cpu":
            return pick_device(name)
        if name not in ("auto", "cuda"):
            raise UserError(
                f"device: {name} is one, and there are {self.count} processes; give auto, cpu or "
                "cuda"
            )
        if name == "auto" and not torch.cuda.is_available():
            return CPU
        here, gpus = launch.local_count(), torch.cuda.device_count()
        if here > gpus:
            raise UserError(
                f"device: {here} processes and {gpus} GPUs are here; start one process a GPU, or "
                "give device=cpu"
            )
        return pick_device(f"cuda:{launch.local_rank()}")

    def slices(self, slots: int, micro_batches: int) -> list[slice]:
        """Which of all slots this process holds in each micro-batch.

        A micro-batch is a run of slots, and of it each process has a run, so that the processes'
        parts one after another are the whole micro-batch, however many they are.

        Raises:
            UserError: the slots do not divide.
        """
        parts = self.count * micro_batches
        if slots % parts:
            raise UserError(
                f"global_batch_size: {slots} does not divide into {self.count} processes with "
                f"{micro_batches} micro-batches each (grad_accumulation); give a multiple of "
                f"{parts}"
            )
        share = slots // parts
        first = [(i * self.count + self.rank) * share for i in range(micro_batches)]
        return [slice(start, start + share) for start in first]

    def holds(self, slots: int, micro_batches: int) -> NDArray[np.bool_]:
        """[slots], whether a slot is this process's."""
        mine = np.zeros(slots, dtype=bool)
        for part in self.slices(slots, micro_batches):
            mine[part] = True
        return mine

    def on_first(self, work: Callable[[], T]) -> T:
        """All: what `work` returns in the first process, where alone it is called.

        Raises:
            UserError, OSError: in all processes, where `work` does.
        """
        if self.count == 1:
            return work()
        found: list[Any] = [None, None]
        if self.first:
            try:
                found[0] = work()
            except (UserError, OSError) as error:
                found[1] = error
        dist.broadcast_object_list(found, src=0, device=CPU)
        if found[1] is not None:
            raise found[1]
        result: T = found[0]
        return result

    def any(self, flag: bool) -> bool:
        """All: whether one of them says so."""
        return bool(self.merged(np.array([flag]), np.array([True]))[0])

    def merged(self, flags: NDArray[np.bool_], mine: NDArray[np.bool_]) -> NDArray[np.bool_]:
        """All: everyone's flags; this process has those where `mine` holds, in that order."""
        if self.count == 1:
            return flags
        every = torch.zeros(len(mine), dtype=torch.uint8)
        every[torch.from_numpy(mine)] = torch.from_numpy(flags).to(torch.uint8)
        dist.all_reduce(every, dist.ReduceOp.MAX)
        return every.bool().numpy()

    def sum_gradients(self, parameters: Iterable[nn.Parameter], loss: Tensor | None) -> Tensor:
        """All: sum the gradients in place; returns the sum of the losses (None: it has none).

        A parameter has a gradient afterwards where it had one in any process: not all of them may
        have had rows for it. What had none anywhere, because it was not its turn, still has none.
        """
        if self.count == 1:
            assert loss is not None
            return loss
        learning = [p for p in parameters if p.requires_grad]
        has = np.array([p.grad is not None for p in learning])
        taught = self.merged(has, np.ones_like(has))
        sums = []
        for parameter, flag in zip(learning, taught, strict=True):
            if flag:
                if parameter.grad is None:
                    parameter.grad = torch.zeros_like(parameter)
                sums.append(parameter.grad)
        total = torch.zeros((), device=learning[0].device)
        if loss is not None:
            total += loss
        _sum_in_place([total, *sums])
        return total

    def sum_figures(self, figures: Mapping[str, Tensor]) -> dict[str, Tensor]:
        """All: the sums of numbers by name, where each process has those that it knows."""
        if self.count == 1:
            return dict(figures)
        every: list[Any] = [None] * self.count
        dist.all_gather_object(every, {name: value.cpu() for name, value in figures.items()})
        total: dict[str, Tensor] = {}
        for known in every:
            for name, value in known.items():
                total[name] = total[name] + value if name in total else value
        return total

    def gather_rows(self, tensors: Mapping[str, Tensor]) -> dict[str, Tensor]:
        """All: in the first process everyone's rows under each name, one process after another, on
        the host; in the others nothing. Not all have to have rows of all names."""
        if self.count == 1:
            return dict(tensors)
        mine = {name: tensor.detach().cpu().contiguous() for name, tensor in tensors.items()}
        every: list[Any] = [None] * self.count
        dist.all_gather_object(every, {name: (t.shape, t.dtype) for name, t in mine.items()})
        parts: dict[str, list[Tensor]] = {}
        for rank, known in enumerate(every):
            for name, (shape, dtype) in known.items():
                if self.first:
                    part = mine[name] if rank == 0 else torch.empty(shape, dtype=dtype)
                    if rank:
                        dist.recv(part, src=rank)
                    parts.setdefault(name, []).append(part)
                elif rank == self.rank:
                    dist.send(mine[name], dst=0)
        return {name: torch.cat(found) for name, found in parts.items()}

    def take_from_first(self, tensors: Iterable[Tensor]) -> None:
        """All: copy the first process's tensors over everyone's, in place."""
        if self.count > 1:
            for tensor in tensors:
                dist.broadcast(tensor, src=0)

    def total(self, value: Tensor) -> Tensor:
        """All, and in the backward pass too: the sum over the processes, with gradient to each."""
        if self.count == 1:
            return value
        summed: Tensor = _Total.apply(value)
        return summed


ALONE = Processes()


@contextmanager
def launched(device: str) -> Iterator[Processes]:
    """The processes that torchrun has started, this one among them; `ALONE` without it.

    Args:
        device: the setting of that name.

    Raises:
        UserError: as `Processes.device`.
    """
    if launch.count() == 1:
        yield ALONE
        return
    mine = Processes(launch.rank(), launch.count()).device(device)
    if mine.type == "cuda":
        torch.cuda.set_device(mine)
    # What is decided lies on the host and goes past the GPU, so that nothing waits for it.
    backend = "cpu:gloo,cuda:nccl" if mine.type == "cuda" else "gloo"
    # An optimizer imports this, and if that happens later it keeps the group as a default argument;
    # the group's threads then outlive it, and now and then abort the process at its very end.
    import_module("torch._dynamo")
    dist.init_process_group(backend, timeout=PATIENCE)
    yield Processes(dist.get_rank(), dist.get_world_size())
    # Not after an error: the others would fail at the lost connection, and tell of that instead.
    dist.destroy_process_group()


def _sum_in_place(tensors: Sequence[Tensor]) -> None:
    """Over all processes, as one message of each type."""
    for dtype in {t.dtype: None for t in tensors}:
        alike = [t for t in tensors if t.dtype == dtype]
        flat = torch.cat([t.flatten() for t in alike])
        dist.all_reduce(flat)
        for tensor, part in zip(alike, flat.split([t.numel() for t in alike]), strict=True):
            tensor.copy_(part.view_as(tensor))


class _Total(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, value: Tensor) -> Tensor:
        return _Total._sum(value)

    @staticmethod
    def backward(ctx: Any, *gradients: Tensor) -> Tensor:
        return _Total._sum(gradients[0])

    @staticmethod
    def _sum(value: Tensor) -> Tensor:
        summed = value.clone(memory_format=torch.contiguous_format)
        dist.all_reduce(summed)
        return summed
