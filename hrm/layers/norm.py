"""RMS norm without a gain (Zhang and Sennrich 2019, arXiv:1910.07467), as HRM and TRM use it."""

from __future__ import annotations

from typing import Any

import torch
from jaxtyping import Float
from torch import Tensor
from torch.autograd.function import once_differentiable


def rms_norm_plain(
    x: Float[Tensor, "*batch width"], eps: float = 1e-5
) -> Float[Tensor, "*batch width"]:
    """`x / sqrt(mean(x^2) + eps)` over the last axis, computed in float32, in the type of `x`.

    The slow twin of `rms_norm`: autograd keeps and walks every intermediate.
    """
    wide = x.to(torch.float32)
    return (wide * torch.rsqrt(wide.square().mean(-1, keepdim=True) + eps)).to(x.dtype)


class _RMSNorm(torch.autograd.Function):
    """With y = x r: dx = r (g - y mean(g y)). Keeps y, which the next layer keeps anyway, and r."""

    @staticmethod
    def forward(ctx: Any, x: Tensor, eps: float) -> Tensor:
        wide = x.to(torch.float32)
        square = torch.linalg.vector_norm(wide, dim=-1, keepdim=True).square_()
        scale = square.div_(x.shape[-1]).add_(eps).rsqrt_()
        # A copy of x may be overwritten.
        y = wide * scale if wide is x else wide.mul_(scale).to(x.dtype)
        ctx.save_for_backward(y, scale)
        return y

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, grad: Tensor) -> tuple[Tensor, None]:
        y, scale = ctx.saved_tensors  # Read once: checkpointing lets nobody unpack twice.
        wide, y_wide = grad.to(torch.float32), y.to(torch.float32)
        along = (wide * y_wide).mean(-1, keepdim=True)
        dx = torch.addcmul(wide, y_wide, along, value=-1).mul_(scale)
        return dx.to(y.dtype), None


def rms_norm(x: Float[Tensor, "*batch width"], eps: float = 1e-5) -> Float[Tensor, "*batch width"]:
    """`rms_norm_plain` with its gradient written out, a few times faster on a CPU."""
    if torch.compiler.is_compiling():  # The compiler fuses the plain form itself.
        return rms_norm_plain(x, eps)
    return _RMSNorm.apply(x, eps)
