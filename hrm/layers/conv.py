"""Convolutions with float32 parameters that compute in another type, and a norm per image."""

from __future__ import annotations

import math

import torch
import torch.nn.functional as F
from jaxtyping import Float
from torch import Tensor, nn

from hrm.layers.init import trunc_normal_init_

GROUPS = 4
"""Most groups of a `GroupNorm`: as many of these as divide the channels."""


class CastedConv2d(nn.Module):
    """A square convolution in the type of its input; LeCun-normal at first, the bias 0.

    Args:
        size: side of the kernel. With `stride == size` patches do not overlap and nothing is
            padded; otherwise `size // 2` zeros on every side.
        groups: as of `torch.nn.Conv2d`; `channels` make it depthwise.
    """

    def __init__(
        self,
        in_channels: int,
        out_channels: int,
        size: int,
        *,
        stride: int = 1,
        groups: int = 1,
        bias: bool = False,
    ) -> None:
        super().__init__()
        shape = (out_channels, in_channels // groups, size, size)
        std = math.prod(shape[1:]) ** -0.5
        self.weight = nn.Parameter(trunc_normal_init_(torch.empty(shape), std=std))
        self.bias = nn.Parameter(torch.zeros(out_channels)) if bias else None
        self.stride, self.groups = stride, groups
        self.padding = 0 if stride == size else size // 2

    def forward(
        self, x: Float[Tensor, "batch c_in height width"]
    ) -> Float[Tensor, "batch c_out out_height out_width"]:
        bias = None if self.bias is None else self.bias.to(x.dtype)
        weight = self.weight.to(x.dtype)
        return F.conv2d(x, weight, bias, self.stride, self.padding, groups=self.groups)

    def operations(self, out_pixels: int) -> int:
        """Multiply-adds for so many pixels of output."""
        return self.weight.numel() * out_pixels


class GroupNorm(nn.Module):
    """Group normalisation (Wu and He 2018, arXiv:1803.08494) in float32, in the type of `x`.

    Of an image by itself, so that neither the batch nor how often it is decoded matters.
    """

    def __init__(self, channels: int) -> None:
        super().__init__()
        self.groups = math.gcd(channels, GROUPS)
        self.weight = nn.Parameter(torch.ones(channels))
        self.bias = nn.Parameter(torch.zeros(channels))

    def forward(
        self, x: Float[Tensor, "batch channels height width"]
    ) -> Float[Tensor, "batch channels height width"]:
        return F.group_norm(x.to(torch.float32), self.groups, self.weight, self.bias).to(x.dtype)


class ConvBlock(nn.Module):
    """3 x 3 convolution, group norm, SiLU."""

    def __init__(self, in_channels: int, out_channels: int, stride: int = 1) -> None:
        super().__init__()
        self.conv = CastedConv2d(in_channels, out_channels, 3, stride=stride)
        self.norm = GroupNorm(out_channels)

    def forward(
        self, x: Float[Tensor, "batch c_in height width"]
    ) -> Float[Tensor, "batch c_out out_height out_width"]:
        return F.silu(self.norm(self.conv(x)))

    def operations(self, out_pixels: int) -> int:
        """Multiply-adds for so many pixels of output."""
        return self.conv.operations(out_pixels)


class PixelShuffleUp(nn.Module):
    """Every pixel becomes `factor * factor` pixels, by a 1 x 1 convolution and a pixel shuffle.

    The same map as a transposed convolution with stride and size `factor` (Shi et al. 2016,
    arXiv:1609.05158).
    """

    def __init__(self, in_channels: int, out_channels: int, factor: int) -> None:
        super().__init__()
        self.factor = factor
        self.conv = CastedConv2d(in_channels, out_channels * factor**2, 1, bias=True)

    def forward(
        self, x: Float[Tensor, "batch c_in height width"]
    ) -> Float[Tensor, "batch c_out out_height out_width"]:
        return F.pixel_shuffle(self.conv(x), self.factor)

    def operations(self, in_pixels: int) -> int:
        """Multiply-adds for so many pixels of input."""
        return self.conv.operations(in_pixels)
