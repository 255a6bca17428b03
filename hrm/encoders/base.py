"""What every encoder is: the demonstrations of a task become a few tokens of context.

    each demonstration    its two grids together -> a vector (`DemonstrationEncoder`)
    all of a task         the vectors, in no order -> context tokens: here encoders differ
    loudness              unit RMS, times a learned scalar

Only real demonstrations are encoded: those of all tasks of a batch are gathered into a batch of
their own, and what comes of them is put back where it belongs.
"""

from __future__ import annotations

from abc import abstractmethod
from typing import ClassVar, NamedTuple

import torch
from jaxtyping import Bool, Float, Int
from torch import Tensor, nn

from hrm.encoders.demonstration import PAD, DemonstrationEncoder, Pool
from hrm.encoders.settings import EncoderSettings, NormStyle
from hrm.layers import rms_norm


class Encoded(NamedTuple):
    """What the demonstrations of a batch of tasks became."""

    context: Float[Tensor, "slots tokens width"]
    """Each token's RMS is the encoder's learned scale, 1 at first."""
    kl: Float[Tensor, " slots"] | None
    """Divergence of the latents' distributions from N(0, 1) in nats, float32, 0 of a task without
    demonstrations; None of encoders without such."""


class Encoder(nn.Module):
    """`context, kl = encoder(demo_inputs, demo_outputs, demo_mask)`.

    A subclass says how deep it is and gives `combine`. Settings that it has no use for are refused.
    """

    num_layers: ClassVar[int]
    set_layers: ClassVar[int | None] = None
    """None: it has none."""
    norm_style: ClassVar[NormStyle]
    pool: ClassVar[Pool] = "cls"
    has_latent: ClassVar[bool] = False
    """It reads `latent_dim`."""
    variational: ClassVar[bool] = False
    """It samples in training."""

    def __init__(self, settings: EncoderSettings) -> None:
        super().__init__()
        self.settings, self.eps = settings, settings.rms_norm_eps
        self.style: NormStyle = settings.norm_style or self.norm_style
        layers = settings.num_layers or self.num_layers
        self.demonstration = DemonstrationEncoder(settings, layers, self.style, self.pool)
        self.scale = nn.Parameter(torch.ones(()))
        self.make_set(settings)

    @abstractmethod
    def make_set(self, settings: EncoderSettings) -> None:
        """Create what `combine` needs."""

    @abstractmethod
    def combine(
        self,
        vectors: Float[Tensor, "slots demos width"],
        real: Bool[Tensor, "slots demos"],
        keys: Int[Tensor, " slots"] | None,
    ) -> tuple[Float[Tensor, "slots tokens width"], Float[Tensor, " slots"] | None]:
        """Context tokens of any loudness, and the divergence.

        Args:
            vectors: zeros where there is no demonstration.
            real: which there are; none of a task, maybe.
            keys: of the random numbers, where there is something to draw; None: nothing is drawn.
        """

    def forward(
        self,
        demo_inputs: Int[Tensor, "slots demos cells"],
        demo_outputs: Int[Tensor, "slots demos cells"],
        demo_mask: Int[Tensor, "slots demos"] | Bool[Tensor, "slots demos"],
        keys: Int[Tensor, " slots"] | None = None,
    ) -> Encoded:
        """The context of each task.

        Args:
            demo_inputs, demo_outputs: tokens of square grids row by row; `PAD` is no cell.
            demo_mask: which demonstrations there are, in any order; a demonstration without a cell
                is none.
            keys: of a variational encoder's draws in training (`hrm.rng.fork`), so that they are
                the slot's own and can be repeated; None: drawn from torch's state.
        """
        slots, demos = demo_mask.shape
        inputs, outputs = demo_inputs.flatten(0, 1), demo_outputs.flatten(0, 1)
        there = ((inputs != PAD) | (outputs != PAD)).any(1)
        real = demo_mask.bool() & there.view(slots, demos)
        rows = real.flatten().nonzero().squeeze(1)
        width, dtype = self.settings.hidden_size, self.settings.dtype
        vectors = torch.zeros(slots * demos, width, dtype=dtype, device=real.device)
        if len(rows):
            encoded = self.demonstration(inputs[rows], outputs[rows])
            vectors = vectors.index_copy(0, rows, encoded)
        if self.variational and self.training and keys is None:
            keys = torch.randint(2**62, (slots,), device=real.device)
        draws = self.variational and self.training
        vectors = vectors.view(slots, demos, width)
        tokens, kl = self.combine(vectors, real, keys if draws else None)
        return Encoded(rms_norm(tokens, self.eps) * self.scale.to(dtype), kl)
