"""No learned halting: every sequence takes `max_steps` steps."""

from __future__ import annotations

import torch
from jaxtyping import Bool, Float
from torch import Tensor

from hrm.halting.base import Halting


class Fixed(Halting):
    """Plain deep supervision; the Q-head is there and gets no gradient from halting."""

    learned = False
    values_halting = False

    def wants(self, outputs: dict[str, Tensor]) -> Bool[Tensor, " slots"]:
        return torch.zeros_like(outputs["q_halt_logits"], dtype=torch.bool)

    def losses(
        self,
        outputs: dict[str, Tensor],
        correct: Bool[Tensor, " slots"],
        counted: Bool[Tensor, " slots"],
    ) -> dict[str, Float[Tensor, ""]]:
        # Zero, but on the graph: under DDP every parameter must take part.
        return {"q_halt_loss": 0.0 * outputs["q_halt_logits"].sum()}
