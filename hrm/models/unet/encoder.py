"""The U-Net's encoder: pixels become features of every size, and those of the smallest tokens."""

from __future__ import annotations

import torch
import torch.nn.functional as F
from jaxtyping import Float, Int
from torch import Tensor, nn

from hrm.layers import CastedConv2d, ConvBlock, rms_norm
from hrm.models.unet.config import ACTUNetConfig


class Encoder(nn.Module):
    """A block at full size, then per downsampling a block that halves; patches become tokens.

    Features of level l have `base_channels * 2^l` channels. The receptive field stays small, so
    that what lies further apart is left to the recursion.
    """

    def __init__(self, config: ACTUNetConfig) -> None:
        super().__init__()
        self.config = config
        self.dtype: torch.dtype = getattr(torch, config.forward_dtype)
        categorical = config.values == "categorical"
        channels = config.channels * (config.vocab_size if categorical else 1)
        base = config.base_channels
        self.stem = ConvBlock(channels, base)
        self.downs = nn.ModuleList(
            [ConvBlock(base << i, base << (i + 1), stride=2) for i in range(config.downsamplings)]
        )
        last = base << config.downsamplings
        patch = config.patch_size
        self.embed = CastedConv2d(last, config.hidden_size, patch, stride=patch, bias=True)

    def planes(
        self, inputs: Int[Tensor, "rows pixels"]
    ) -> Float[Tensor, "rows planes height width"]:
        """The input as channels, padded with zeros to whole tokens."""
        config = self.config
        shape = (config.channels, config.height, config.width)
        if config.values == "categorical":
            x = F.one_hot(inputs.long(), config.vocab_size).view(-1, *shape, config.vocab_size)
            x = x.permute(0, 1, 4, 2, 3).flatten(1, 2).to(self.dtype)
        else:
            x = (inputs.to(torch.float32) / 255).to(self.dtype).view(-1, *shape)
        down, across = (-n % config.token_side for n in shape[1:])
        return F.pad(x, (0, across, 0, down)) if down or across else x

    def forward(
        self, inputs: Int[Tensor, "rows pixels"]
    ) -> tuple[Float[Tensor, "rows tokens hidden"], list[Tensor]]:
        """x^0, of unit root mean square, and every level's features, full size first."""
        features = [self.stem(self.planes(inputs))]
        for down in self.downs:
            features.append(down(features[-1]))
        tokens = self.embed(features[-1]).flatten(2).transpose(1, 2)
        return rms_norm(tokens, self.config.rms_norm_eps), features

    def operations(self) -> int:
        """Multiply-adds of an image."""
        rows, columns = self.config.grid
        pixels = rows * columns * self.config.token_side**2
        total = self.stem.operations(pixels) + self.embed.operations(rows * columns)
        for i, down in enumerate(self.downs, start=1):
            assert isinstance(down, ConvBlock)
            total += down.operations(pixels >> 2 * i)
        return total
