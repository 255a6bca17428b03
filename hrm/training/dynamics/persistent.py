"""One forward and one update a batch; the carry lives on ("original")."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace

import numpy as np
import torch
from jaxtyping import Bool
from numpy.typing import NDArray
from torch import Tensor

from hrm.carry import Carry
from hrm.data.base import IGNORE
from hrm.rng import draw
from hrm.training.dynamics.base import Backward, Dynamics, Sums, named_tensors, tensors_of


class Persistent(Dynamics):
    """One forward and one update a batch; the carry lives on over batches, epochs, evaluations.

    Rows are drawn for halted slots only.
    """

    def start(self) -> None:
        self.carries = [self._empty_carry(s.stop - s.start, s.start) for s in self.slices]
        self.halted: NDArray[np.bool_] | None = None
        """Who of all slots has halted, on the host; None: not fetched since the last update."""

    def flags(self) -> Bool[Tensor, " flags"]:
        return torch.cat([carry.halted for carry in self.carries])

    def receive(self, flags: NDArray[np.bool_]) -> None:
        # Who is admitted next depends on all slots, whoever holds them.
        self.halted = self.processes.merged(flags, self.feeder.mine)

    def update(self, backward: Backward) -> Sums:
        if self.halted is None:
            self.receive(self.flags().cpu().numpy())
        assert self.halted is not None
        halted, self.halted = self.halted, None
        first = not self.feeder.admitted
        rows = {k: torch.from_numpy(v) for k, v in self.feeder.fill(halted).items()}
        total: Sums = {}
        for i, part in enumerate(self.slices):
            batch = {k: v[part].to(self.device) for k, v in rows.items()}
            self.carries[i], outputs = self.model(self.carries[i], batch)
            if first and self.stagger:
                self.carries[i] = self._aged(self.carries[i])
            total = self._backward(outputs, self.carries[i], backward, total)
        return total

    def _aged(self, carry: Carry) -> Carry:
        """The carry after the first step as if that had been any step but the last.

        A new head wishes to halt nobody, so slots that start together end together: all sequences
        are exchanged at once, and an encoder whose context is kept gets a gradient in one of
        `train_max_steps` updates only.
        """
        chance, rng = draw(carry.rng)
        ages = (chance * (self.model.halting.train_max_steps - 1)).to(carry.steps.dtype)
        return replace(carry, steps=carry.steps + ages, rng=rng)

    def idle(self) -> bool:
        # Slots that hold padding, which has no label, count as free.
        free = all(
            bool((carry.halted | (carry.current_data["labels"] == IGNORE).all(-1)).all())
            for carry in self.carries
        )
        return not self.processes.any(not free)

    def tensors(self) -> dict[str, Tensor]:
        return self.processes.gather_rows(named_tensors(dict(enumerate(self.carries))))

    def load_tensors(self, tensors: Mapping[str, Tensor]) -> None:
        size = self.feeder.slots // len(self.slices)
        for i, part in enumerate(self.slices):
            mine = slice(part.start - i * size, part.stop - i * size)
            saved = {name: tensor[mine] for name, tensor in tensors_of(i, tensors).items()}
            self.carries[i] = self.carries[i].load_tensors(saved)
        self.halted = None
