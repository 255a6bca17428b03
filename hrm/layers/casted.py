"""Linear and embedding layers with float32 parameters that compute in another type."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import contextmanager

import torch
import torch.nn.functional as F
from jaxtyping import Float, Int
from torch import Tensor, nn

from hrm.layers.init import trunc_normal_init_


class CastedLinear(nn.Module):
    """`y = x W^T + b` in the type of `x`; `W` is a float32 parameter, LeCun-normal at first, `b` 0.

    Inside `cast_once` the cast copies of `W` and `b` are made once and shared by all calls: a step
    calls each layer up to 21 times.
    """

    def __init__(self, in_features: int, out_features: int, bias: bool = False) -> None:
        super().__init__()
        weight = torch.empty(out_features, in_features)
        self.weight = nn.Parameter(trunc_normal_init_(weight, std=in_features**-0.5))
        self.bias = nn.Parameter(torch.zeros(out_features)) if bias else None
        self.cast: tuple[Tensor, Tensor | None] | None = None

    def cast_to(self, dtype: torch.dtype) -> tuple[Tensor, Tensor | None]:
        """`(W, b)` in `dtype`, differentiable."""
        return self.weight.to(dtype), None if self.bias is None else self.bias.to(dtype)

    def forward(self, x: Float[Tensor, "*batch d_in"]) -> Float[Tensor, "*batch d_out"]:
        weight, bias = self.cast if self.cast is not None else self.cast_to(x.dtype)
        return F.linear(x, weight, bias)


class CastedEmbedding(nn.Module):
    """A table of float32 rows, looked up in `cast_to`. The name is the published one."""

    def __init__(self, rows: int, width: int, init_std: float, cast_to: torch.dtype) -> None:
        super().__init__()
        self.embedding_weight = nn.Parameter(trunc_normal_init_(torch.empty(rows, width), init_std))
        self.cast_to = cast_to

    def forward(self, ids: Int[Tensor, "*batch"]) -> Float[Tensor, "*batch width"]:
        # Rows are cast after the look-up: the same values, and no copy of a large table.
        return F.embedding(ids, self.embedding_weight).to(self.cast_to)


@contextmanager
def cast_once(layers: Sequence[CastedLinear], dtype: torch.dtype) -> Iterator[None]:
    """Within the block every layer uses one cast copy of its parameters."""
    if dtype == torch.float32:  # Parameters are float32 already: nothing to share.
        yield
        return
    try:
        for layer in layers:
            layer.cast = layer.cast_to(dtype)
        yield
    finally:
        for layer in layers:
            layer.cast = None
