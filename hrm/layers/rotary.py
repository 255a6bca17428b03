"""Rotary position embedding (Su et al. 2021, arXiv:2104.09864), halves rotated as in GPT-NeoX."""

from __future__ import annotations

from typing import Any

import torch
from jaxtyping import Float
from torch import Tensor, nn
from torch.autograd.function import once_differentiable


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


def _rotate(x: Tensor, cos: Tensor, sin: Tensor, sign: int = 1) -> Tensor:
    """`x` turned by its position, or back for `sign=-1`, in the type of `x`."""
    wide = x.to(torch.float32)
    swapped = torch.roll(wide, x.shape[-1] // 2, dims=-1)
    return (wide * cos).addcmul_(swapped, sin, value=sign).to(x.dtype)


class _Rotary(torch.autograd.Function):
    """A rotation's gradient is turned back by the same angles; nothing of `x` is kept."""

    @staticmethod
    def forward(ctx: Any, x: Tensor, cos: Tensor, sin: Tensor) -> Tensor:
        ctx.save_for_backward(cos, sin)
        return _rotate(x, cos, sin)

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, grad: Tensor) -> tuple[Tensor, None, None]:
        cos, sin = ctx.saved_tensors  # Read once: checkpointing lets nobody unpack twice.
        return _rotate(grad, cos, sin, sign=-1), None, None


def apply_rotary(
    x: Float[Tensor, "*batch positions heads head_dim"], rotary: RotaryEmbedding
) -> Float[Tensor, "*batch positions heads head_dim"]:
    """Rotate each head of `x` by its position, in float32, and return it in the type of `x`."""
    if torch.compiler.is_compiling():  # The compiler fuses the plain form itself.
        return _rotate(x, rotary.cos, rotary.sin)
    return _Rotary.apply(x, rotary.cos, rotary.sin)
