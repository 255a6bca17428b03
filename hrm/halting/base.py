"""What every stopper shares: the step limit, exploration while training, and the shape of a loss.

A policy knows a step's outputs and step counts, never a model.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Literal, NamedTuple

import torch
from jaxtyping import Bool, Float, Int
from torch import Tensor

from hrm.rng import draw

Exploration = Literal["per_step", "per_episode"]
MIN_STEPS = "min_steps"


class Decision(NamedTuple):
    """What a policy says after a step: who halts, and the random and extra state that follow."""

    halted: Bool[Tensor, " slots"]
    rng: Int[Tensor, " slots"]
    extra: dict[str, Tensor]


@dataclass(frozen=True)
class Rollout:
    """A trajectory of a batch, as a policy reads it; item n - 1 of each first axis is step n."""

    outputs: Mapping[str, Tensor]
    """What the policy's heads gave, each `(steps, slots)`, float32."""
    task_loss: Float[Tensor, "steps slots"]
    """Of each sample's answer after each step, with gradient."""
    exact: Bool[Tensor, "steps slots"]
    """The answer there is entirely right."""
    counted: Bool[Tensor, " slots"]
    """The sample has any label."""
    first_slot: int = 0
    """Number of the batch's first slot among all slots of an update."""


def _alone(value: Tensor) -> Tensor:
    return value


def masked_sum(
    values: Float[Tensor, " slots"], counted: Bool[Tensor, " slots"]
) -> Float[Tensor, ""]:
    """The sum over the counted slots; what the others hold, nan even, leaves no trace."""
    return torch.where(counted, values, 0.0).sum()


