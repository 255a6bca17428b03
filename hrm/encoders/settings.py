"""What an encoder is built from; the model that reads its context decides it."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

import torch

NormStyle = Literal["pre", "post"]
Layout = Literal["sequence", "stacked"]


@dataclass(frozen=True)
class EncoderSettings:
    """Sizes and choices; None is what the kind of encoder has by itself."""

    vocab_size: int
    grid: int
    """Side of the square that every grid is padded to."""
    context_tokens: int
    hidden_size: int
    num_heads: int
    layout: Layout = "stacked"
    """How a demonstration's two grids are read: one upon the other, or one after the other."""
    num_layers: int | None = None
    """Layers over the cells of a demonstration."""
    set_layers: int | None = None
    """Layers over the demonstrations of a task, of encoders that have those."""
    norm_style: NormStyle | None = None
    """Norms before the branches of a layer (pre), or after the sum as in HRM and TRM (post)."""
    latent_dim: int | None = None
    """Width of a latent, of encoders that have one; None: `hidden_size`."""
    expansion: float = 4.0
    ffn_multiple: int = 256
    rms_norm_eps: float = 1e-5
    dtype: torch.dtype = torch.float32
    """Type of the computation; parameters are float32."""
    checkpointing: bool = False
    """Recompute demonstrations in the backward pass instead of keeping them."""
