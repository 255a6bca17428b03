"""HRM's halting as Q-learning: halt where the value of halting exceeds that of going on.

Both values are logits of "the answer is exactly right in the end". The papers' pseudocode and the
published code train the value of going on differently (`ContinueTarget`); neither has a replay
buffer or a target network, in the manner of PQN (Gallici et al. 2024, arXiv:2407.04811).
"""

from __future__ import annotations

from typing import Literal

import torch
import torch.nn.functional as F
from jaxtyping import Bool, Float
from torch import Tensor

from hrm.halting.base import Exploration, Halting, masked_sum

ContinueTarget = Literal["bootstrap", "pseudocode", "next_step"]
"""What the value of going on learns from:

`bootstrap` (published code): this step's `q_continue` follows a second forward under no_grad.
`pseudocode` (the papers' text): the second forward's own `q_continue` follows that same forward, so
    it carries gradient.
`next_step` (of this project): the step before gets its target when its sequence has made the next
    one, so there is no second forward; a step that halts teaches nothing about going on.
"""


def act_halt(
    q_halt: Float[Tensor, " slots"], correct: Bool[Tensor, " slots"]
) -> Float[Tensor, " slots"]:
    """`0.5 * BCE(q_halt, answer is exactly right)` per slot, `act_halt` of the pseudocode."""
    target = correct.to(q_halt.dtype)
    return 0.5 * F.binary_cross_entropy_with_logits(q_halt, target, reduction="none")


def act_continue(
    q_continue: Float[Tensor, " slots"], target: Float[Tensor, " slots"]
) -> Float[Tensor, " slots"]:
    """`0.5 * BCE(q_continue, target)` per slot; `target`, of `continue_target`, has no gradient.

    The pseudocode's `act_continue(q_next, is_last)` is `act_continue(next_q_continue,
    continue_target(next_q_halt, next_q_continue, is_last))`.
    """
    return 0.5 * F.binary_cross_entropy_with_logits(q_continue, target.detach(), reduction="none")


@torch.no_grad()
def continue_target(
    next_q_halt: Float[Tensor, " slots"],
    next_q_continue: Float[Tensor, " slots"],
    is_last: Bool[Tensor, " slots"],
) -> Float[Tensor, " slots"]:
    """`sigmoid` of the best next value; at the last step only halting is left to do next.

    Without that case the value of going on at the horizon is its own target: nothing pulls a value
    down that starts too high, and the maximum pushes it up.
    """
    best = torch.maximum(next_q_halt, next_q_continue)
    return torch.sigmoid(torch.where(is_last, next_q_halt, best))


class QLearning(Halting):
    """Halts where `q_halt - q_continue > lead`; strict, so the tie of an untrained head goes on.

    As published the lead is 0, which is `q_halt > q_continue`.
    """

    values_going_on = True

    def __init__(
        self,
        max_steps: int,
        exploration_prob: float = 0.0,
        exploration: Exploration = "per_step",
        train_max_steps: int | None = None,
        target: ContinueTarget = "bootstrap",
        lead: float = 0.0,
    ) -> None:
        super().__init__(max_steps, exploration_prob, exploration, train_max_steps)
        self.target, self.lead = target, lead
        self.looks_ahead = target in ("bootstrap", "pseudocode")
        self.learns_ahead = target == "pseudocode"
        self.looks_back = target == "next_step"

    def wants(self, outputs: dict[str, Tensor]) -> Bool[Tensor, " slots"]:
        return outputs["q_halt_logits"] - outputs["q_continue_logits"] > self.lead

    def look_ahead(
        self, ahead: dict[str, Tensor], is_last: Bool[Tensor, " slots"]
    ) -> dict[str, Tensor]:
        target = continue_target(ahead["q_halt_logits"], ahead["q_continue_logits"], is_last)
        if self.target == "bootstrap":
            return {"target_q_continue": target}
        return {
            "target_q_continue": target,
            "learning_q_continue_logits": ahead["q_continue_logits"],
        }

    def look_back(
        self,
        before: dict[str, Tensor],
        now: dict[str, Tensor],
        is_first: Bool[Tensor, " slots"],
        is_last: Bool[Tensor, " slots"],
    ) -> dict[str, Tensor]:
        # Going on from the last step is impossible, so its own q_continue is never learned.
        target = continue_target(now["q_halt_logits"], now["q_continue_logits"], is_last)
        return {
            "target_q_continue": target,
            "learning_q_continue_logits": before["q_continue_logits"],
            "learning_slots": ~is_first,
        }

    def losses(
        self,
        outputs: dict[str, Tensor],
        correct: Bool[Tensor, " slots"],
        counted: Bool[Tensor, " slots"],
    ) -> dict[str, Float[Tensor, ""]]:
        losses = {"q_halt_loss": masked_sum(act_halt(outputs["q_halt_logits"], correct), counted)}
        if "target_q_continue" in outputs:
            learning = outputs.get("learning_q_continue_logits", outputs["q_continue_logits"])
            if "learning_slots" in outputs:
                counted = counted & outputs["learning_slots"]
            loss = act_continue(learning, outputs["target_q_continue"])
            losses["q_continue_loss"] = masked_sum(loss, counted)
        return losses
