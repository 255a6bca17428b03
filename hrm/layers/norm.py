"""RMS norm without a gain (Zhang and Sennrich 2019, arXiv:1910.07467), as HRM and TRM use it."""

from __future__ import annotations

import torch
from jaxtyping import Float
from torch import Tensor


def rms_norm(x: Float[Tensor, "*batch width"], eps: float = 1e-5) -> Float[Tensor, "*batch width"]:
    """`x / sqrt(mean(x^2) + eps)` over the last axis, computed in float32, in the type of `x`."""
    wide = x.to(torch.float32)
    return (wide * torch.rsqrt(wide.square().mean(-1, keepdim=True) + eps)).to(x.dtype)
