"""TRM (Jolicoeur-Martineau 2025, arXiv:2510.04871): one small network plays both of HRM's levels.

A step is `H_cycles` high-level cycles; all but the last run without gradient, the last one whole
with it. Tokens are mixed by attention or, in TRM-MLP, by a SwiGLU over positions.
"""

from __future__ import annotations

from collections.abc import Callable

from torch import Tensor, nn

from hrm.layers import RotaryEmbedding, SwiGLU, rms_norm
from hrm.models.base import Block, Inner, Latents, ReasoningModule, TokenModel
from hrm.models.config import OneNetworkConfig, TRMConfig


class MixerBlock(nn.Module):
    """A SwiGLU over positions, then one over features, each followed by a norm of the sum."""

    def __init__(self, config: OneNetworkConfig) -> None:
        super().__init__()
        positions = config.seq_len + config.puzzle_positions
        expansion = config.mix_expansion or config.expansion
        self.mlp_t = SwiGLU(positions, expansion, config.ffn_multiple)
        self.mlp = SwiGLU(config.hidden_size, config.expansion, config.ffn_multiple)
        self.eps = config.rms_norm_eps
        self.norm_positions = config.mix_norm == "positions"

    def forward(self, x: Tensor, rotary: RotaryEmbedding | None, keep: int | None = None) -> Tensor:
        """The first `keep` positions of the output (None: all)."""
        if self.norm_positions:
            across = x.transpose(1, 2).contiguous()
            x = rms_norm(across + self.mlp_t(across), self.eps).transpose(1, 2)
        else:
            x = rms_norm(x + self.mlp_t(x.transpose(1, 2)).transpose(1, 2), self.eps)
        x = x[:, :keep]
        return rms_norm(x + self.mlp(x), self.eps)


class TRMInner(Inner):
    """`L_level` is the one network; it sees the input only when it updates `z_L`."""

    def make_levels(self, config: OneNetworkConfig) -> None:
        block = MixerBlock if config.mlp_t else Block
        self.L_level = ReasoningModule([block(config) for _ in range(config.L_layers)])

    def low(self, z: Latents, x: Tensor) -> Latents:
        return Latents(z.z_H, self.L_level(z.z_L, z.z_H + x, self.rotary))

    def high(self, z: Latents, x: Tensor, keep: int | None = None) -> Latents:
        return Latents(self.L_level(z.z_H, z.z_L, self.rotary, keep), z.z_L)

    def cycles(self) -> list[Callable[[Latents, Tensor], Latents]]:
        return ([self.low] * self.config.L_cycles + [self.high]) * self.config.H_cycles

    def default_grad_cycles(self) -> int:
        return self.config.L_cycles + 1


class TRM(TokenModel):
    """`TRM(config)`: `config` is a dict or `TRMConfig`."""

    config_type = TRMConfig
    inner_type = TRMInner
