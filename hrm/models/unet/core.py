"""The recurrent core: one function of the state, the same at every step.

A state is the tokens of the grid and a summary token (CLS).
"""

from __future__ import annotations

from typing import NamedTuple

import torch
import torch.nn.functional as F
from jaxtyping import Float
from torch import Tensor, nn

from hrm.layers import (
    CastedLinear,
    GridAttention,
    GridConv,
    LocalSwiGLU,
    SwiGLU,
    rms_norm,
    trunc_normal_init_,
)
from hrm.models.unet.config import ACTUNetConfig


class State(NamedTuple):
    """x^n, in `forward_dtype`."""

    tokens: Float[Tensor, "slots tokens hidden"]
    cls: Float[Tensor, "slots hidden"]

    def joined(self) -> Float[Tensor, "slots positions hidden"]:
        """One sequence, the summary in front."""
        return torch.cat((self.cls.unsqueeze(1), self.tokens), dim=1)

    @classmethod
    def split(cls, joined: Float[Tensor, "slots positions hidden"]) -> State:
        """The inverse of `joined`."""
        return cls(joined[:, 1:], joined[:, 0])


class CoreLayer(nn.Module):
    """Mixing over positions, then SwiGLU, each followed by a norm of the sum (post-norm), so that
    the state keeps its size however often the layer is applied."""

    def __init__(self, config: ACTUNetConfig) -> None:
        super().__init__()
        width, (rows, columns) = config.hidden_size, config.grid
        self.eps, self.positions = config.rms_norm_eps, 1 + rows * columns
        self.mixer: GridAttention | GridConv
        if config.core == "conv":
            self.mixer = GridConv(width, rows, columns)
        else:
            self.mixer = GridAttention(
                width, config.num_heads, rows, columns, config.window, config.rope_theta
            )
        sizes = width, config.expansion, config.ffn_multiple
        self.mlp = LocalSwiGLU(*sizes, rows, columns) if config.local_conv else SwiGLU(*sizes)
        self.pool_proj = CastedLinear(width, width) if config.global_pool else None
        with torch.no_grad():
            for layer in (self.mixer.o_proj, self.mlp.down_proj):
                layer.weight.mul_(config.branch_init_scale)
            if self.pool_proj is not None:
                self.pool_proj.weight.mul_(config.branch_init_scale)

    def forward(
        self, x: Float[Tensor, "slots positions hidden"]
    ) -> Float[Tensor, "slots positions hidden"]:
        mixed = x + self.mixer(x)
        if self.pool_proj is not None:
            mixed = mixed + self.pool_proj(x[:, 1:].mean(1, keepdim=True))
        x = rms_norm(mixed, self.eps)
        return rms_norm(x + self.mlp(x), self.eps)

    def operations(self) -> int:
        """Multiply-adds of a slot."""
        mlp = self.mlp.gate_up_proj.weight.numel() + self.mlp.down_proj.weight.numel()
        total = self.mixer.operations(self.positions) + self.positions * mlp
        if isinstance(self.mlp, LocalSwiGLU):
            total += self.mlp.near.operations()
        return total + (0 if self.pool_proj is None else self.pool_proj.weight.numel())


class Gate(nn.Module):
    """`before + s (after - before)`; both decide on `s`, between 0 and 1, of each feature."""

    def __init__(self, width: int) -> None:
        super().__init__()
        self.of_before = CastedLinear(width, width)
        self.of_after = CastedLinear(width, width, bias=True)

    def forward(
        self,
        before: Float[Tensor, "slots positions hidden"],
        after: Float[Tensor, "slots positions hidden"],
    ) -> Float[Tensor, "slots positions hidden"]:
        share = (self.of_before(before) + self.of_after(after)).sigmoid()
        return torch.lerp(before, after, share)

    def operations(self, positions: int) -> int:
        """Multiply-adds of a slot."""
        return positions * 2 * self.of_after.weight.numel()


class Core(nn.Module):
    """`x^{n+1} = f(x^n)`: the layers, and as set the input added before and a gate behind them."""

    def __init__(self, config: ACTUNetConfig) -> None:
        super().__init__()
        width = config.hidden_size
        self.first_cls = nn.Parameter(trunc_normal_init_(torch.empty(width)))
        self.layers = nn.ModuleList([CoreLayer(config) for _ in range(config.core_layers)])
        self.gate = Gate(width) if config.gate else None
        self.positions = 1 + config.grid[0] * config.grid[1]

    def forward(
        self,
        before: Float[Tensor, "slots positions hidden"],
        x0: Float[Tensor, "slots tokens hidden"] | None,
    ) -> Float[Tensor, "slots positions hidden"]:
        """The next state, both with the summary in front.

        x0: the embedded input, added to the tokens; None: without.
        """
        x = before if x0 is None else before + F.pad(x0, (0, 0, 1, 0))
        for layer in self.layers:
            x = layer(x)
        return x if self.gate is None else self.gate(before, x)

    def operations(self) -> int:
        """Multiply-adds of a step of a slot."""
        layers = sum(layer.operations() for layer in self.layers if isinstance(layer, CoreLayer))
        return layers + (0 if self.gate is None else self.gate.operations(self.positions))
