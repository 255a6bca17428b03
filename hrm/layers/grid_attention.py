"""Self-attention of the tokens of a grid and a summary in front, with 2-D rotary positions."""

from __future__ import annotations

import torch
from jaxtyping import Float
from torch import Tensor, nn

from hrm.layers.attention import fused_attention
from hrm.layers.casted import CastedLinear
from hrm.layers.rotary import apply_rotary
from hrm.layers.rotary_2d import RotaryEmbedding2d
from hrm.layers.windows import WindowAttention


class GridAttention(nn.Module):
    """Over all positions, or within windows (`WindowAttention`); the summary sees all either way.

    Args:
        window: side of a window in tokens; None, or one as large as the grid: all see all.
    """

    def __init__(
        self,
        hidden_size: int,
        num_heads: int,
        height: int,
        width: int,
        window: int | None,
        theta: float = 100.0,
    ) -> None:
        super().__init__()
        self.num_heads, self.head_dim = num_heads, hidden_size // num_heads
        self.qkv_proj = CastedLinear(hidden_size, 3 * hidden_size)
        self.o_proj = CastedLinear(hidden_size, hidden_size)
        self.rotary = RotaryEmbedding2d(self.head_dim, height, width, theta)
        small = window is not None and window < max(height, width)
        self.windows = WindowAttention(height, width, window) if window and small else None

    def forward(
        self, x: Float[Tensor, "slots positions width"]
    ) -> Float[Tensor, "slots positions width"]:
        slots, positions, width = x.shape
        qkv = self.qkv_proj(x).view(slots, positions, 3 * self.num_heads, self.head_dim)
        qk, v = qkv.split((2 * self.num_heads, self.num_heads), dim=2)
        qk = apply_rotary(qk, self.rotary)
        if self.windows is not None:
            out = self.windows(torch.cat((qk, v), dim=2))
        else:
            q, k = qk.chunk(2, dim=2)
            out = fused_attention(q, k, v)
        return self.o_proj(out.reshape(slots, positions, width))

    def operations(self, positions: int) -> int:
        """Multiply-adds of a slot."""
        width = self.num_heads * self.head_dim
        inside = 2 * positions**2 * width
        if self.windows is not None:
            inside = self.windows.operations(width)
        return positions * 4 * width**2 + inside
