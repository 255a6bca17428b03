"""TRM that learns a task from its demonstrations: an encoder in place of the puzzle embedding.

    encoder     the demonstrations of a task -> context tokens (`hrm.encoders`)
    a step      TRM's, with the context in front of the tokens where TRM has a puzzle's embedding

A puzzle embedding is a row that only training on that very task fills; the context is computed, so
that the model can be asked about a task that it has never seen.

With `context=cache` the encoder runs when a sequence moves into a slot, gets its gradient from that
one step, and what it found lies detached in the carry until the sequence ends. With
`context=reencode` it runs at each training step for all slots. At evaluation it runs once a
sequence either way, and nothing is drawn.

New sequences are encoded as a batch of their own, whose size is chance, so answers equal those of
solving a puzzle alone up to rounding, not to the bit.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import replace
from typing import Any, ClassVar, Literal

import torch
from jaxtyping import Float
from pydantic import Field, model_validator
from torch import Tensor, nn

from hrm.carry import Carry
from hrm.data.base import Metadata
from hrm.encoders import ENCODERS, Encoded, Encoder, EncoderSettings, Layout, NormStyle
from hrm.errors import UserError
from hrm.halting import Halting
from hrm.models.act import Column
from hrm.models.base import TokenModel
from hrm.models.config import OneNetworkConfig, TokenModelConfig
from hrm.models.trm import TRMInner
from hrm.rng import fork

CONTEXT = "context"
"""In `extra`: what the encoder made of the slot's task, `(slots, context_tokens, hidden_size)`."""
ROOM = 10
"""The engine has room for so many demonstrations at least, the most that a public ARC task has."""

EncoderName = Literal[
    "standard", "hybrid_standard", "hybrid_variational", "lpn_standard", "lpn_variational"
]


class ETRMConfig(OneNetworkConfig):
    """TRM's settings, and those of the encoder; null is what the kind of encoder has by itself."""

    from_data: ClassVar[Mapping[str, Any]] = {**TokenModelConfig.from_data, "demonstrations": 1}
    puzzle_emb_ndim: ClassVar[int] = 0  # type: ignore[misc]
    """The context is in its place."""

    demonstrations: int = Field(ge=1)
    """Most demonstrations of a task in the data; no weight depends on it."""

    context_tokens: int = Field(default=16, ge=1)
    """Positions in front of the tokens that hold the context; as many as published TRM has for a
    puzzle's embedding, so that a decoder which was trained with those can be taken over."""
    context: Literal["cache", "reencode"] = "cache"
    """When the encoder runs in training: once, as a sequence starts, with gradient from that step
    alone; or at every step, for all slots."""
    encoder_type: EncoderName = "standard"
    """`standard`: shallow, mean of the cells. `hybrid_*`: deeper, CLS. `lpn_*`: a latent for each
    demonstration, and their mean. `*_variational`: with a Gaussian, whose divergence the loss has
    with `kl_weight`."""
    encoder_layout: Layout = "stacked"
    """How a demonstration's two grids are read: `stacked`, one upon the other, or `sequence`, one
    after the other. Stacked is half as many positions, and what becomes of a cell stands in its
    place, where an encoder of a sequence has first to learn which two cells belong together."""
    encoder_num_layers: int | None = Field(default=None, ge=1)
    """Layers over the cells of a demonstration; null: standard 2, others 4."""
    encoder_set_layers: int | None = Field(default=None, ge=1)
    """Layers over the demonstrations of a task; null: standard 1, hybrid 2. `lpn_*` has none."""
    encoder_norm_style: NormStyle | None = None
    """Norms before the branches, or after the sum as in TRM; null: standard post, others pre."""
    encoder_latent_dim: int | None = Field(default=None, ge=1)
    """Width of a latent (of each context token's with `hybrid_variational`); null: hidden_size."""

    @model_validator(mode="after")
    def _check_encoder(self) -> ETRMConfig:
        kind = ENCODERS[self.encoder_type]
        if math.isqrt(self.seq_len) ** 2 != self.seq_len:
            raise ValueError(f"seq_len: {self.seq_len} tokens are no square grid")
        if self.encoder_set_layers is not None and kind.set_layers is None:
            raise ValueError(
                f"encoder_set_layers: encoder_type={self.encoder_type} takes the mean of the "
                "demonstrations and has none; leave it null"
            )
        if self.encoder_latent_dim is not None and not kind.has_latent:
            raise ValueError(
                f"encoder_latent_dim: encoder_type={self.encoder_type} has no latent; leave it null"
            )
        return self

    @property
    def puzzle_positions(self) -> int:
        return self.context_tokens

    @classmethod
    def read_data(cls, data: Metadata) -> dict[str, Any]:
        if data.demonstrations is None:
            raise UserError(
                "arch: a model with an encoder learns a task from its demonstrations, and this "
                "data set has none; hrm prepare arc makes one that has"
            )
        return super().read_data(data)

    def encoder_settings(self) -> EncoderSettings:
        """What the encoder is built from."""
        return EncoderSettings(
            vocab_size=self.vocab_size,
            grid=math.isqrt(self.seq_len),
            context_tokens=self.context_tokens,
            hidden_size=self.hidden_size,
            num_heads=self.num_heads,
            layout=self.encoder_layout,
            num_layers=self.encoder_num_layers,
            set_layers=self.encoder_set_layers,
            norm_style=self.encoder_norm_style,
            latent_dim=self.encoder_latent_dim,
            expansion=self.expansion,
            ffn_multiple=self.ffn_multiple,
            rms_norm_eps=self.rms_norm_eps,
            dtype=getattr(torch, self.forward_dtype),
            checkpointing=self.gradient_checkpointing,
        )


