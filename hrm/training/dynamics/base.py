"""What every dynamics shares: it owns the carry; the trainer owns everything else."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Callable, Mapping

import numpy as np
import torch
from jaxtyping import Bool
from numpy.typing import NDArray
from torch import Tensor

from hrm.carry import Carry
from hrm.data.feeder import Feeder
from hrm.models import ACTModel
from hrm.token_loss import TokenLoss
from hrm.training.distributed import ALONE, Processes
from hrm.training.losses import step_loss

Backward = Callable[[Tensor], None]
Sums = dict[str, Tensor]


class Dynamics(ABC):
    """One `update` is a forward and a backward pass of each micro-batch.

    Args:
        feeder: rows for the slots of an update, all micro-batches together.
        micro_batches: carries that, one after another, give the update of one batch of all slots.
        stagger: the first sequences start at random ages, where sequences outlive a batch.
        seed: of the slots' random numbers.
        processes: those that share the slots; this one works on its own.
    """

    def __init__(
        self,
        model: ACTModel,
        feeder: Feeder,
        *,
        loss: TokenLoss,
        micro_batches: int,
        seed: int,
        device: torch.device,
        stagger: bool = False,
        processes: Processes = ALONE,
    ) -> None:
        self.model, self.feeder, self.loss = model, feeder, loss
        self.seed, self.device, self.stagger = seed, device, stagger
        self.kl_weight = 0.0
        """Of the coming update: the trainer sets it."""
        self.processes = processes
        self.slices = processes.slices(feeder.slots, micro_batches)
        """This process's slots in each micro-batch, numbered among all slots."""
        self.start()

    @abstractmethod
    def start(self) -> None:
        """Set up the state."""

    @abstractmethod
    def update(self, backward: Backward) -> Sums:
        """After it the gradients are an update's; returns the sums of its steps."""

    def flags(self) -> Bool[Tensor, " flags"]:
        """What the next update has to know on the host; the trainer fetches it with its own."""
        return torch.zeros(0, dtype=torch.bool, device=self.device)

    def receive(self, flags: NDArray[np.bool_]) -> None:  # noqa: B027, most have no use for it
        """`flags` on the host."""

    @abstractmethod
    def idle(self) -> bool:
        """Whether no sequence is under way in any process; each has to ask."""

    @abstractmethod
    def tensors(self) -> dict[str, Tensor]:
        """All state, for a checkpoint, the same however many processes there are: in the first one
        that of all slots, in order. Each has to ask."""

    @abstractmethod
    def load_tensors(self, tensors: Mapping[str, Tensor]) -> None:
        """The inverse of `tensors`: what the first process had; each takes its own slots'."""

    def example(self, slots: int | None = None) -> dict[str, Tensor]:
        """A batch of zeros; of as many slots as a forward sees by default."""
        slots = self.slices[0].stop - self.slices[0].start if slots is None else slots
        return {
            name: torch.zeros(array.shape, dtype=torch.int32, device=self.device)
            for name, array in self.feeder.split.padding(slots).items()
        }

    def _empty_carry(self, slots: int, first_slot: int) -> Carry:
        example = self.example(slots)
        return self.model.initial_carry(example, seed=self.seed, first_slot=first_slot)

    def _backward(
        self, outputs: Mapping[str, Tensor], carry: Carry, backward: Backward, total: Sums
    ) -> Sums:
        step = step_loss(outputs, carry, self.model.halting, self.loss, self.kl_weight)
        # Over all slots of the update: the gradient's scale depends neither on the number of
        # micro-batches nor on how many sequences of a batch are still there.
        backward(step.loss / self.feeder.slots)
        return {name: total.get(name, 0) + value for name, value in step.sums.items()}


def named_tensors(carries: Mapping[int, Carry]) -> dict[str, Tensor]:
    return {
        f"{i}.{name}": tensor
        for i, carry in carries.items()
        for name, tensor in carry.named_tensors()
    }


def tensors_of(i: int, tensors: Mapping[str, Tensor]) -> dict[str, Tensor]:
    start = f"{i}."
    return {k.removeprefix(start): v for k, v in tensors.items() if k.startswith(start)}
