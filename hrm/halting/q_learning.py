"""HRM's halting as Q-learning: halt where the value of halting exceeds that of going on.

Both values are logits of "the answer is exactly right in the end". After published HRM code: the
continue target comes from one more forward pass under no_grad, in the manner of PQN (Gallici et al.
2024, arXiv:2407.04811), with neither replay buffer nor target network.
"""

from __future__ import annotations

import torch
from jaxtyping import Bool, Float
from torch import Tensor

from hrm.halting.base import Halting, bce_sum


def continue_target(
    next_q_halt: Float[Tensor, " slots"],
    next_q_continue: Float[Tensor, " slots"],
    is_last: Bool[Tensor, " slots"],
) -> Float[Tensor, " slots"]:
    """`sigmoid` of the best next value; at the last step only halting is left to do next."""
    best = torch.maximum(next_q_halt, next_q_continue)
    return torch.sigmoid(torch.where(is_last, next_q_halt, best))


class QLearning(Halting):
    """Halts where `q_halt > q_continue`; strict, so the tie of an untrained head goes on."""

    needs_next_q = True

    def wants(self, outputs: dict[str, Tensor]) -> Bool[Tensor, " slots"]:
        return outputs["q_halt_logits"] > outputs["q_continue_logits"]

    def next_target(
        self, next_outputs: dict[str, Tensor], is_last: Bool[Tensor, " slots"]
    ) -> dict[str, Tensor]:
        halt, go_on = next_outputs["q_halt_logits"], next_outputs["q_continue_logits"]
        return {"target_q_continue": continue_target(halt, go_on, is_last)}

    def losses(
        self,
        outputs: dict[str, Tensor],
        correct: Bool[Tensor, " slots"],
        counted: Bool[Tensor, " slots"],
    ) -> dict[str, Float[Tensor, ""]]:
        losses = {"q_halt_loss": bce_sum(outputs["q_halt_logits"], correct, counted)}
        if "target_q_continue" in outputs:
            target = outputs["target_q_continue"]
            losses["q_continue_loss"] = bce_sum(outputs["q_continue_logits"], target, counted)
        return losses