class Halting(ABC):
    """A stopper: `decide` says after each step which slots halt, `losses` trains its head.

    A policy gives `wants`; one that must remember earlier steps gives `fresh_memory` and `wish`.

    Args:
        max_steps: every sequence ends at this step at the latest (1 or more).
        exploration_prob: chance, in training, that halting is held back to a step drawn evenly
            from 2 to the limit.
        exploration: `per_step` draws anew at every step (published code), `per_episode` once per
            sequence (the paper). More exploration means more steps, never fewer.
        train_max_steps: the limit in training; None: `max_steps`.
    """

    looks_ahead = False
    """In training the model takes one more step for its values only, and calls `look_ahead`."""
    learns_ahead = False
    """That further step carries gradient."""
    looks_back = False
    """In training the model evaluates the head again on what it read a step before, and calls
    `look_back`."""
    learned = True
    """Whether the policy ever halts before `max_steps`."""
    wants_change = False
    """The policy reads `latent_change`: how far the high-level latent moved in the step."""
    wants_predictions = False
    """The policy reads `logits`, so every step has to decode its answer."""
    values_halting = True
    """Whether `q_halt_logits` learn anything."""
    values_going_on = False
    """Whether `q_continue_logits` mean anything."""
    deep_supervision = True
    """On rollouts every step's task loss teaches the trunk; else the last one's alone. A weighter
    does not read it."""
    weighs = False
    """A weighter: its loss weighs the steps of a whole trajectory with gradient, so it trains on
    rollouts only."""

    def __init__(
        self,
        max_steps: int,
        exploration_prob: float = 0.0,
        exploration: Exploration = "per_step",
        train_max_steps: int | None = None,
    ) -> None:
        self.max_steps = max_steps
        self.train_max_steps = train_max_steps or max_steps
        self.exploration_prob = exploration_prob
        self.exploration = exploration
        self.total: Callable[[Tensor], Tensor] = _alone
        """The sum of a tensor over all processes, with gradient, for a loss that is no sum over
        slots; every process has to call it. Who trains in several of them sets it."""

    def limit(self, training: bool) -> int:
        """The step at which every sequence ends."""
        return self.train_max_steps if training else self.max_steps

    def wants(self, outputs: dict[str, Tensor]) -> Bool[Tensor, " slots"]:
        """The wish of a policy without memory, before the step limit and exploration."""
        raise NotImplementedError(f"{type(self).__name__} remembers earlier steps: call wish")

    def wish(
        self, outputs: dict[str, Tensor], extra: dict[str, Tensor]
    ) -> tuple[Bool[Tensor, " slots"], dict[str, Tensor]]:
        """The policy's own wish, before the step limit and exploration, and `extra` after it."""
        return self.wants(outputs), extra

    @abstractmethod
    def losses(
        self,
        outputs: dict[str, Tensor],
        correct: Bool[Tensor, " slots"],
        counted: Bool[Tensor, " slots"],
    ) -> dict[str, Float[Tensor, ""]]:
        """The head's losses by name, weighted, summed over `counted` slots (with any label)."""

    def task_weights(self, rollout: Rollout) -> Float[Tensor, "steps slots"]:
        """What each step's task loss counts; over the steps of a sample they sum to 1.

        By default the mean over all steps, which is deep supervision and no matter of the policy;
        without it the last step alone.
        """
        weights = torch.zeros_like(rollout.task_loss.detach())
        if self.deep_supervision:
            return weights + 1 / len(weights)
        weights[-1] = 1
        return weights

    def rollout_losses(self, rollout: Rollout, update: int) -> dict[str, Float[Tensor, ""]]:
        """The losses of a trajectory's heads by name, weighted, summed over its counted slots.

        By default the mean over the steps of `losses`.

        Args:
            update: updates done so far.
        """
        steps = len(rollout.task_loss)
        totals: dict[str, Tensor] = {}
        for n in range(steps):
            outputs = {name: values[n] for name, values in rollout.outputs.items()}
            for name, loss in self.losses(outputs, rollout.exact[n], rollout.counted).items():
                totals[name] = totals[name] + loss if name in totals else loss
        return {name: total / steps for name, total in totals.items()}

    def rollout_figures(self, rollout: Rollout) -> dict[str, Float[Tensor, ""]]:
        """What a log may tell of a trajectory, without gradient: sums over its counted slots."""
        return {}

    def look_ahead(
        self, ahead: dict[str, Tensor], is_last: Bool[Tensor, " slots"]
    ) -> dict[str, Tensor]:
        """What the values of the step to come add to the outputs."""
        raise NotImplementedError(f"{type(self).__name__} does not look ahead")

    def look_back(
        self,
        before: dict[str, Tensor],
        now: dict[str, Tensor],
        is_first: Bool[Tensor, " slots"],
        is_last: Bool[Tensor, " slots"],
    ) -> dict[str, Tensor]:
        """What the values of the step before, evaluated anew, add to the outputs."""
        raise NotImplementedError(f"{type(self).__name__} does not look back")

    def fresh_extra(self, slots: int, device: torch.device) -> dict[str, Tensor]:
        """What the policy keeps per slot, as a new sequence has it."""
        extra = self.fresh_memory(slots, device)
        if self.exploration == "per_episode":
            extra[MIN_STEPS] = torch.zeros(slots, dtype=torch.int32, device=device)
        return extra

    def fresh_memory(self, slots: int, device: torch.device) -> dict[str, Tensor]:
        """What `wish` keeps per slot, as a new sequence has it."""
        return {}

    @torch.no_grad()
    def decide(
        self,
        outputs: dict[str, Tensor],
        steps: Int[Tensor, " slots"],
        rng: Int[Tensor, " slots"],
        extra: dict[str, Tensor],
        *,
        training: bool,
        adaptive: bool,
    ) -> Decision:
        """Who halts after step number `steps`.

        Training follows the policy with exploration; evaluation runs to `max_steps` (the published
        way) unless `adaptive`, which follows the policy alone.
        """
        limit = self.limit(training)
        halted = steps >= limit
        wanted, extra = self.wish(outputs, extra)
        if not (training or adaptive) or limit == 1 or not self.learned:
            return Decision(halted, rng, extra)
        halted = halted | wanted
        if training and self.exploration_prob > 0:
            drawn, rng = self._draw_min_steps(rng)
            if self.exploration == "per_episode":
                drawn = torch.where(steps == 1, drawn, extra[MIN_STEPS])
                extra = {**extra, MIN_STEPS: drawn}
            halted = halted & (steps >= drawn)
        return Decision(halted, rng, extra)

    def _draw_min_steps(self, rng: Tensor) -> tuple[Tensor, Tensor]:
        """With `exploration_prob` a number from 2 to the training limit, else 0."""
        explores, rng = draw(rng)
        where, rng = draw(rng)
        steps = 2 + (where * (self.train_max_steps - 1)).to(torch.int32)
        return torch.where(explores < self.exploration_prob, steps, 0).to(torch.int32), rng


class Unlearned(Halting):
    """A stopper with nothing to learn."""

    values_halting = False

    def losses(
        self,
        outputs: dict[str, Tensor],
        correct: Bool[Tensor, " slots"],
        counted: Bool[Tensor, " slots"],
    ) -> dict[str, Float[Tensor, ""]]:
        # Zero, but on the graph: under DDP every parameter must take part.
        return {"q_halt_loss": 0.0 * outputs["q_halt_logits"].sum()}


class FromRollouts(Halting):
    """A policy that learns from whole trajectories alone, by `rollout_losses`."""

    # Its values are no log odds of being right.
    values_halting = False

    def losses(
        self,
        outputs: dict[str, Tensor],
        correct: Bool[Tensor, " slots"],
        counted: Bool[Tensor, " slots"],
    ) -> dict[str, Float[Tensor, ""]]:
        name = type(self).__name__
        raise NotImplementedError(f"{name} learns from whole trajectories: train it on rollouts")
