"""Exponential moving average of the weights, buffers included; what is evaluated and served."""

from __future__ import annotations

import torch
from torch import Tensor, nn
from torch.optim.swa_utils import AveragedModel

Tensors = tuple[Tensor, ...] | list[Tensor]


class EMA(AveragedModel):
    """`average <- rate * average + (1 - rate) * weights` after every update.

    rate: at most this. Early on `min(rate, n / (n + 10))` after n updates, so that the average is
    not held by the initial weights.
    """

    def __init__(self, model: nn.Module, rate: float) -> None:
        def average(averages: Tensors, current: Tensors, n: Tensor | int) -> None:
            count = int(n)
            torch._foreach_lerp_(list(averages), list(current), 1 - min(rate, count / (count + 10)))

        super().__init__(model, multi_avg_fn=average, use_buffers=True)
        self.module.eval()
