"""How a batch becomes updates. A dynamics owns the carry; the trainer owns everything else."""

from __future__ import annotations

from collections.abc import Callable, Iterator

import torch
from torch import Tensor

from hrm.carry import Carry
from hrm.config import TokenLoss
from hrm.data.base import IGNORE
from hrm.data.feeder import Feeder
from hrm.models import ACTModel
from hrm.training.losses import step_loss


class Persistent:
    """One forward and one update a batch; the carry lives on over batches, epochs, evaluations.

    Rows are drawn for halted slots only. `micro_batches` carries, one after another, give the
    update of one batch of all their slots.
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
        self.model, self.feeder, self.loss, self.device = model, feeder, loss, device
        size = feeder.slots // micro_batches
        self.slices = [slice(i * size, (i + 1) * size) for i in range(micro_batches)]
        length = model.config.seq_len
        example = {
            "inputs": torch.zeros(size, length, dtype=torch.int32, device=device),
            "labels": torch.zeros(size, length, dtype=torch.int32, device=device),
            "puzzle_identifiers": torch.zeros(size, dtype=torch.int32, device=device),
        }
        self.carries = [
            model.initial_carry(example, seed=seed, first_slot=s.start) for s in self.slices
        ]

    def updates(self, backward: Callable[[Tensor], None]) -> Iterator[dict[str, Tensor]]:
        """One batch: after each yield (of the step's sums) the gradients are an update's."""
        halted = torch.cat([carry.halted for carry in self.carries]).cpu().numpy()
        rows = {k: torch.from_numpy(v) for k, v in self.feeder.fill(halted).items()}
        total: dict[str, Tensor] = {}
        for i, part in enumerate(self.slices):
            batch = {k: v[part].to(self.device) for k, v in rows.items()}
            self.carries[i], outputs = self.model(self.carries[i], batch)
            step = step_loss(outputs, self.carries[i], self.model.halting, self.loss)
            # Over all slots of the update: the gradient's scale does not depend on the split.
            backward(step.loss / self.feeder.slots)
            total = {k: total[k] + v if total else v for k, v in step.sums.items()}
        yield total

    def idle(self) -> bool:
        """Whether every sequence has ended: no slot still works on a row with labels."""
        return all(
            bool((carry.halted | (carry.current_data["labels"] == IGNORE).all(-1)).all())
            for carry in self.carries
        )

    def tensors(self) -> dict[str, Tensor]:
        """The carries, for a checkpoint."""
        return {
            f"{i}.{name}": tensor
            for i, carry in enumerate(self.carries)
            for name, tensor in carry.named_tensors()
        }

    def load_tensors(self, tensors: dict[str, Tensor]) -> None:
        """The inverse of `tensors`."""

        def part(i: int, carry: Carry) -> Carry:
            start = f"{i}."
            return carry.load_tensors(
                {k.removeprefix(start): v for k, v in tensors.items() if k.startswith(start)}
            )

        self.carries = [part(i, carry) for i, carry in enumerate(self.carries)]
