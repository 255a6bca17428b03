"""HRM with adaptive computation time (Wang et al. 2025, arXiv:2506.21734), as published.

A step is `H_cycles` high-level cycles, each of `L_cycles` low-level cycles and one high-level
update. Only the last low-level and the last high-level application carry gradient (the "1-step
gradient"): with two and two cycles the low level runs 4 times and the high level twice, of which 3
and 1 without gradient.
"""

from __future__ import annotations

from collections.abc import Callable

from torch import Tensor

from hrm.models.base import Block, Inner, Latents, ReasoningModule, TokenModel
from hrm.models.config import HRMACTv1Config


class HRMInner(Inner):
    """Two networks: the low level works on the input, the high level steers it."""

    def make_levels(self, config: HRMACTv1Config) -> None:
        self.H_level = ReasoningModule([Block(config) for _ in range(config.H_layers)])
        self.L_level = ReasoningModule([Block(config) for _ in range(config.L_layers)])

    def low(self, z: Latents, x: Tensor) -> Latents:
        return Latents(z.z_H, self.L_level(z.z_L, z.z_H + x, self.rotary))

    def high(self, z: Latents, x: Tensor, keep: int | None = None) -> Latents:
        return Latents(self.H_level(z.z_H, z.z_L, self.rotary, keep), z.z_L)

    def cycles(self) -> list[Callable[[Latents, Tensor], Latents]]:
        return ([self.low] * self.config.L_cycles + [self.high]) * self.config.H_cycles

    def default_grad_cycles(self) -> int:
        return 2


class HRMACTv1(TokenModel):
    """`HRMACTv1(config)`: `config` is a dict or `HRMACTv1Config`."""

    config_type = HRMACTv1Config
    inner_type = HRMInner
