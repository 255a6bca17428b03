"""Small encoders and demonstrations for tests."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor

from hrm.encoders import ENCODERS, Encoder, EncoderSettings

GRID, VOCAB, TOKENS, WIDTH = 3, 6, 4, 16
KINDS = list(ENCODERS)
LAYOUTS = ["sequence", "stacked"]

Demonstrations = tuple[Tensor, Tensor, Tensor]


def small_encoder(kind: str, **changes: Any) -> Encoder:
    settings: dict[str, Any] = {
        "vocab_size": VOCAB,
        "grid": GRID,
        "context_tokens": TOKENS,
        "hidden_size": WIDTH,
        "num_heads": 2,
        "ffn_multiple": 8,
    }
    return ENCODERS[kind](EncoderSettings(**{**settings, **changes}))


def demonstrations(
    slots: int = 3, demos: int = 4, seed: int = 0, grid: int = GRID, lowest: int = 1
) -> Demonstrations:
    """Random inputs, outputs and mask; slot 0 has all demonstrations, slot i leaves out i of them,
    the last of them, which are PAD throughout."""
    generator = torch.Generator().manual_seed(seed)
    shape = (slots, demos, grid**2)
    inputs, outputs = (
        torch.randint(lowest, VOCAB, shape, generator=generator, dtype=torch.int32)
        for _ in range(2)
    )
    mask = (torch.arange(demos) < demos - torch.arange(slots)[:, None]).to(torch.int32)
    return inputs * mask[..., None], outputs * mask[..., None], mask
