"""What the tokens of a sequence cost, and whether they are right."""

from __future__ import annotations

from typing import Literal

import torch
import torch.nn.functional as F
from jaxtyping import Float, Int
from torch import Tensor

from hrm.data.base import IGNORE

TokenLoss = Literal["stablemax", "softmax"]


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
