"""A policy played over a hand-made sequence of outputs."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor

from hrm.halting import Halting
from hrm.rng import slot_states

CPU = torch.device("cpu")


def outputs_of(
    q_halt: Sequence[float] | None = None,
    q_continue: Sequence[float] | None = None,
    change: Sequence[float] | None = None,
    tokens: Sequence[Sequence[int]] | None = None,
) -> dict[str, Tensor]:
    """A step's outputs, one item a slot; predictions as logits over ten tokens."""
    given = next(v for v in (q_halt, q_continue, change, tokens) if v is not None)
    slots = len(given)
    zeros = [0.0] * slots
    outputs = {
        "q_halt_logits": torch.tensor(zeros if q_halt is None else list(q_halt)),
        "q_continue_logits": torch.tensor(zeros if q_continue is None else list(q_continue)),
        "latent_change": torch.tensor(zeros if change is None else list(change)),
    }
    ids = torch.tensor([[0, 0, 0]] * slots if tokens is None else [list(t) for t in tokens])
    outputs["logits"] = torch.nn.functional.one_hot(ids, 10).float()
    return outputs


def halting_steps(policy: Halting, sequence: Sequence[dict[str, Tensor]], **mode: Any) -> list[int]:
    """The first step at which each slot halts; one more than there are steps if none is."""
    slots = len(sequence[0]["q_halt_logits"])
    mode = {"training": False, "adaptive": True, **mode}
    rng, extra = slot_states(0, slots), policy.fresh_extra(slots, CPU)
    found = torch.full((slots,), len(sequence) + 1)
    for step, outputs in enumerate(sequence, start=1):
        steps = torch.full((slots,), step, dtype=torch.int32)
        halted, rng, extra = policy.decide(outputs, steps, rng, extra, **mode)
        found = torch.where(halted & (found > step), step, found)
    return found.tolist()
