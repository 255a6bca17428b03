"""A batch solved step by step: the trajectory of predictions, values and the policy's wishes."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Literal

import numpy as np
import torch
from jaxtyping import Bool, Float, Int
from torch import Tensor, nn

from hrm.halting import Halting
from hrm.models import ACTModel

HaltingMode = Literal["max_steps", "adaptive"]


@dataclass
class Trajectory:
    """What a batch did in each of K steps. After a row has stopped its last step is repeated."""

    predictions: Int[Tensor, "steps rows length"]
    q_halt: Float[Tensor, "steps rows"]
    q_continue: Float[Tensor, "steps rows"]
    wants: Bool[Tensor, "steps rows"]
    """The policy would halt here."""
    stopped_at: Int[Tensor, " rows"]
    """Steps that each row took."""

    @property
    def policy_steps(self) -> Int[Tensor, " rows"]:
        """The first step at which the policy would halt, K if nowhere."""
        last = len(self.wants)
        first = self.wants.to(torch.int8).argmax(0) + 1
        return torch.where(self.wants.any(0), first, last).to(torch.int32)


@contextmanager
def evaluating(model: nn.Module) -> Iterator[None]:
    """Eval mode within the block; afterwards each module is in the mode that it was in."""
    training = [module for module in model.modules() if module.training]
    model.eval()
    try:
        yield
    finally:
        for module in training:
            module.training = True


def on_device(model: nn.Module, columns: Mapping[str, np.ndarray]) -> dict[str, Tensor]:
    """The columns of a batch as tensors where the model is."""
    device = next(model.parameters()).device
    return {name: torch.from_numpy(values).to(device) for name, values in columns.items()}


@torch.inference_mode()
def solve(
    model: ACTModel,
    batch: Mapping[str, Tensor],
    halting: HaltingMode = "max_steps",
    *,
    policy: Halting | None = None,
) -> Trajectory:
    """Run every row of `batch` (`inputs` `(rows, length)`, `puzzle_identifiers` `(rows,)`).

    `max_steps` takes all steps, as published. `adaptive` takes a row out of the batch when the
    policy halts it, so later steps are cheaper; `hrm.inference.Engine` puts the next row in its
    place instead.

    Args:
        policy: in place of the model's own.
    """
    with evaluating(model):
        return _solve(model, batch, halting, policy or model.halting)


def _solve(
    model: ACTModel, batch: Mapping[str, Tensor], halting: HaltingMode, policy: Halting
) -> Trajectory:
    rows, last = batch["inputs"].shape[0], policy.max_steps
    carry = model.initial_carry(batch, seed=0, halting=policy)
    active = torch.arange(rows, device=batch["inputs"].device)
    stopped_at = torch.full((rows,), last, dtype=torch.int32, device=active.device)
    taken: list[list[Tensor]] = []
    for step in range(1, last + 1):
        memory = carry.extra
        carry, outputs = model(carry, batch, adaptive=halting == "adaptive", halting=policy)
        new = [
            outputs["logits"].argmax(-1).to(torch.int32),
            outputs["q_halt_logits"],
            outputs["q_continue_logits"],
            policy.wish(outputs, memory)[0],
        ]
        if len(active) < rows:  # Rows that have left keep what they had.
            new = [old.index_copy(0, active, n) for old, n in zip(taken[-1], new, strict=True)]
        taken.append(new)
        if carry.halted.any():
            stopped_at[active[carry.halted]] = step
            stay = (~carry.halted).nonzero().squeeze(1)
            if not len(stay):
                break
            active, carry = active[stay], carry.gather(stay)
            batch = {k: v[stay] for k, v in batch.items()}
    predictions, q_halt, q_continue, wants = map(torch.stack, zip(*taken, strict=True))
    return Trajectory(predictions, q_halt, q_continue, wants, stopped_at)
