"""Rotary position embedding (Su et al. 2021, arXiv:2104.09864), halves rotated as in GPT-NeoX."""

from __future__ import annotations

import torch
from jaxtyping import Float
from torch import Tensor, nn


class RotaryEmbedding(nn.Module):
    """Tables of cosine and sine, `(positions, 1, head_dim)`, float32; not in the state dict."""

    cos: Tensor
    sin: Tensor

    def __init__(self, head_dim: int, positions: int, theta: float = 10000.0) -> None:
        super().__init__()
        if head_dim % 2:
            raise ValueError(f"rotary positions need an even head dimension, got {head_dim}")
        frequencies = theta ** -(torch.arange(0, head_dim, 2, dtype=torch.float32) / head_dim)
        angles = torch.outer(torch.arange(positions, dtype=torch.float32), frequencies)
        angles = torch.cat((angles, angles), dim=-1).unsqueeze(1)
        self.register_buffer("cos", angles.cos(), persistent=False)
        # The sign of rotate-half is folded into the table: no negated copy per call.
        sign = torch.cat((-torch.ones(head_dim // 2), torch.ones(head_dim // 2)))
        self.register_buffer("sin", angles.sin() * sign, persistent=False)


def apply_rotary(
    x: Float[Tensor, "*batch positions heads head_dim"], rotary: RotaryEmbedding
) -> Float[Tensor, "*batch positions heads head_dim"]:
    """Rotate each head of `x` by its position, in float32, and return it in the type of `x`."""
    swapped = torch.roll(x, x.shape[-1] // 2, dims=-1)
    return (x * rotary.cos + swapped * rotary.sin).to(x.dtype)
