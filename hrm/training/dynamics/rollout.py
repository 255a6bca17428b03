"""A fresh carry a batch, a trajectory of all its steps with gradient, one update: `rollout`."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace

import numpy as np
import torch
from torch import Tensor

from hrm.carry import Carry
from hrm.halting.base import Rollout, masked_sum
from hrm.token_loss import correctness, mean_losses
from hrm.training.dynamics.base import Backward, Dynamics, Sums
from hrm.training.losses import encoder_sums


class Rollouts(Dynamics):
    """Every sequence takes all steps, nothing is detached between them, and the policy learns from
    the whole trajectory ("Adaptive Computation Time as Reinforcement Learning", exploration phase).

    The task loss is the policy's weighting of the losses after each step: their mean, which
    supervises every step (deep supervision), or a weighter's own.
    """

    def start(self) -> None:
        self.updates = 0

    def update(self, backward: Backward) -> Sums:
        everyone = np.ones(self.feeder.slots, dtype=bool)
        rows = {k: torch.from_numpy(v) for k, v in self.feeder.fill(everyone).items()}
        total: Sums = {}
        for part in self.slices:
            batch = {k: v[part].to(self.device) for k, v in rows.items()}
            # Each batch has random numbers of its own, as if its slots were numbered on.
            first = self.updates * self.feeder.slots + part.start
            carry = self._empty_carry(part.stop - part.start, first)
            loss, sums = self._losses(carry, batch, part.start)
            backward(loss / self.feeder.slots)
            total = {name: total.get(name, 0) + value for name, value in sums.items()}
        self.updates += 1
        return total

    def _losses(
        self, carry: Carry, batch: Mapping[str, Tensor], first_slot: int
    ) -> tuple[Tensor, Sums]:
        policy = self.model.halting
        taken: list[dict[str, Tensor]] = []
        for _ in range(policy.train_max_steps):
            carry, outputs = self.model(carry, batch, detach=False)
            labels = carry.current_data["labels"]
            logits = outputs.pop("logits")
            with torch.no_grad():
                accuracy, exact, counted = correctness(logits, labels)
            step = {"task_loss": mean_losses(logits, labels, self.loss), "exact": exact}
            taken.append({**outputs, **step, "accuracy": accuracy})
            # Nobody leaves, whatever the policy says.
            carry = replace(carry, halted=torch.zeros_like(carry.halted))
        steps = {name: torch.stack([t[name] for t in taken]) for name in taken[0]}
        task_loss, exact, accuracy = (steps.pop(k) for k in ("task_loss", "exact", "accuracy"))
        encoder = _encoder_sums(steps, counted)
        rollout = Rollout(steps, task_loss, exact, counted, first_slot)
        lm_loss = masked_sum((policy.task_weights(rollout) * task_loss).sum(0), counted)
        head = policy.rollout_losses(rollout, self.updates)
        loss = lm_loss + sum(head.values(), torch.zeros_like(lm_loss))
        loss = loss + self.kl_weight * encoder.get("kl", 0.0)
        sums = {
            "rows": counted.sum(),
            "count": counted.sum(),
            "accuracy": masked_sum(accuracy[-1], counted),
            "exact_accuracy": (counted & exact[-1]).sum(),
            "steps": len(taken) * counted.sum(),
            "loss": loss,
            "lm_loss": lm_loss,
            "last_step_loss": masked_sum(task_loss[-1], counted),
            **head,
            **encoder,
            **policy.rollout_figures(rollout),
        }
        return loss, {name: value.detach() for name, value in sums.items()}

    def idle(self) -> bool:
        return True

    def tensors(self) -> dict[str, Tensor]:
        return {"updates": torch.tensor(self.updates)}

    def load_tensors(self, tensors: Mapping[str, Tensor]) -> None:
        self.updates = int(tensors["updates"])


def _encoder_sums(steps: dict[str, Tensor], counted: Tensor) -> Sums:
    """`encoder_sums` of a trajectory, taken out of `steps`. The divergence is a mean over the times
    that a sequence was encoded, so that it counts once, however often that was."""
    if "encoded" not in steps:
        return {}
    times = steps.pop("encoded").sum(0)
    found = {"encoded": times > 0}
    if "kl" in steps:
        found["kl"] = steps.pop("kl").sum(0) / times.clamp(min=1)
    return encoder_sums(found, counted)
