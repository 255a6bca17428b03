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
        return {"batches": torch.tensor(self.batches), **named_tensors(self.carries)}

    def load_tensors(self, tensors: Mapping[str, Tensor]) -> None:
        self.batches, self.carries = int(tensors["batches"]), {}
        for i in range(len(self.slices)):
            if saved := tensors_of(i, tensors):
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
