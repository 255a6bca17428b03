"""A transformer layer that reads what is real and nothing else: of itself, or of another set."""

from __future__ import annotations

import torch.nn.functional as F
from jaxtyping import Bool, Float
from torch import Tensor, nn

from hrm.encoders.settings import EncoderSettings, NormStyle
from hrm.layers import CastedLinear, SwiGLU, rms_norm


class MaskedAttention(nn.Module):
    """Attention of `x` to those positions of `memory` that are `seen`: at least one in each row."""

    def __init__(self, width: int, num_heads: int) -> None:
        super().__init__()
        self.num_heads = num_heads
        self.q_proj = CastedLinear(width, width)
        self.kv_proj = CastedLinear(width, 2 * width)
        self.o_proj = CastedLinear(width, width)

    def forward(
        self,
        x: Float[Tensor, "rows queries width"],
        memory: Float[Tensor, "rows positions width"],
        seen: Bool[Tensor, "rows positions"],
    ) -> Float[Tensor, "rows queries width"]:
        q = self.q_proj(x).unflatten(-1, (self.num_heads, -1))
        k, v = self.kv_proj(memory).unflatten(-1, (2 * self.num_heads, -1)).chunk(2, dim=2)
        q, k, v = (t.transpose(1, 2) for t in (q, k, v))
        out = F.scaled_dot_product_attention(q, k, v, attn_mask=seen[:, None, None])
        return self.o_proj(out.transpose(1, 2).flatten(2))


class EncoderBlock(nn.Module):
    """Attention, then SwiGLU; each adds to what it read, with a norm before it or after the sum."""

    def __init__(self, settings: EncoderSettings, norm_style: NormStyle) -> None:
        super().__init__()
        width = settings.hidden_size
        self.attn = MaskedAttention(width, settings.num_heads)
        self.mlp = SwiGLU(width, settings.expansion, settings.ffn_multiple)
        self.pre, self.eps = norm_style == "pre", settings.rms_norm_eps

    def forward(
        self,
        x: Float[Tensor, "rows queries width"],
        seen: Bool[Tensor, "rows positions"],
        memory: Float[Tensor, "rows positions width"] | None = None,
    ) -> Float[Tensor, "rows queries width"]:
        """`x` after it has read `memory` (None: itself), of which `seen` says what is real."""
        if self.pre:
            read = self._norm(x)
            x = x + self.attn(read, read if memory is None else self._norm(memory), seen)
            return x + self.mlp(self._norm(x))
        x = self._norm(x + self.attn(x, x if memory is None else memory, seen))
        return self._norm(x + self.mlp(x))

    def _norm(self, x: Tensor) -> Tensor:
        return rms_norm(x, self.eps)
