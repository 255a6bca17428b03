"""How a batch becomes updates. A dynamics owns the carry; the trainer owns everything else."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Callable, Mapping
from dataclasses import replace

import numpy as np
import torch
from torch import Tensor

from hrm.carry import Carry
from hrm.config import DynamicsName, TokenLoss
from hrm.data.base import IGNORE
from hrm.data.feeder import Feeder
from hrm.models import ACTModel
from hrm.training.losses import step_loss

Backward = Callable[[Tensor], None]
Sums = dict[str, Tensor]


class Dynamics(ABC):
    """One `update` is a forward and a backward pass of each micro-batch.

    Args:
        feeder: rows for the slots of an update, all micro-batches together.
        micro_batches: carries that, one after another, give the update of one batch of all slots.
        seed: of the slots' random numbers.
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
    ) -> None:
        self.model, self.feeder, self.loss = model, feeder, loss
        self.seed, self.device = seed, device
        size = feeder.slots // micro_batches
        self.slices = [slice(i * size, (i + 1) * size) for i in range(micro_batches)]
        self.start()

    @abstractmethod
    def start(self) -> None:
        """Set up the state."""

    @abstractmethod
    def update(self, backward: Backward) -> Sums:
        """After it the gradients are an update's; returns the sums of its steps."""

    @abstractmethod
    def idle(self) -> bool:
        """Whether no sequence is under way."""

    @abstractmethod
    def tensors(self) -> dict[str, Tensor]:
        """All state, for a checkpoint."""

    @abstractmethod
    def load_tensors(self, tensors: Mapping[str, Tensor]) -> None:
        """The inverse of `tensors`."""

    def example(self, slots: int | None = None) -> dict[str, Tensor]:
        """A batch of zeros; of as many slots as a forward sees by default."""
        slots = self.slices[0].stop if slots is None else slots
        length = self.model.config.seq_len
        return {
            "inputs": torch.zeros(slots, length, dtype=torch.int32, device=self.device),
            "labels": torch.zeros(slots, length, dtype=torch.int32, device=self.device),
            "puzzle_identifiers": torch.zeros(slots, dtype=torch.int32, device=self.device),
        }

    def _empty_carry(self, slots: int, first_slot: int) -> Carry:
        example = self.example(slots)
        return self.model.initial_carry(example, seed=self.seed, first_slot=first_slot)

    def _backward(
        self, outputs: Mapping[str, Tensor], carry: Carry, backward: Backward, total: Sums
    ) -> Sums:
        step = step_loss(outputs, carry, self.model.halting, self.loss)
        # Over all slots of the update: the gradient's scale depends neither on the number of
        # micro-batches nor on how many sequences of a batch are still there.
        backward(step.loss / self.feeder.slots)
        return {name: total.get(name, 0) + value for name, value in step.sums.items()}


class Persistent(Dynamics):
    """One forward and one update a batch; the carry lives on over batches, epochs, evaluations.

    Rows are drawn for halted slots only.
    """

    def start(self) -> None:
        self.carries = [self._empty_carry(s.stop - s.start, s.start) for s in self.slices]

    def update(self, backward: Backward) -> Sums:
        halted = torch.cat([carry.halted for carry in self.carries]).cpu().numpy()
        rows = {k: torch.from_numpy(v) for k, v in self.feeder.fill(halted).items()}
        total: Sums = {}
        for i, part in enumerate(self.slices):
            batch = {k: v[part].to(self.device) for k, v in rows.items()}
            self.carries[i], outputs = self.model(self.carries[i], batch)
            total = self._backward(outputs, self.carries[i], backward, total)
        return total

    def idle(self) -> bool:
        # Slots that hold padding, which has no label, count as free.
        return all(
            bool((carry.halted | (carry.current_data["labels"] == IGNORE).all(-1)).all())
            for carry in self.carries
        )

    def tensors(self) -> dict[str, Tensor]:
        return _named(dict(enumerate(self.carries)))

    def load_tensors(self, tensors: Mapping[str, Tensor]) -> None:
        self.carries = [carry.load_tensors(_of(i, tensors)) for i, carry in enumerate(self.carries)]


