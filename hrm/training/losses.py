"""The loss of one step: token loss per sequence, plus what the halting policy's head learns."""

from __future__ import annotations

from collections.abc import Mapping
from typing import NamedTuple

import torch
import torch.nn.functional as F
from jaxtyping import Float, Int
from torch import Tensor

from hrm.carry import Carry
from hrm.config import TokenLoss
from hrm.data.base import IGNORE
from hrm.halting import Halting


def log_stablemax_weights(x: Float[Tensor, "*batch"]) -> Float[Tensor, "*batch"]:
    """`log s(x)` with `s(x) = x + 1` for x >= 0 and `1 / (1 - x)` below (arXiv:2501.04697).

    In log space `stablemax(x) = softmax(log s(x))`, which needs no float64.
    """
    # Clamped before log1p, not with abs(): the gradient at 0 is 1, from either side.
    return torch.where(x >= 0, torch.log1p(x.clamp(min=0)), -torch.log1p((-x).clamp(min=0)))


def token_losses(
    logits: Float[Tensor, "slots length vocab"],
    labels: Int[Tensor, "slots length"],
    kind: TokenLoss,
) -> Float[Tensor, "slots length"]:
    """Cross-entropy per token in float32; 0 where the label is -100."""
    wide = logits.to(torch.float32)
    if kind == "stablemax":
        wide = log_stablemax_weights(wide)
    return F.cross_entropy(
        wide.flatten(0, 1), labels.flatten().long(), ignore_index=IGNORE, reduction="none"
    ).view(labels.shape)


def mean_losses(
    logits: Float[Tensor, "slots length vocab"],
    labels: Int[Tensor, "slots length"],
    kind: TokenLoss,
) -> Float[Tensor, " slots"]:
    """Each slot's mean loss over its tokens with a label; 0 without any."""
    return token_losses(logits, labels, kind).sum(-1) / (labels != IGNORE).sum(-1).clamp(min=1)


class StepLoss(NamedTuple):
    """A step's loss, summed over slots, and detached sums for the log."""

    loss: Float[Tensor, ""]
    sums: dict[str, Tensor]


def correctness(
    logits: Float[Tensor, "slots length vocab"], labels: Int[Tensor, "slots length"]
) -> tuple[Tensor, Tensor, Tensor]:
    """Per slot: share of right tokens, whether all are right, and whether any has a label.

    A slot without a label is neither right nor wrong; callers leave it out.
    """
    labelled = labels != IGNORE
    right = labelled & (logits.argmax(-1) == labels)
    count = labelled.sum(-1)
    return right.sum(-1) / count.clamp(min=1), right.sum(-1) == count, count > 0


def step_loss(
    outputs: Mapping[str, Tensor], carry: Carry, halting: Halting, kind: TokenLoss
) -> StepLoss:
    """Sum over slots of: mean token loss + the halting losses (which hold their 0.5), as published.

    Labels are those of `carry.current_data`: a running slot's are not those of the row that has
    just arrived. Divide by the global batch size before the backward pass. The sums over slots that
    halted in this step: `count`, `accuracy`, `exact_accuracy`, `q_halt_accuracy`, `steps`; over all
    slots with a label: `rows`, and the losses.
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
    # Logged without their 0.5, as published.
    sums |= {"loss": loss, "lm_loss": lm_loss, **{name: 2 * value for name, value in head.items()}}
    return StepLoss(loss, {name: value.detach() for name, value in sums.items()})
