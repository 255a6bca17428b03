"""A depthwise 3 x 3 convolution over the tokens of a grid that are part of a sequence."""

from __future__ import annotations

import torch
from jaxtyping import Float
from torch import Tensor, nn

from hrm.layers.casted import CastedLinear
from hrm.layers.conv import CastedConv2d
from hrm.layers.swiglu import SwiGLU, gated_silu


class GridDepthwise(nn.Module):
    """`x + conv(x)` of the tokens; what the summary in front of them holds stays."""

    def __init__(self, channels: int, height: int, width: int) -> None:
        super().__init__()
        self.height, self.width = height, width
        self.conv = CastedConv2d(channels, channels, 3, groups=channels)

    def forward(
        self, x: Float[Tensor, "slots positions channels"]
    ) -> Float[Tensor, "slots positions channels"]:
        grid = x[:, 1:].transpose(1, 2).unflatten(2, (self.height, self.width))
        near = self.conv(grid.contiguous()).flatten(2).transpose(1, 2)
        return torch.cat((x[:, :1], x[:, 1:] + near), dim=1)

    def operations(self) -> int:
        """Multiply-adds of a slot."""
        return self.conv.operations(self.height * self.width)


class LocalSwiGLU(SwiGLU):
    """SwiGLU whose inner features are mixed with those of the eight neighbours.

    As in LocalViT (Li et al. 2021, arXiv:2104.05707), with a SwiGLU in place of its MLP.
    """

    def __init__(
        self, width: int, expansion: float, multiple: int, height: int, grid_width: int
    ) -> None:
        super().__init__(width, expansion, multiple)
        inner = self.down_proj.weight.shape[1]
        self.near = GridDepthwise(inner, height, grid_width)

    def forward(
        self, x: Float[Tensor, "slots positions width"]
    ) -> Float[Tensor, "slots positions width"]:
        return self.down_proj(self.near(gated_silu(self.gate_up_proj(x))))


class GridConv(nn.Module):
    """Mixes the tokens of a grid by a depthwise convolution where attention would; the summary
    in front takes in their mean, and they nothing of it."""

    def __init__(self, width: int, height: int, grid_width: int) -> None:
        super().__init__()
        self.v_proj = CastedLinear(width, width)
        self.near = GridDepthwise(width, height, grid_width)
        self.o_proj = CastedLinear(width, width)

    def forward(
        self, x: Float[Tensor, "slots positions width"]
    ) -> Float[Tensor, "slots positions width"]:
        v = self.near(self.v_proj(x))
        mean = v[:, 1:].mean(1, keepdim=True)
        return self.o_proj(torch.cat((v[:, :1] + mean, v[:, 1:]), dim=1))

    def operations(self, positions: int) -> int:
        """Multiply-adds of a slot."""
        return positions * 2 * self.o_proj.weight.numel() + self.near.operations()
