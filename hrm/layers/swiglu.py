"""SwiGLU feed-forward network (Shazeer 2020, arXiv:2002.05202)."""

from __future__ import annotations

import torch
import torch.nn.functional as F
from jaxtyping import Float
from torch import Tensor, nn

from hrm.layers.casted import CastedLinear


def inner_width(width: int, expansion: float, multiple: int) -> int:
    """`round(2/3 * expansion * width)`, rounded up to a multiple of `multiple` (published: 256)."""
    return -(-round(expansion * width * 2 / 3) // multiple) * multiple


def gated_silu(gate_up: Float[Tensor, "*batch twice_inner"]) -> Float[Tensor, "*batch inner"]:
    """`silu(gate) * up` of the two halves."""
    gate, up = gate_up.chunk(2, dim=-1)
    # Copied first: silu on a strided half takes several times as long on a CPU.
    gate = gate.contiguous()
    if torch.is_grad_enabled():
        return F.silu(gate) * up
    return F.silu(gate, inplace=True).mul_(up)


class SwiGLU(nn.Module):
    """`W_down (silu(W_gate x) * W_up x)`; gate and up are one projection."""

    def __init__(self, width: int, expansion: float, multiple: int = 256) -> None:
        super().__init__()
        inner = inner_width(width, expansion, multiple)
        self.gate_up_proj = CastedLinear(width, 2 * inner)
        self.down_proj = CastedLinear(inner, width)

    def forward(self, x: Float[Tensor, "*batch width"]) -> Float[Tensor, "*batch width"]:
        return self.down_proj(gated_silu(self.gate_up_proj(x)))
