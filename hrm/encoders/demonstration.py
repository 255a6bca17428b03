"""One demonstration, its two grids together, becomes one vector."""

from __future__ import annotations

from typing import Literal

import torch
import torch.nn.functional as F
from jaxtyping import Bool, Float, Int
from torch import Tensor, nn
from torch.utils.checkpoint import checkpoint

from hrm.encoders.blocks import EncoderBlock
from hrm.encoders.settings import EncoderSettings, NormStyle
from hrm.layers import CastedEmbedding, rms_norm, trunc_normal_init_

PAD = 0
"""The token of a cell that is not there; no grid's colour or border."""
MOST_CELLS = 1 << 18
"""Without gradient, and with checkpointing, so many cells are worked on at once: the two grids of
a demonstration of 30 x 30 have 1800, and a batch has hundreds of demonstrations."""
PART_STD = 0.5
"""Of each of the four embeddings that a position is the sum of, so that the sum has unit RMS."""

Pool = Literal["mean", "cls"]


class DemonstrationEncoder(nn.Module):
    """A transformer over the cells of both grids, pooled: the mean, or a token in front (CLS).

    With the layout `stacked` the two grids lie one upon the other, and a place is the sum of four
    embeddings: its two tokens, a table each, its row and its column. With `sequence` they stand one
    after the other, and a cell is the sum of its token, its row, its column, and its side.

    Positions without any token (`PAD`) are dropped ahead, so that a batch is as long as its fullest
    demonstration; those that are left over there are masked.
    """

    def __init__(
        self, settings: EncoderSettings, num_layers: int, norm_style: NormStyle, pool: Pool
    ) -> None:
        super().__init__()
        width, grid, dtype = settings.hidden_size, settings.grid, settings.dtype
        self.grid, self.pool, self.eps = grid, pool, settings.rms_norm_eps
        self.pre, self.checkpointing = norm_style == "pre", settings.checkpointing

        def table(rows: int) -> CastedEmbedding:
            return CastedEmbedding(rows, width, PART_STD, dtype)

        self.embed_tokens = table(settings.vocab_size)
        self.embed_row, self.embed_column = table(grid), table(grid)
        self.stacked = settings.layout == "stacked"
        if self.stacked:
            self.embed_outputs = table(settings.vocab_size)
        else:
            self.embed_side = table(2)
        if pool == "cls":
            self.cls = nn.Parameter(trunc_normal_init_(torch.empty(width)))
        self.layers = nn.ModuleList([EncoderBlock(settings, norm_style) for _ in range(num_layers)])

    def forward(
        self, inputs: Int[Tensor, "demos cells"], outputs: Int[Tensor, "demos cells"]
    ) -> Float[Tensor, "demos width"]:
        """Each demonstration has at least one cell with a token."""
        if self.stacked:
            tokens = torch.stack((inputs, outputs), dim=2)
        else:
            tokens = torch.cat((inputs, outputs), dim=1).unsqueeze(2)
        real = (tokens != PAD).any(2)
        # Real ones first; the order does not matter, since a position says where it lies.
        places = real.to(torch.uint8).argsort(dim=1, descending=True, stable=True)
        places = places[:, : int(real.sum(1).max())]
        chosen = places.unsqueeze(2).expand(-1, -1, tokens.shape[2])
        columns = (tokens.gather(1, chosen), places, real.gather(1, places))
        saving = self.checkpointing and torch.is_grad_enabled()
        if torch.is_grad_enabled() and not saving:
            return self._encode(*columns)
        at_once = max(1, MOST_CELLS // places.shape[1])
        parts = zip(*(c.split(at_once) for c in columns), strict=True)
        if saving:
            return torch.cat([checkpoint(self._encode, *p, use_reentrant=False) for p in parts])
        return torch.cat([self._encode(*part) for part in parts])

    def _encode(
        self,
        tokens: Int[Tensor, "demos positions grids"],
        places: Int[Tensor, "demos positions"],
        real: Bool[Tensor, "demos positions"],
    ) -> Float[Tensor, "demos width"]:
        x = self.embed_tokens(tokens[..., 0]) + F.embedding(places, self._places())
        if self.stacked:
            x = x + self.embed_outputs(tokens[..., 1])
        if self.pool == "cls":
            x = torch.cat((self.cls.to(x.dtype).expand(len(x), 1, -1), x), dim=1)
            real = F.pad(real, (1, 0), value=True)
        for layer in self.layers:
            x = layer(x, real)
        if self.pool == "cls":
            x = x[:, 0]
            return rms_norm(x, self.eps) if self.pre else x
        x = rms_norm(x, self.eps) if self.pre else x
        weights = real / real.sum(1, keepdim=True)
        return torch.einsum("dp,dpw->dw", weights, x.to(torch.float32)).to(x.dtype)

    def _places(self) -> Float[Tensor, "places width"]:
        """The embedding of each place: row by row, of the input grid and then of the output grid
        if they stand one after the other."""
        numbers = torch.arange(self.grid, device=self.embed_row.embedding_weight.device)
        places = self.embed_row(numbers)[:, None] + self.embed_column(numbers)
        if not self.stacked:
            sides = self.embed_side(numbers.new_tensor([0, 1]))
            places = sides[:, None, None] + places
        return places.flatten(0, -2)
