"""Halting by two value functions: accumulated contributions exceed a threshold of the state.

After "Adaptive Computation Time (ACT) as Reinforcement Learning: Learning When to Stop Thinking".
It casts the depth of a recursion `x^n = f(x^{n-1})`, n = 1..K, as a Markov decision process:

    states       the recursion's states x^n
    actions      {go on, halt}
    transition   x^{n+1} = f(x^n) on going on, without chance; K ends every sequence
    reward       -lambda for each further step, and minus the task loss l_n of the answer at the end

so halting at n costs `J_n = l_n + lambda * n`. Two value functions, neither of them a policy:

    contribution tau_n = g(x^n, x^n - x^{n-1}) > 0    what step n has added; S_n is the sum so far
    threshold    o_n = o(x^n) > 0                     how much in all this state asks for

Learned, a contribution is no measure of progress: what lowers the expected cost is to be small
where steps still pay and large where they no longer do.

The policy is their comparison, halt at the first n with `S_n > o_n`. Its overview calls tau
objective and o subjective, all its later sections the other way round; the later ones are followed,
and the code says contribution and threshold.

Of one rollout of K steps all costs are known, hence the best step k*. The threshold learns S at k*
and the contribution a policy gradient, in turn, from samples where the policy's step is not k*.
Two departures: S_{k*} itself as the target is met exactly by a policy that goes on at k*, because
the comparison is strict, so the target lies half a contribution lower; and since all rewards are
known, the policy gradient is that of the expected cost, without sampling. The text's own forms are
settings. On mazes the first makes little difference, and sampling costs a little.

The text's threshold learns at k* alone. Before k* it may then fall below S at no loss, and where
contributions are as small as they can be, no turn of theirs brings S below it again: the policy
halts early by chance until the threshold happens to rise. `early_weight` closes that gap. After k*
it may stay above S as freely, and a policy that has missed k* never halts; `late_weight` is the
same for that side.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Literal

import torch
import torch.nn.functional as F
from jaxtyping import Bool, Float, Int
from torch import Tensor

from hrm.halting.base import Exploration, FromRollouts, Rollout, masked_sum
from hrm.halting.trajectory import accumulate, at_step, first_step, log_stopping, step_numbers
from hrm.rng import draw, slot_states

ACCUMULATED = "accumulated"
"""The memory's name: `S` after the steps so far, of each slot."""

ThresholdTarget = Literal["midpoint", "literal"]
ContributionLoss = Literal["expected", "reinforce"]
Head = Literal["threshold", "contribution"]


def policy_step(
    accumulated: Float[Tensor, "steps slots"], threshold: Float[Tensor, "steps slots"]
) -> Int[Tensor, " slots"]:
    """The policy's step: the first n with `S_n > o_n`, else K."""
    return first_step(accumulated > threshold)


@torch.no_grad()
def costs(
    task_loss: Float[Tensor, "steps slots"], step_penalty: float
) -> Float[Tensor, "steps slots"]:
    """`J_n = l_n + step_penalty * n`, without gradient."""
    return task_loss + step_penalty * step_numbers(task_loss)


def optimal_step(cost: Float[Tensor, "steps slots"], tolerance: float) -> Int[Tensor, " slots"]:
    """`k*`: the first step whose cost is at most `tolerance` above the lowest of its sample."""
    return first_step(cost <= cost.min(0).values + tolerance)


@torch.no_grad()
def threshold_target(
    accumulated: Float[Tensor, "steps slots"],
    contribution: Float[Tensor, "steps slots"],
    best: Int[Tensor, " slots"],
    kind: ThresholdTarget,
) -> Float[Tensor, " slots"]:
    """What `o` learns at k*, without gradient: `S_{k*} - tau_{k*} / 2`, or literally `S_{k*}`.

    The midpoint is halfway between `S_{k* - 1}` and `S_{k*}`, so it halts at k* and not before.
    """
    target = at_step(accumulated, best)
    return target - 0.5 * at_step(contribution, best) if kind == "midpoint" else target


