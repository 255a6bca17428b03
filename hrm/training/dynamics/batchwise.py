"""A fresh carry a batch, and an update a step: `online` and `episode`."""

from __future__ import annotations

from abc import abstractmethod
from collections.abc import Mapping
from dataclasses import replace

import numpy as np
import torch
from torch import Tensor

from hrm.carry import Carry
from hrm.training.dynamics.base import Backward, Dynamics, Sums, named_tensors, tensors_of

SLOT = "slot"
"""In the carry's data: the number among all slots, by which a sequence finds its process again."""


class Batchwise(Dynamics):
    """A fresh carry a batch, which is worked on, an update a step, until no sequence is left."""

    def start(self) -> None:
        self.carries: dict[int, Carry] = {}
        """By micro-batch; none where every sequence of this process has ended."""
        self.batches = 0

    @abstractmethod
    def after_step(self, carry: Carry) -> Carry:
        """The carry with `halted` as this dynamics has it."""

    @abstractmethod
    def remaining(self, carry: Carry) -> Carry | None:
        """What of it goes on; None: nothing."""

    def update(self, backward: Backward) -> Sums:
        if self.idle():
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
            data[SLOT] = torch.arange(part.start, part.stop, device=self.device)
            carry = replace(carry, current_data=data)
            # The last batch of the last epoch may not be full.
            drawn = torch.from_numpy(self.feeder.rows[part] >= 0).to(self.device)
            if drawn.any():
                self.carries[i] = carry.gather(drawn.nonzero().squeeze(1))
        self.batches += 1

    def idle(self) -> bool:
        return not self.processes.any(bool(self.carries))

    def tensors(self) -> dict[str, Tensor]:
        carries = self.processes.gather_rows(named_tensors(self.carries))
        return {"batches": torch.tensor(self.batches), **carries}

    def load_tensors(self, tensors: Mapping[str, Tensor]) -> None:
        self.batches, self.carries = int(tensors["batches"]), {}
        for i, part in enumerate(self.slices):
            if not (saved := tensors_of(i, tensors)):
                continue
            slot = saved[f"current_data.{SLOT}"]
            mine = ((part.start <= slot) & (slot < part.stop)).nonzero().squeeze(1)
            if len(mine):
                empty = self._empty_carry(len(mine), 0)
                data = {**empty.current_data, SLOT: slot.new_zeros(len(mine), device=self.device)}
                saved = {name: tensor[mine] for name, tensor in saved.items()}
                self.carries[i] = replace(empty, current_data=data).load_tensors(saved)


class Online(Batchwise):
    """Every sequence takes the same number of steps; the halting head learns and decides nothing.

    Seed document of the encoder-based TRM, "online": `num_act_steps` times forward, backward,
    update. As there, no steps are logged: they are the same number always.
    """

    def update(self, backward: Backward) -> Sums:
        total = super().update(backward)
        total.pop("steps", None)  # A process without sequences has no sums.
        return total

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
