"""Made-up trajectories with a hidden difficulty, and two small heads that learn on them.

A sample of difficulty d has `d - n` steps' work left after step n, so its task loss falls until
step d and k* is spread over all steps. Features are a random projection of what is left, of the
sample's own nuisance and of noise; neither d nor n can be read from one of them, so that a
threshold alone cannot solve it: the contribution must be small while there is work left.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from hrm.halting import DualValue, Rollout, costs

STEPS, WIDTH, PENALTY = 8, 12, 0.02


@dataclass(frozen=True)
class Figures:
    """On fresh samples: shares at k*, costs above the lowest, and the policy's steps."""

    agreement: float
    regret: float
    fixed_regret: float
    """Of the best fixed depth."""
    spread: float
    """Standard deviation of the policy's steps."""
    mean_contribution: float


class Features:
    """Draws `x^0 .. x^K` `(steps + 1, slots, width)` and task losses `(steps, slots)`."""

    def __init__(self, seed: int, noise: float = 0.02) -> None:
        self.generator = torch.Generator().manual_seed(seed)
        self.noise = noise
        self.projection = self.normal(5, WIDTH)

    def normal(self, *shape: int) -> Tensor:
        return torch.randn(*shape, generator=self.generator)

    def draw(self, slots: int) -> tuple[Tensor, Tensor]:
        difficulty = STEPS * torch.rand(slots, generator=self.generator)
        left = (difficulty - torch.arange(STEPS + 1).unsqueeze(1)).clamp(min=0)
        nuisance = 0.5 * self.normal(3, slots).unsqueeze(1).expand(3, STEPS + 1, slots)
        parts = torch.stack([left / STEPS, (left / STEPS).sqrt(), *nuisance], -1)
        features = torch.tanh(parts @ self.projection)
        return features + self.noise * self.normal(*features.shape), 0.1 * left[1:]


class Heads(nn.Module):
    """`g(x^n, x^n - x^{n-1})` and `o(x^n)`, positive."""

    def __init__(self) -> None:
        super().__init__()
        self.g = nn.Sequential(nn.Linear(2 * WIDTH, 32), nn.GELU(), nn.Linear(32, 1))
        self.o = nn.Sequential(nn.Linear(WIDTH, 32), nn.GELU(), nn.Linear(32, 1))

    def forward(self, x: Tensor) -> dict[str, Tensor]:
        change = torch.cat([x[1:], x[1:] - x[:-1]], -1)
        return {
            "contribution": F.softplus(self.g(change).squeeze(-1)) + 1e-3,
            "threshold": F.softplus(self.o(x[1:]).squeeze(-1)) + 1e-3,
        }


def rollout_of(outputs: dict[str, Tensor], task_loss: Tensor) -> Rollout:
    right = torch.ones_like(task_loss, dtype=torch.bool)
    return Rollout(outputs, task_loss, right, right[0])


def train(
    seed: int,
    updates: int = 1000,
    batch: int = 128,
    lr: float = 3e-3,
    frozen: bool = False,
    sign: float = 1.0,
    **settings: Any,
) -> Figures:
    """Figures after training: `frozen` leaves g as it started, `sign` -1 climbs the costs."""
    torch.manual_seed(seed)
    features, heads = Features(seed), Heads()
    chosen: dict[str, Any] = {
        "step_penalty": PENALTY,
        "anneal_updates": updates * 3 // 4,
        "alternate_every": 20,
        **settings,
    }
    policy = DualValue(STEPS, **chosen)
    optimizer = torch.optim.Adam(heads.parameters(), lr)
    for update in range(updates):
        for group in optimizer.param_groups:
            group["lr"] = lr * min(1.0, 2 * (1 - update / updates))
        x, task_loss = features.draw(batch)
        losses = policy.rollout_losses(rollout_of(heads(x), task_loss), update)
        if "contribution_loss" in losses:
            losses["contribution_loss"] = sign * losses["contribution_loss"]
        optimizer.zero_grad()
        (torch.stack(list(losses.values())).sum() / batch).backward()
        if frozen:
            for parameter in heads.g.parameters():
                parameter.grad = None
        optimizer.step()
    return judge(policy, heads, features)


@torch.no_grad()
def judge(policy: DualValue, heads: Heads, features: Features, slots: int = 4000) -> Figures:
    x, task_loss = features.draw(slots)
    outputs = heads(x)
    sums = policy.rollout_figures(rollout_of(outputs, task_loss))
    cost = costs(task_loss, policy.step_penalty)
    above = cost - cost.min(0).values
    halts = outputs["contribution"].cumsum(0) > outputs["threshold"]
    halts[-1] = True
    return Figures(
        agreement=float(sums["agreement"]) / slots,
        regret=float(sums["regret"]) / slots,
        fixed_regret=float(above.mean(1).min()),
        spread=float(halts.int().argmax(0).float().std()),
        mean_contribution=float(outputs["contribution"].mean()),
    )
