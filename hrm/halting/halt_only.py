"""TRM's halting: one value, the chance that the answer is right; no continue value, no second pass.

Jolicoeur-Martineau 2025, arXiv:2510.04871, and its published code with `no_ACT_continue`.
"""

from __future__ import annotations

import math

from jaxtyping import Bool, Float
from torch import Tensor

from hrm.halting.base import Exploration, Halting, masked_sum
from hrm.halting.q_learning import act_halt


class HaltOnly(Halting):
    """Halts where `sigmoid(q_halt / temperature) > threshold`; at 0.5 and 1, where `q_halt > 0`."""

    def __init__(
        self,
        max_steps: int,
        exploration_prob: float = 0.0,
        exploration: Exploration = "per_step",
        train_max_steps: int | None = None,
        threshold: float = 0.5,
        temperature: float = 1.0,
    ) -> None:
        super().__init__(max_steps, exploration_prob, exploration, train_max_steps)
        self.cut = temperature * math.log(threshold / (1 - threshold))

    def wants(self, outputs: dict[str, Tensor]) -> Bool[Tensor, " slots"]:
        return outputs["q_halt_logits"] > self.cut

    def losses(
        self,
        outputs: dict[str, Tensor],
        correct: Bool[Tensor, " slots"],
        counted: Bool[Tensor, " slots"],
    ) -> dict[str, Float[Tensor, ""]]:
        return {"q_halt_loss": masked_sum(act_halt(outputs["q_halt_logits"], correct), counted)}
