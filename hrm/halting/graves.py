"""Adaptive Computation Time: halting chances add up, and the last step takes the remainder.

Graves 2016, arXiv:1603.08983, section 2: with `h_n = sigmoid(halt_logits)` a sequence takes
`N = min{n : h_1 + .. + h_n >= 1 - eps}` steps, at most K. The steps weigh `p_n = h_n` before N and
the remainder `R = 1 - sum_{n < N} h_n` at N, and the ponder cost `N + R` is added to the loss.

Two departures. The paper averages states and outputs with these weights and takes the loss of the
average; here the steps' losses are averaged, an upper bound where the loss is convex in the output.
And at inference the answer is the one of step N, not the paper's average, so that a halted sequence
needs no memory of its earlier answers. A head's bias should start low, at about -3: the recursion
must be seen before it is cut short.
"""

from __future__ import annotations

import torch
from jaxtyping import Bool, Float, Int
from torch import Tensor

from hrm.halting.base import Exploration, FromRollouts, Rollout, masked_sum
from hrm.halting.trajectory import accumulate, first_step, step_numbers

CUMULATIVE = "cumulative_halting"


def graves_step(chances: Float[Tensor, "steps slots"], slack: float) -> Int[Tensor, " slots"]:
    """`N`: the first n with `h_1 + .. + h_n >= 1 - slack`, else K."""
    return first_step(accumulate(chances) >= 1 - slack)


def graves_weights(
    chances: Float[Tensor, "steps slots"], step: Int[Tensor, " slots"]
) -> tuple[Float[Tensor, "steps slots"], Float[Tensor, " slots"]]:
    """The weights `p_n` and the remainder `R` of chances `h_n` and steps `N`.

    Weights sum to 1. Gradients are the paper's: of R it is -1 to each `h_n` with n < N, and N is a
    constant, though it depends on h in jumps.
    """
    numbers = step_numbers(chances)
    before = torch.where(numbers < step, chances, 0.0)
    remainder = 1 - before.sum(0)
    return before + torch.where(numbers == step, remainder, 0.0), remainder


class Graves(FromRollouts):
    """Halts where the accumulated chances reach 1; reads `halt_logits` `(slots,)` of a step.

    Args:
        ponder_cost: the paper's time penalty tau, in units of the task loss per step.
        slack: the paper's eps, by which one step can be enough.
    """

    weighs = True

    def __init__(
        self,
        max_steps: int,
        exploration_prob: float = 0.0,
        exploration: Exploration = "per_step",
        train_max_steps: int | None = None,
        *,
        ponder_cost: float = 0.01,
        slack: float = 0.01,
    ) -> None:
        super().__init__(max_steps, exploration_prob, exploration, train_max_steps)
        self.ponder_cost, self.slack = ponder_cost, slack

    def fresh_memory(self, slots: int, device: torch.device) -> dict[str, Tensor]:
        return {CUMULATIVE: torch.zeros(slots, device=device)}

    def wish(
        self, outputs: dict[str, Tensor], extra: dict[str, Tensor]
    ) -> tuple[Bool[Tensor, " slots"], dict[str, Tensor]]:
        cumulative = extra[CUMULATIVE] + outputs["halt_logits"].sigmoid()
        return cumulative >= 1 - self.slack, {**extra, CUMULATIVE: cumulative}

    def task_weights(self, rollout: Rollout) -> Float[Tensor, "steps slots"]:
        chances = rollout.outputs["halt_logits"].sigmoid()
        return graves_weights(chances, graves_step(chances, self.slack))[0]

    def rollout_losses(self, rollout: Rollout, update: int) -> dict[str, Float[Tensor, ""]]:
        """`ponder_loss`: the weighted ponder cost `N + R`."""
        chances = rollout.outputs["halt_logits"].sigmoid()
        step = graves_step(chances, self.slack)
        _, remainder = graves_weights(chances, step)
        return {"ponder_loss": self.ponder_cost * masked_sum(step + remainder, rollout.counted)}

    @torch.no_grad()
    def rollout_figures(self, rollout: Rollout) -> dict[str, Float[Tensor, ""]]:
        """`policy_steps`: N."""
        step = graves_step(rollout.outputs["halt_logits"].sigmoid(), self.slack)
        return {"policy_steps": masked_sum(step.float(), rollout.counted)}
