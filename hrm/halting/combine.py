"""Stoppers made of stoppers: confirmed for some steps, all of them, any of them.

A combination decides and teaches nothing: train with one of its members, serve with it. Members say
what they wish; the step limit and the semantics of evaluation are the combination's own.
"""

from __future__ import annotations

from abc import abstractmethod
from collections.abc import Sequence

import torch
from jaxtyping import Bool, Float, Int
from torch import Tensor

from hrm.errors import UserError
from hrm.halting.base import Halting

CONFIRMED = "confirmed"


class Combination(Halting):
    """What combinations share: each member's memory lies in `extra` under its own prefix.

    Raises:
        UserError: no member, or their step limits or exploration differ.
    """

    def __init__(self, policies: Sequence[Halting]) -> None:
        if not policies:
            raise UserError(f"{type(self).__name__}: give at least one policy")
        first = policies[0]
        for name in ("max_steps", "train_max_steps", "exploration_prob", "exploration"):
            values = [getattr(policy, name) for policy in policies]
            if any(value != values[0] for value in values):
                given = ", ".join(map(str, values))
                raise UserError(f"{type(self).__name__}: its policies differ in {name}: {given}")
        super().__init__(
            first.max_steps, first.exploration_prob, first.exploration, first.train_max_steps
        )
        self.policies = list(policies)
        self.wants_predictions = any(policy.wants_predictions for policy in policies)
        self.wants_change = any(policy.wants_change for policy in policies)
        self.values_halting = any(policy.values_halting for policy in policies)
        self.values_going_on = any(policy.values_going_on for policy in policies)

    def fresh_memory(self, slots: int, device: torch.device) -> dict[str, Tensor]:
        return {
            f"{i}.{name}": tensor
            for i, policy in enumerate(self.policies)
            for name, tensor in policy.fresh_memory(slots, device).items()
        }

    def wish(
        self, outputs: dict[str, Tensor], extra: dict[str, Tensor]
    ) -> tuple[Bool[Tensor, " slots"], dict[str, Tensor]]:
        wishes = []
        for i, policy in enumerate(self.policies):
            prefix = f"{i}."
            own = {k.removeprefix(prefix): v for k, v in extra.items() if k.startswith(prefix)}
            wanted, own = policy.wish(outputs, own)
            wishes.append(wanted)
            extra = {**extra, **{prefix + name: tensor for name, tensor in own.items()}}
        return self.join(torch.stack(wishes), extra)

    @abstractmethod
    def join(
        self, wishes: Bool[Tensor, "policies slots"], extra: dict[str, Tensor]
    ) -> tuple[Bool[Tensor, " slots"], dict[str, Tensor]]:
        """The members' wishes as one, and `extra` after it."""

    def losses(
        self,
        outputs: dict[str, Tensor],
        correct: Bool[Tensor, " slots"],
        counted: Bool[Tensor, " slots"],
    ) -> dict[str, Float[Tensor, ""]]:
        raise NotImplementedError(f"{type(self).__name__} teaches nothing: train with a member")


class Confirm(Combination):
    """Halts where the policy has wished so in each of the last `steps` steps (1: the policy).

    Raises:
        UserError: `steps` is below 1.
    """

    def __init__(self, policy: Halting, steps: int) -> None:
        super().__init__([policy])
        if steps < 1:
            raise UserError(f"Confirm: steps is {steps}, but it is at least 1")
        self.steps = steps
        self.learned = policy.learned

    def fresh_memory(self, slots: int, device: torch.device) -> dict[str, Tensor]:
        count: Int[Tensor, " slots"] = torch.zeros(slots, dtype=torch.int32, device=device)
        return {CONFIRMED: count, **super().fresh_memory(slots, device)}

    def join(
        self, wishes: Bool[Tensor, "policies slots"], extra: dict[str, Tensor]
    ) -> tuple[Bool[Tensor, " slots"], dict[str, Tensor]]:
        count = torch.where(wishes[0], extra[CONFIRMED] + 1, 0).to(torch.int32)
        return count >= self.steps, {**extra, CONFIRMED: count}


class AllOf(Combination):
    """Halts where all of the policies wish so in the same step."""

    def __init__(self, policies: Sequence[Halting]) -> None:
        super().__init__(policies)
        self.learned = all(policy.learned for policy in policies)

    def join(
        self, wishes: Bool[Tensor, "policies slots"], extra: dict[str, Tensor]
    ) -> tuple[Bool[Tensor, " slots"], dict[str, Tensor]]:
        return wishes.all(0), extra


class AnyOf(Combination):
    """Halts where any of the policies wishes so."""

    def __init__(self, policies: Sequence[Halting]) -> None:
        super().__init__(policies)
        self.learned = any(policy.learned for policy in policies)

    def join(
        self, wishes: Bool[Tensor, "policies slots"], extra: dict[str, Tensor]
    ) -> tuple[Bool[Tensor, " slots"], dict[str, Tensor]]:
        return wishes.any(0), extra
