"""Multi-head self-attention over all positions (no mask), on PyTorch's own fused kernel."""

from __future__ import annotations

import torch.nn.functional as F
from jaxtyping import Float
from torch import Tensor, nn

from hrm.layers.casted import CastedLinear
from hrm.layers.rotary import RotaryEmbedding, apply_rotary


class Attention(nn.Module):
    """Self-attention of `num_heads` heads; one projection gives queries, keys and values."""

    def __init__(self, hidden_size: int, num_heads: int) -> None:
        super().__init__()
        self.num_heads = num_heads
        self.head_dim = hidden_size // num_heads
        self.qkv_proj = CastedLinear(hidden_size, 3 * hidden_size)
        self.o_proj = CastedLinear(hidden_size, hidden_size)

    def forward(
        self, x: Float[Tensor, "batch positions width"], rotary: RotaryEmbedding | None
    ) -> Float[Tensor, "batch positions width"]:
        batch, positions, width = x.shape
        # Heads of q, then of k, then of v, as published: 3 * num_heads heads in one axis.
        qkv = self.qkv_proj(x).view(batch, positions, 3 * self.num_heads, self.head_dim)
        qk, v = qkv.split((2 * self.num_heads, self.num_heads), dim=2)
        if rotary is not None:
            qk = apply_rotary(qk, rotary)
        q, k = qk.chunk(2, dim=2)
        out = F.scaled_dot_product_attention(*(t.transpose(1, 2) for t in (q, k, v)))
        return self.o_proj(out.transpose(1, 2).reshape(batch, positions, width))
