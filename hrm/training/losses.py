"""The loss of one step: token loss per sequence, plus what the halting policy's head learns."""

from __future__ import annotations

from collections.abc import Mapping
from typing import NamedTuple

import torch
from jaxtyping import Bool, Float
from torch import Tensor

from hrm.carry import Carry
from hrm.halting import Halting
from hrm.halting.base import masked_sum
from hrm.token_loss import TokenLoss, correctness, mean_losses


class StepLoss(NamedTuple):
    """A step's loss, summed over slots, and detached sums for the log."""

    loss: Float[Tensor, ""]
    sums: dict[str, Tensor]


def encoder_sums(
    outputs: Mapping[str, Tensor], counted: Bool[Tensor, " slots"]
) -> dict[str, Float[Tensor, ""]]:
    """What the outputs tell of a model's encoder, summed over the counted slots: `encoded`, how
    many were encoded with gradient, and `kl`, the divergence of those, where there is one."""
    found = {"encoded": outputs["encoded"].float()} if "encoded" in outputs else {}
    if "kl" in outputs:
        found["kl"] = torch.where(outputs["encoded"], outputs["kl"], 0.0)
    return {name: masked_sum(value, counted) for name, value in found.items()}


def step_loss(
    outputs: Mapping[str, Tensor],
    carry: Carry,
    halting: Halting,
    kind: TokenLoss,
    kl_weight: float = 0.0,
) -> StepLoss:
    """Sum over slots of: mean token loss + the halting losses (which hold their 0.5), as published;
    and `kl_weight` times the divergence of a variational encoder, where it encoded at this step.

    Labels are those of `carry.current_data`: a running slot's are not those of the row that has
    just arrived. Divide by the global batch size before the backward pass. The sums over slots that
    halted in this step: `count`, `accuracy`, `exact_accuracy`, `q_halt_accuracy`, `steps`; over all
    slots with a label: `rows`, the losses, and `encoder_sums`.
    """
    labels = carry.current_data["labels"]
    lm_loss = mean_losses(outputs["logits"], labels, kind).sum()
    with torch.no_grad():
        accuracy, exact, counted = correctness(outputs["logits"], labels)
        ended = carry.halted & counted
        says_right = outputs["q_halt_logits"] >= 0
        sums = {
            "rows": counted.sum(),
            "count": ended.sum(),
            "accuracy": torch.where(ended, accuracy, 0.0).sum(),
            "exact_accuracy": (ended & exact).sum(),
            "q_halt_accuracy": (ended & (says_right == exact)).sum(),
            "steps": torch.where(ended, carry.steps, 0).sum(),
        }
    head = halting.losses(dict(outputs), exact, counted)
    loss = lm_loss + torch.stack(list(head.values())).sum()
    encoder = encoder_sums(outputs, counted)
    if "kl" in encoder:
        loss = loss + kl_weight * encoder["kl"]
    # Logged without their 0.5, as published.
    sums |= {"loss": loss, "lm_loss": lm_loss, **{name: 2 * value for name, value in head.items()}}
    sums |= encoder
    return StepLoss(loss, {name: value.detach() for name, value in sums.items()})
