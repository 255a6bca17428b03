"""PonderNet: the step to halt at is a random variable, and the loss is its expected loss.

Banino, Balaguer and Blundell 2021, arXiv:2107.05407: `lambda_n = sigmoid(halt_logits)` is the
chance to halt at step n if it is reached, so `p_n = lambda_n * prod_{j < n} (1 - lambda_j)`; the
last step takes what is left. The loss is `sum_n p_n l_n + beta * KL(p || geometric prior)`, the
prior cut off after K steps and made to sum to 1.

At inference the paper draws the step. Here it is the median of p, the first n with
`p_1 + .. + p_n > 0.5`: the same answer every time, and no draw is spent.
"""

from __future__ import annotations

import math

import torch
import torch.nn.functional as F
from jaxtyping import Bool, Float, Int
from torch import Tensor

from hrm.halting.base import Exploration, FromRollouts, Rollout, masked_sum
from hrm.halting.trajectory import accumulate, first_step, log_stopping, step_numbers

LOG_GOING_ON = "log_going_on"
"""The memory's name: the log of the chance that the sequence has not halted yet."""

LOG_HALF = math.log(0.5)


def pondernet_log_weights(
    logits: Float[Tensor, "steps slots"],
) -> Float[Tensor, "steps slots"]:
    """`log p_n` of halting logits; p sums to 1."""
    return log_stopping(F.logsigmoid(logits), F.logsigmoid(-logits))


def median_step(logits: Float[Tensor, "steps slots"]) -> Int[Tensor, " slots"]:
    """The first n with `p_1 + .. + p_n > 0.5`, else K."""
    return first_step(accumulate(F.logsigmoid(-logits)) < LOG_HALF)


def log_geometric(like: Float[Tensor, "steps slots"], prior: float) -> Float[Tensor, "steps 1"]:
    """Log of the geometric distribution `prior * (1 - prior)^(n - 1)`, cut off after K steps."""
    return F.log_softmax((step_numbers(like) - 1) * math.log(1 - prior), dim=0)


def prior_divergence(
    log_weights: Float[Tensor, "steps slots"], prior: float
) -> Float[Tensor, " slots"]:
    """`KL(p || prior)` of each slot, in nats."""
    return (log_weights.exp() * (log_weights - log_geometric(log_weights, prior))).sum(0)


class PonderNet(FromRollouts):
    """Halts at the median of p; reads `halt_logits` `(slots,)` of a step.

    Args:
        prior: the paper's lambda_p, the prior's chance to halt at each step (above 0, below 1):
            about 1 / prior steps.
        beta: weight of the divergence from the prior.
    """

    weighs = True

    def __init__(
        self,
        max_steps: int,
        exploration_prob: float = 0.0,
        exploration: Exploration = "per_step",
        train_max_steps: int | None = None,
        *,
        prior: float = 0.2,
        beta: float = 0.01,
    ) -> None:
        super().__init__(max_steps, exploration_prob, exploration, train_max_steps)
        self.prior, self.beta = prior, beta

    def fresh_memory(self, slots: int, device: torch.device) -> dict[str, Tensor]:
        return {LOG_GOING_ON: torch.zeros(slots, device=device)}

    def wish(
        self, outputs: dict[str, Tensor], extra: dict[str, Tensor]
    ) -> tuple[Bool[Tensor, " slots"], dict[str, Tensor]]:
        going_on = extra[LOG_GOING_ON] + F.logsigmoid(-outputs["halt_logits"])
        return going_on < LOG_HALF, {**extra, LOG_GOING_ON: going_on}

    def task_weights(self, rollout: Rollout) -> Float[Tensor, "steps slots"]:
        return pondernet_log_weights(rollout.outputs["halt_logits"]).exp()

    def rollout_losses(self, rollout: Rollout, update: int) -> dict[str, Float[Tensor, ""]]:
        """`prior_loss`: the weighted divergence from the prior."""
        log_weights = pondernet_log_weights(rollout.outputs["halt_logits"])
        divergence = prior_divergence(log_weights, self.prior)
        return {"prior_loss": self.beta * masked_sum(divergence, rollout.counted)}

    @torch.no_grad()
    def rollout_figures(self, rollout: Rollout) -> dict[str, Float[Tensor, ""]]:
        """`policy_steps`, the median, and `expected_steps`, the mean of p."""
        logits = rollout.outputs["halt_logits"]
        mean = (pondernet_log_weights(logits).exp() * step_numbers(logits)).sum(0)
        return {
            "policy_steps": masked_sum(median_step(logits).float(), rollout.counted),
            "expected_steps": masked_sum(mean, rollout.counted),
        }