class Batchwise(Dynamics):
    """A fresh carry a batch, which is worked on, an update a step, until no sequence is left."""

    def start(self) -> None:
        self.carries: dict[int, Carry] = {}
        """By micro-batch; none where every sequence has ended."""
        self.batches = 0

    @abstractmethod
    def after_step(self, carry: Carry) -> Carry:
        """The carry with `halted` as this dynamics has it."""

    @abstractmethod
    def remaining(self, carry: Carry) -> Carry | None:
        """What of it goes on; None: nothing."""

    def update(self, backward: Backward) -> Sums:
        if not self.carries:
            self._draw()
        total: Sums = {}
        for i, carry in list(self.carries.items()):
            # Every slot's row lies in the carry since `_draw`.
            stepped, outputs = self.model(carry, carry.current_data)
            stepped = self.after_step(stepped)
            total = self._backward(outputs, stepped, backward, total)
            rest = self.remaining(stepped)
            if rest is None:
                del self.carries[i]
            else:
                self.carries[i] = rest
        return total

    def _draw(self) -> None:
        everyone = np.ones(self.feeder.slots, dtype=bool)
        rows = {k: torch.from_numpy(v) for k, v in self.feeder.fill(everyone).items()}
        for i, part in enumerate(self.slices):
            # Each batch has random numbers of its own, as if its slots were numbered on.
            first = self.batches * self.feeder.slots + part.start
            carry = self._empty_carry(part.stop - part.start, first)
            # Copies: the feeder writes its next rows into the same arrays.
            data = {k: v[part].to(self.device, copy=True) for k, v in rows.items()}
            carry = replace(carry, current_data=data)
            # The last batch of the last epoch may not be full.
            drawn = torch.from_numpy(self.feeder.rows[part] >= 0).to(self.device)
            if drawn.any():
                self.carries[i] = carry.gather(drawn.nonzero().squeeze(1))
        self.batches += 1

    def idle(self) -> bool:
        return not self.carries

    def tensors(self) -> dict[str, Tensor]:
        return {"batches": torch.tensor(self.batches), **_named(self.carries)}

    def load_tensors(self, tensors: Mapping[str, Tensor]) -> None:
        self.batches, self.carries = int(tensors["batches"]), {}
        for i in range(len(self.slices)):
            if saved := _of(i, tensors):
                empty = self._empty_carry(len(saved["steps"]), 0)
                self.carries[i] = empty.load_tensors(saved)


class Online(Batchwise):
    """Every sequence takes the same number of steps; the halting head learns and decides nothing.

    Seed document of the encoder-based TRM, "online": `num_act_steps` times forward, backward,
    update.
    """

    def after_step(self, carry: Carry) -> Carry:
        return replace(carry, halted=carry.steps >= self.model.halting.train_max_steps)

    def remaining(self, carry: Carry) -> Carry | None:
        return None if carry.halted.all() else carry


class Episode(Batchwise):
    """Sequences leave the batch as the policy halts them.

    The training loop of HRM's pseudocode (Wang et al. 2025, arXiv:2506.21734, figure 4).
    """

    def after_step(self, carry: Carry) -> Carry:
        return carry

    def remaining(self, carry: Carry) -> Carry | None:
        running = (~carry.halted).nonzero().squeeze(1)
        return carry.gather(running) if len(running) else None


DYNAMICS: dict[DynamicsName, type[Dynamics]] = {
    "persistent": Persistent,
    "online": Online,
    "episode": Episode,
}


def _named(carries: Mapping[int, Carry]) -> dict[str, Tensor]:
    return {
        f"{i}.{name}": tensor
        for i, carry in carries.items()
        for name, tensor in carry.named_tensors()
    }


def _of(i: int, tensors: Mapping[str, Tensor]) -> dict[str, Tensor]:
    start = f"{i}."
    return {k.removeprefix(start): v for k, v in tensors.items() if k.startswith(start)}