class ETRMInner(TRMInner):
    """TRM's recursion; the data that it embeds have the context among them."""

    def in_front(self, data: Mapping[str, Tensor]) -> Float[Tensor, "slots puzzle_positions width"]:
        # As loud as tokens: `embed` multiplies both by the root of the width.
        return data[CONTEXT] / math.sqrt(self.config.hidden_size)


class ETRM(TokenModel):
    """`ETRM(config)`: `config` is a dict or `ETRMConfig`.

    A batch has, beside `inputs`, `demo_inputs` and `demo_outputs` `(slots, D, seq_len)` and
    `demo_mask` `(slots, D)`, 1 where there is a demonstration. Any D will do.
    """

    config_type = ETRMConfig
    inner_type = ETRMInner
    has_encoder = True

    def __init__(self, config: Any) -> None:
        super().__init__(config)
        self.encoder: Encoder = ENCODERS[self.config.encoder_type](self.config.encoder_settings())

    @property
    def columns(self) -> dict[str, Column]:
        config = self.config
        room = max(ROOM, config.demonstrations)
        grids = Column((room, config.seq_len), config.vocab_size, shorter=True)
        shown = {"demo_inputs": grids, "demo_outputs": grids}
        return super().columns | shown | {"demo_mask": Column((room,), 2, shorter=True)}

    def parameter_groups(self) -> dict[str, list[nn.Parameter]]:
        """`trunk`, the decoder, and `encoder`; one loss teaches both."""
        return {
            "trunk": list(self.inner.parameters()),
            "encoder": list(self.encoder.parameters()),
        }

    def initial_carry(
        self,
        batch: Mapping[str, Tensor],
        seed: int | None = None,
        first_slot: int = 0,
        *,
        halting: Halting | None = None,
    ) -> Carry:
        for name in ("demo_inputs", "demo_outputs", "demo_mask"):
            if name not in batch:
                raise UserError(f"{name}: is missing; the model learns a task from demonstrations")
        return super().initial_carry(batch, seed, first_slot, halting=halting)

    def fresh_extra(self, halting: Halting, slots: int, device: torch.device) -> dict[str, Tensor]:
        shape = (slots, self.config.context_tokens, self.config.hidden_size)
        empty = torch.zeros(shape, dtype=self.inner.dtype, device=device)
        return {**super().fresh_extra(halting, slots, device), CONTEXT: empty}

    def admit(
        self, carry: Carry, batch: Mapping[str, Tensor], policy: Halting
    ) -> tuple[Carry, dict[str, Tensor]]:
        """Refill, and the encoder.

        In training it tells of `encoded` `(slots,)`, who gave the encoder a gradient at this step,
        and of a variational encoder's `kl` `(slots,)`, 0 of the others.
        """
        halted, before = carry.halted, carry.extra[CONTEXT]
        carry, noted = super().admit(carry, batch, policy)
        everyone = self.training and self.config.context == "reencode"
        keys = None
        if self.training and self.encoder.variational:
            keys, rng = fork(carry.rng)
            carry = replace(carry, rng=rng)
        context, kl = before, torch.zeros(len(halted), device=halted.device)
        if everyone:
            context, found = self._encode(carry.current_data, slice(None), keys)
            kl = kl if found is None else found
        elif len(slots := halted.nonzero().squeeze(1)):
            new, found = self._encode(carry.current_data, slots, keys)
            context = before.index_copy(0, slots, new)
            kl = kl if found is None else kl.index_copy(0, slots, found)
        carry = replace(carry, extra={**carry.extra, CONTEXT: context})
        if self.training:
            noted = {**noted, "encoded": torch.ones_like(halted) if everyone else halted}
            if self.encoder.variational:
                noted["kl"] = kl
        return carry, noted

    def embed(self, carry: Carry) -> Float[Tensor, "slots positions width"]:
        return self.inner.embed({**carry.current_data, CONTEXT: carry.extra[CONTEXT]})

    def input_of(self, batch: Mapping[str, Tensor]) -> Float[Tensor, "slots positions width"]:
        """In evaluation mode, where nothing is drawn."""
        return self.inner.embed({**batch, CONTEXT: self._encode(batch, slice(None), None).context})

    def _encode(
        self, data: Mapping[str, Tensor], slots: Tensor | slice, keys: Tensor | None
    ) -> Encoded:
        columns = (data[name][slots] for name in ("demo_inputs", "demo_outputs", "demo_mask"))
        return self.encoder(*columns, None if keys is None else keys[slots])
