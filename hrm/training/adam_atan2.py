"""Adam with atan2 in place of the division (Everett et al. 2024, arXiv:2407.05872).

No epsilon, and no update larger than the rate allows. The published recipes use version 0.0.3 of
the package adam-atan2, which divides the rate, not the momentum inside atan2, by `1 - beta1^t`;
adam-atan2-pytorch divides inside, so that its first update is 0.79 of the published one. Hence this
one, which needs no package and no CUDA.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable
from typing import Any, overload

import torch
from torch import Tensor, nn
from torch.optim import Optimizer


class AdamAtan2(Optimizer):
    """`w <- w (1 - lr wd) - lr / (1 - b1^t) * atan2(m, sqrt(v / (1 - b2^t)))`.

    m and v are the running means of the gradient and of its square, t counts updates from 1.
    """

    def __init__(
        self,
        params: Iterable[nn.Parameter],
        lr: float,
        betas: tuple[float, float] = (0.9, 0.95),
        weight_decay: float = 0.1,
    ) -> None:
        super().__init__(params, {"lr": lr, "betas": betas, "weight_decay": weight_decay})

    @overload
    def step(self, closure: None = None) -> None: ...
    @overload
    def step(self, closure: Callable[[], float]) -> float: ...
    @torch.no_grad()
    def step(self, closure: Callable[[], float] | None = None) -> float | None:
        """One update of every parameter that has a gradient."""
        loss = None
        if closure is not None:
            with torch.enable_grad():
                loss = closure()
        for group in self.param_groups:
            self._update(group)
        return loss

    def _update(self, group: dict[str, Any]) -> None:
        weights = [p for p in group["params"] if p.grad is not None]
        if not weights:
            return
        for weight in weights:
            if not self.state[weight]:
                self.state[weight] = {
                    "step": torch.zeros((), dtype=torch.float32),
                    "exp_avg": torch.zeros_like(weight),
                    "exp_avg_sq": torch.zeros_like(weight),
                }
        states = [self.state[weight] for weight in weights]
        for state in states:
            state["step"] += 1
        grads: list[Tensor] = [weight.grad for weight in weights if weight.grad is not None]
        means = [state["exp_avg"] for state in states]
        squares = [state["exp_avg_sq"] for state in states]
        steps = [float(state["step"]) for state in states]
        lr, decay, (b1, b2) = group["lr"], group["weight_decay"], group["betas"]
        torch._foreach_lerp_(means, grads, 1 - b1)
        torch._foreach_mul_(squares, b2)
        torch._foreach_addcmul_(squares, grads, grads, 1 - b2)
        torch._foreach_mul_(weights, 1 - lr * decay)
        roots = torch._foreach_sqrt(squares)
        torch._foreach_div_(roots, [(1 - b2**t) ** 0.5 for t in steps])
        for weight, mean, root, t in zip(weights, means, roots, steps, strict=True):
            weight.add_(torch.atan2(mean, root), alpha=-lr / (1 - b1**t))
