"""From tokens back to pixels: one light head per token, or the U-Net's convolutional decoder.

What of the encoder's features they read does not change from step to step, so it is prepared once,
when an image is admitted, and lies in the carry.
"""

from __future__ import annotations

from abc import abstractmethod
from collections.abc import Sequence

import torch
import torch.nn.functional as F
from jaxtyping import Float
from torch import Tensor, nn

from hrm.layers import CastedConv2d, CastedLinear, ConvBlock, PixelShuffleUp
from hrm.models.unet.config import ACTUNetConfig


class Decoder(nn.Module):
    """`prepare` once, `forward` for every answer."""

    def __init__(self, config: ACTUNetConfig) -> None:
        super().__init__()
        self.config = config
        rows, columns = config.grid
        self.tokens, self.pixels = rows * columns, rows * columns * config.token_side**2

    @abstractmethod
    def prepare(self, features: Sequence[Tensor]) -> list[Tensor]:
        """What it will read of every level's features, one row an image."""

    @abstractmethod
    def prepared_shapes(self) -> list[tuple[int, ...]]:
        """Shapes of that, of one image."""

    @abstractmethod
    def forward(
        self, tokens: Float[Tensor, "rows tokens hidden"], prepared: Sequence[Tensor]
    ) -> Float[Tensor, "rows pixels classes"]:
        """The logits."""

    @abstractmethod
    def operations(self) -> int:
        """Multiply-adds of an answer."""

    def preparing_operations(self) -> int:
        """Multiply-adds of `prepare` of an image."""
        return 0


class TokenDecoder(Decoder):
    """Every token gives features of its pixels, to which the encoder's full-size features are
    added; one pixelwise layer on top."""

    def __init__(self, config: ACTUNetConfig) -> None:
        super().__init__(config)
        self.channels = max(4, config.base_channels // 2)
        self.up = CastedLinear(config.hidden_size, config.token_side**2 * self.channels)
        self.skip = CastedConv2d(config.base_channels, self.channels, 1, bias=True)
        self.head = CastedLinear(self.channels, config.classes, bias=True)

    def prepare(self, features: Sequence[Tensor]) -> list[Tensor]:
        (rows, columns), side = self.config.grid, self.config.token_side
        pixels = self.skip(features[0]).unflatten(3, (columns, side)).unflatten(2, (rows, side))
        # Pixels of a token side by side: no step has to bring them there.
        return [pixels.permute(0, 2, 4, 3, 5, 1).flatten(1, 2).flatten(2, 4)]

    def prepared_shapes(self) -> list[tuple[int, ...]]:
        return [(self.tokens, self.config.token_side**2 * self.channels)]

    def forward(
        self, tokens: Float[Tensor, "rows tokens hidden"], prepared: Sequence[Tensor]
    ) -> Float[Tensor, "rows pixels classes"]:
        config, (rows, columns), side = self.config, self.config.grid, self.config.token_side
        pixels = F.silu(self.up(tokens) + prepared[0]).unflatten(2, (-1, self.channels))
        logits = self.head(pixels).view(-1, rows, columns, side, side, config.classes)
        image = logits.transpose(2, 3).flatten(3, 4).flatten(1, 2)
        return image[:, : config.height, : config.width].flatten(1, 2)

    def operations(self) -> int:
        pixelwise = self.pixels * self.head.weight.numel()
        return self.tokens * self.up.weight.numel() + pixelwise

    def preparing_operations(self) -> int:
        return self.skip.operations(self.pixels)


class FullDecoder(Decoder):
    """Patches are taken apart, then level by level: twice the size, the encoder's features beside
    it, a block. Without downsamplings there is one block, at full size."""

    def __init__(self, config: ACTUNetConfig) -> None:
        super().__init__(config)
        base, levels = config.base_channels, config.downsamplings
        self.levels = max(levels, 1)
        self.unpatch = PixelShuffleUp(config.hidden_size, base << levels, config.patch_size)
        self.ups = nn.ModuleList(
            [PixelShuffleUp(base << (i + 1), base << i, 2) for i in reversed(range(levels))]
        )
        self.blocks = nn.ModuleList(
            [ConvBlock(2 * base << i, base << i) for i in reversed(range(self.levels))]
        )
        self.head = CastedConv2d(base, config.classes, 1, bias=True)

    def prepare(self, features: Sequence[Tensor]) -> list[Tensor]:
        return list(features[: self.levels])

    def prepared_shapes(self) -> list[tuple[int, ...]]:
        rows, columns = (n * self.config.token_side for n in self.config.grid)
        base = self.config.base_channels
        return [(base << i, rows >> i, columns >> i) for i in range(self.levels)]

    def forward(
        self, tokens: Float[Tensor, "rows tokens hidden"], prepared: Sequence[Tensor]
    ) -> Float[Tensor, "rows pixels classes"]:
        config = self.config
        x = self.unpatch(tokens.transpose(1, 2).unflatten(2, config.grid).contiguous())
        ups = list(self.ups) or [nn.Identity()]
        for up, block, skip in zip(ups, self.blocks, reversed(prepared), strict=True):
            x = block(torch.cat((up(x), skip), dim=1))
        return self.head(x)[:, :, : config.height, : config.width].flatten(2).transpose(1, 2)

    def operations(self) -> int:
        total = self.unpatch.operations(self.tokens) + self.head.operations(self.pixels)
        for i in range(self.levels):  # Of the level of 1 / 4^i of all pixels.
            block = self.blocks[-1 - i]
            assert isinstance(block, ConvBlock)
            total += block.operations(self.pixels >> 2 * i)
        for i in range(len(self.ups)):
            up = self.ups[-1 - i]
            assert isinstance(up, PixelShuffleUp)
            total += up.operations(self.pixels >> 2 * (i + 1))
        return total
