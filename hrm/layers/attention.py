"""Multi-head self-attention over all positions (no mask)."""

from __future__ import annotations

import torch
import torch.nn.functional as F
from jaxtyping import Float
from torch import Tensor, nn

from hrm.layers.casted import CastedLinear
from hrm.layers.rotary import RotaryEmbedding, apply_rotary

EXPLICIT_POSITIONS = 128
"""Up to so many positions a CPU computes half-precision attention by `explicit_attention`. Its
fused kernel's backward pass in bfloat16 takes four to eight times as long there; beyond, the fused
one wins, since it never writes the weights out."""


def explicit_attention(
    q: Float[Tensor, "batch queries heads head_dim"],
    k: Float[Tensor, "batch positions heads head_dim"],
    v: Float[Tensor, "batch positions heads head_dim"],
) -> Float[Tensor, "batch queries heads head_dim"]:
    """`softmax(q k^T / sqrt(head_dim)) v` as two batched products, the softmax in float32.

    The twin of `fused_attention`.
    """
    batch, queries, heads, head_dim = q.shape
    q, k, v = (t.transpose(1, 2).flatten(0, 1) for t in (q, k, v))
    scores = torch.bmm(q, k.transpose(1, 2)).to(torch.float32) * head_dim**-0.5
    out = torch.bmm(scores.softmax(-1).to(v.dtype), v)
    return out.view(batch, heads, queries, head_dim).transpose(1, 2)


def fused_attention(
    q: Float[Tensor, "batch queries heads head_dim"],
    k: Float[Tensor, "batch positions heads head_dim"],
    v: Float[Tensor, "batch positions heads head_dim"],
) -> Float[Tensor, "batch queries heads head_dim"]:
    """The same by PyTorch's fused kernel."""
    q, k, v = (t.transpose(1, 2) for t in (q, k, v))
    return F.scaled_dot_product_attention(q, k, v).transpose(1, 2)


class Attention(nn.Module):
    """Self-attention of `num_heads` heads; one projection gives queries, keys and values."""

    def __init__(self, hidden_size: int, num_heads: int) -> None:
        super().__init__()
        self.num_heads = num_heads
        self.head_dim = hidden_size // num_heads
        self.qkv_proj = CastedLinear(hidden_size, 3 * hidden_size)
        self.o_proj = CastedLinear(hidden_size, hidden_size)

    def forward(
        self,
        x: Float[Tensor, "batch positions width"],
        rotary: RotaryEmbedding | None,
        keep: int | None = None,
    ) -> Float[Tensor, "batch kept width"]:
        """All positions attended to from the first `keep` (None: from all)."""
        batch, positions, width = x.shape
        # Heads of q, then of k, then of v, as published: 3 * num_heads heads in one axis.
        qkv = self.qkv_proj(x).view(batch, positions, 3 * self.num_heads, self.head_dim)
        qk, v = qkv.split((2 * self.num_heads, self.num_heads), dim=2)
        if rotary is not None:
            qk = apply_rotary(qk, rotary)
        q, k = qk.chunk(2, dim=2)
        q = q[:, :keep]
        explicit = (
            x.device.type == "cpu" and x.dtype != torch.float32 and positions <= EXPLICIT_POSITIONS
        )
        out = (explicit_attention if explicit else fused_attention)(q, k, v)
        return self.o_proj(out.reshape(batch, q.shape[1], width))
