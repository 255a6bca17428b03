"""What halting policies read of a state: two value functions, or one logit."""

from __future__ import annotations

import math

import torch
import torch.nn.functional as F
from jaxtyping import Float
from torch import Tensor, nn

from hrm.layers import CastedLinear

LEAST = 1e-3
"""Contributions and thresholds lie above it, so that S grows at a fixed point too."""


def _last(width: int, bias: float) -> CastedLinear:
    """A layer to one number that starts near `bias`."""
    layer = CastedLinear(width, 1, bias=True)
    assert layer.bias is not None
    with torch.no_grad():
        layer.weight.mul_(0.1)
        layer.bias.fill_(bias)
    return layer


def _before_softplus(value: float) -> float:
    return float(value + math.log(-math.expm1(-value)))


class LogitHead(nn.Module):
    """One logit of a state, near `bias` at first: an MLP of every position's state and change, the
    mean and the largest over positions, an MLP. A contribution is read in the same way, so that
    policies differ in how they learn and not in what they see."""

    def __init__(self, width: int, bias: float) -> None:
        super().__init__()
        self.each = CastedLinear(2 * width, width, bias=True)
        self.pooled = CastedLinear(2 * width, width, bias=True)
        self.last = _last(width, bias)

    def forward(
        self,
        state: Float[Tensor, "slots positions hidden"],
        before: Float[Tensor, "slots positions hidden"],
    ) -> Float[Tensor, " slots"]:
        x = torch.cat((state, state - before), dim=-1).to(torch.float32)
        x = F.silu(self.each(x))
        x = F.silu(self.pooled(torch.cat((x.mean(1), x.amax(1)), dim=-1)))
        return self.last(x).squeeze(-1)

    def operations(self, positions: int) -> int:
        """Multiply-adds of a step of a slot."""
        rest = self.pooled.weight.numel() + self.last.weight.numel()
        return positions * self.each.weight.numel() + rest


class ContributionHead(LogitHead):
    """`tau = g(x^n, x^n - x^{n-1}) > 0`, near 1 at first."""

    def __init__(self, width: int) -> None:
        super().__init__(width, _before_softplus(1.0))

    def forward(
        self,
        state: Float[Tensor, "slots positions hidden"],
        before: Float[Tensor, "slots positions hidden"],
    ) -> Float[Tensor, " slots"]:
        return F.softplus(super().forward(state, before)) + LEAST


class ThresholdHead(nn.Module):
    """`o(x^n) > 0` of the summary token; near half the steps at first, so that a policy that knows
    nothing halts midway."""

    def __init__(self, width: int, max_steps: int) -> None:
        super().__init__()
        self.first = CastedLinear(width, width, bias=True)
        self.last = _last(width, _before_softplus((max_steps + 1) / 2))

    def forward(self, cls: Float[Tensor, "slots hidden"]) -> Float[Tensor, " slots"]:
        x = F.silu(self.first(cls.to(torch.float32)))
        return F.softplus(self.last(x).squeeze(-1)) + LEAST

    def operations(self) -> int:
        """Multiply-adds of a step of a slot."""
        return self.first.weight.numel() + self.last.weight.numel()