def threshold_loss(
    contribution: Float[Tensor, "steps slots"],
    threshold: Float[Tensor, "steps slots"],
    best: Int[Tensor, " slots"],
    kind: ThresholdTarget,
) -> Float[Tensor, " slots"]:
    """Squared error of `o` at k*; only the threshold gets gradient, and only there."""
    target = threshold_target(accumulate(contribution.detach()), contribution, best, kind)
    return (at_step(threshold, best) - target).square()


def early_halting_loss(
    contribution: Float[Tensor, "steps slots"],
    threshold: Float[Tensor, "steps slots"],
    best: Int[Tensor, " slots"],
) -> Float[Tensor, " slots"]:
    """How far `o` lies below `S_n + tau_{n+1} / 2` at the steps n before k*, squared and summed.

    A threshold above that does not halt too early, and how far above it lies is free. At k* - 1 the
    bound is the midpoint that k* asks for. Only the threshold gets gradient.
    """
    contribution = contribution.detach()
    accumulated = accumulate(contribution)[:-1]
    lacking = (accumulated + 0.5 * contribution[1:] - threshold[:-1]).clamp(min=0)
    return torch.where(step_numbers(accumulated) < best, lacking.square(), 0.0).sum(0)


def late_halting_loss(
    contribution: Float[Tensor, "steps slots"],
    threshold: Float[Tensor, "steps slots"],
    best: Int[Tensor, " slots"],
) -> Float[Tensor, " slots"]:
    """How far `o` lies above `S_{k*} - tau_{k*} / 2` at the steps after k*, squared and summed.

    A policy that has missed k* halts at the next step then. Only the threshold gets gradient.
    """
    target = threshold_target(accumulate(contribution), contribution, best, "midpoint")
    beyond = (threshold - target).clamp(min=0)
    return torch.where(step_numbers(threshold) > best, beyond.square(), 0.0).sum(0)


def log_halting_distribution(
    accumulated: Float[Tensor, "steps slots"],
    threshold: Float[Tensor, "steps slots"],
    temperature: float,
    floor: float,
) -> Float[Tensor, "steps slots"]:
    """`log P(n)` of the policy made soft: `h_n = e + (1 - 2e) sigmoid((S_n - o_n) / T)`, h_K = 1.

    The threshold is constant here. The floor `e` keeps every step possible, so that steps which a
    collapsed policy never reaches still learn. In log space, since a product of many small chances
    underflows.
    """
    margin = (accumulated - threshold.detach()) / temperature
    if floor == 0:
        return log_stopping(F.logsigmoid(margin), F.logsigmoid(-margin))
    low, spread = torch.full_like(margin, math.log(floor)), math.log1p(-2 * floor)
    return log_stopping(
        torch.logaddexp(low, spread + F.logsigmoid(margin)),
        torch.logaddexp(low, spread + F.logsigmoid(-margin)),
    )


def halting_distribution(
    accumulated: Float[Tensor, "steps slots"],
    threshold: Float[Tensor, "steps slots"],
    temperature: float,
    floor: float,
) -> Float[Tensor, "steps slots"]:
    """`P(n)` of `log_halting_distribution`; sums to 1 over the steps."""
    return log_halting_distribution(accumulated, threshold, temperature, floor).exp()


def expected_loss(
    log_chances: Float[Tensor, "steps slots"], cost: Float[Tensor, "steps slots"]
) -> Float[Tensor, " slots"]:
    """The expected cost `sum_n P(n) J_n`; costs are constant.

    Its gradient is the policy gradient without sampling noise: no baseline is needed.
    """
    return (log_chances.exp() * cost.detach()).sum(0)


def reinforce_loss(
    log_chances: Float[Tensor, "steps slots"],
    cost: Float[Tensor, "steps slots"],
    uniforms: Float[Tensor, " slots"],
) -> Float[Tensor, " slots"]:
    """`log P(n) * (J_n - b)` at a step n drawn from P, with the expected cost as baseline b.

    REINFORCE (Williams 1992). Over the draws its gradient has the mean of `expected_loss`'s. Its
    value means nothing.

    Args:
        uniforms: one draw of [0, 1) per slot, which picks the step.
    """
    with torch.no_grad():
        chances = log_chances.exp()
        drawn = first_step(chances.cumsum(0) > uniforms)
        advantage = at_step(cost, drawn) - (chances * cost).sum(0)
    return at_step(log_chances, drawn) * advantage


