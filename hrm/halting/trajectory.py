"""Whole trajectories: the step that a rule picks, values there, and halting by chance.

Tensors are `(steps, slots)` and item n - 1 is step n; steps are counted from 1.
"""

from __future__ import annotations

from itertools import accumulate as running_sums

import torch
from jaxtyping import Bool, Float, Int
from torch import Tensor


def accumulate(values: Float[Tensor, "steps slots"]) -> Float[Tensor, "steps slots"]:
    """The sums over steps 1 to n.

    Added in order, as a policy's memory adds them, so that a trajectory and a policy that is asked
    step by step agree to the bit; `cumsum` may round otherwise.
    """
    return torch.stack(list(running_sums(values.unbind(0))))


def first_step(where: Bool[Tensor, "steps slots"]) -> Int[Tensor, " slots"]:
    """The first step that is marked; the last step if none is."""
    return torch.where(where.any(0), where.int().argmax(0) + 1, len(where))


def at_step(
    values: Float[Tensor, "steps slots"], step: Int[Tensor, " slots"]
) -> Float[Tensor, " slots"]:
    """Each slot's value at its own step."""
    return values.gather(0, step.unsqueeze(0) - 1).squeeze(0)


def step_numbers(like: Float[Tensor, "steps slots"]) -> Float[Tensor, "steps 1"]:
    """1 to K as a column."""
    steps = torch.arange(1, len(like) + 1, dtype=like.dtype, device=like.device)
    return steps.unsqueeze(1)


def log_stopping(
    log_halt: Float[Tensor, "steps slots"], log_go_on: Float[Tensor, "steps slots"]
) -> Float[Tensor, "steps slots"]:
    """`log P(n)` of halting at step n, of the chances `h_n` to halt there if it is reached.

    `P(n) = h_n * prod_{j < n} (1 - h_j)` and `h_K = 1`: the last step takes what is left, so what
    the arguments say of it is not read.

    Args:
        log_halt, log_go_on: `log h_n` and `log(1 - h_n)`.
    """
    first = torch.zeros_like(log_halt[:1])
    reached = torch.cat([first, log_go_on[:-1].cumsum(0)])
    return reached + torch.cat([log_halt[:-1], first])