def scale_anchor(
    contribution: Float[Tensor, "steps slots"],
    counted: Bool[Tensor, " slots"],
    over_processes: Callable[[Tensor], Tensor] = lambda value: value,
) -> Float[Tensor, ""]:
    """Squared log of the mean contribution over all steps of the counted slots; 0 without any.

    `(c tau, c o)` is the same policy for every c > 0, so nothing else holds the scale.

    Args:
        over_processes: the sum over those that share the slots.
    """
    number = over_processes(len(contribution) * counted.sum())
    total = over_processes(torch.where(counted, contribution, 0.0).sum())
    return torch.where(number > 0, total / number.clamp(min=1), 1.0).log().square()


class DualValue(FromRollouts):
    """Halts where `S + contribution > threshold`, outputs `contribution` and `threshold` of a step.

    Training needs whole trajectories: `rollout_losses`. A head's loss is absent where it is not its
    turn, so that its parameters have no gradient at all.

    Args:
        step_penalty: lambda, the cost of a step in units of the task loss (above 0, or k* drifts to
            K). A good one lies between the losses' usual fall per step early and late.
        optimum_tolerance: k* is the first step this close to the lowest cost (0 or more).
        threshold_target: `midpoint`, or `literal` as the text has it.
        contribution_loss: `expected`, or `reinforce`, which samples a step, as an ablation.
        temperature: of the soft policy at first and at last, in units of S and o, whose scale the
            anchor holds where the mean contribution is 1.
        anneal_updates: updates after the warm-up in which the temperature goes geometrically from
            the one to the other; 0: it is the last one throughout.
        floor: least chance to halt, and to go on, of the soft policy (0 to below 0.5).
        alternate_every: updates until the other head's turn, threshold first; 0: both, always.
        warmup_updates: before them the task alone is learned.
        conditional: only samples whose policy step is not k* teach; others count as 0, so the
            weight of one that does does not depend on how many do.
        anchor_weight: of `scale_anchor`, in the contribution's turn, per counted slot. The mean is
            taken within the micro-batch.
        early_weight: of `early_halting_loss`, in the threshold's turn.
        late_weight: of `late_halting_loss`, likewise; with both 0 the threshold learns at k* alone.
    """

    def __init__(
        self,
        max_steps: int,
        exploration_prob: float = 0.0,
        exploration: Exploration = "per_step",
        train_max_steps: int | None = None,
        *,
        step_penalty: float = 0.01,
        optimum_tolerance: float = 0.0,
        threshold_target: ThresholdTarget = "midpoint",
        contribution_loss: ContributionLoss = "expected",
        temperature: tuple[float, float] = (1.0, 0.1),
        anneal_updates: int = 1000,
        floor: float = 0.01,
        alternate_every: int = 50,
        warmup_updates: int = 0,
        conditional: bool = True,
        anchor_weight: float = 0.01,
        early_weight: float = 1.0,
        late_weight: float = 0.0,
    ) -> None:
        super().__init__(max_steps, exploration_prob, exploration, train_max_steps)
        self.step_penalty, self.optimum_tolerance = step_penalty, optimum_tolerance
        self.threshold_target: ThresholdTarget = threshold_target
        self.contribution_loss: ContributionLoss = contribution_loss
        self.temperature, self.anneal_updates, self.floor = temperature, anneal_updates, floor
        self.alternate_every, self.warmup_updates = alternate_every, warmup_updates
        self.conditional = conditional
        self.anchor_weight = anchor_weight
        self.early_weight, self.late_weight = early_weight, late_weight

    def fresh_memory(self, slots: int, device: torch.device) -> dict[str, Tensor]:
        return {ACCUMULATED: torch.zeros(slots, device=device)}

    def wish(
        self, outputs: dict[str, Tensor], extra: dict[str, Tensor]
    ) -> tuple[Bool[Tensor, " slots"], dict[str, Tensor]]:
        accumulated = extra[ACCUMULATED] + outputs["contribution"]
        return accumulated > outputs["threshold"], {**extra, ACCUMULATED: accumulated}

    def margin(
        self, outputs: dict[str, Tensor], extra: dict[str, Tensor]
    ) -> Float[Tensor, " slots"]:
        """`S_n - o_n` of a step, whose sign is the wish; `extra` is the one before the step."""
        return extra[ACCUMULATED] + outputs["contribution"] - outputs["threshold"]

    def learning(self, update: int) -> tuple[Head, ...]:
        """The heads whose turn it is after so many updates."""
        since = update - self.warmup_updates
        if since < 0:
            return ()
        if not self.alternate_every:
            return ("threshold", "contribution")
        return ("threshold",) if since // self.alternate_every % 2 == 0 else ("contribution",)

    def temperature_at(self, update: int) -> float:
        """The soft policy's temperature after so many updates."""
        first, last = self.temperature
        since = max(update - self.warmup_updates, 0)
        if since >= self.anneal_updates:
            return last
        return first * (last / first) ** (since / self.anneal_updates)

    def rollout_losses(self, rollout: Rollout, update: int) -> dict[str, Float[Tensor, ""]]:
        heads = self.learning(update)
        if not heads:
            return {}
        contribution, threshold = rollout.outputs["contribution"], rollout.outputs["threshold"]
        cost, best, step = self._judge(rollout)
        taught = rollout.counted & (step != best) if self.conditional else rollout.counted
        losses = {}
        if "threshold" in heads:
            errors = threshold_loss(contribution, threshold, best, self.threshold_target)
            losses["threshold_loss"] = masked_sum(errors, taught)
            if self.early_weight:
                lacking = early_halting_loss(contribution, threshold, best)
                losses["early_loss"] = self.early_weight * masked_sum(lacking, taught)
            if self.late_weight:
                beyond = late_halting_loss(contribution, threshold, best)
                losses["late_loss"] = self.late_weight * masked_sum(beyond, taught)
        if "contribution" in heads:
            log_chances = log_halting_distribution(
                accumulate(contribution), threshold, self.temperature_at(update), self.floor
            )
            if self.contribution_loss == "expected":
                policy_losses = expected_loss(log_chances, cost)
            else:
                # A draw depends on update and slot alone, so a resumed run repeats it.
                slots = slot_states(update, cost.shape[1], rollout.first_slot, cost.device)
                uniforms, _ = draw(slots)
                policy_losses = reinforce_loss(log_chances, cost, uniforms)
            losses["contribution_loss"] = masked_sum(policy_losses, taught)
            if self.anchor_weight:
                anchor = scale_anchor(contribution, rollout.counted, self.total)
                losses["anchor_loss"] = self.anchor_weight * rollout.counted.sum() * anchor
        return losses

    @torch.no_grad()
    def rollout_figures(self, rollout: Rollout) -> dict[str, Float[Tensor, ""]]:
        """`agreement` (k*), `regret` (cost above the lowest), `policy_steps`, `optimal_steps`."""
        cost, best, step = self._judge(rollout)
        regret = at_step(cost, step) - cost.min(0).values
        figures = {
            "agreement": (step == best).float(),
            "regret": regret,
            "policy_steps": step.float(),
            "optimal_steps": best.float(),
        }
        return {name: masked_sum(values, rollout.counted) for name, values in figures.items()}

    @torch.no_grad()
    def _judge(self, rollout: Rollout) -> tuple[Tensor, Tensor, Tensor]:
        """Costs `(steps, slots)`, k* and the policy's step `(slots,)`."""
        # Uncounted slots teach nothing, but a nan of theirs would still reach gradients.
        task_loss = torch.where(rollout.counted, rollout.task_loss, 0.0)
        cost = costs(task_loss, self.step_penalty)
        accumulated = accumulate(rollout.outputs["contribution"])
        step = policy_step(accumulated, rollout.outputs["threshold"])
        return cost, optimal_step(cost, self.optimum_tolerance), step
