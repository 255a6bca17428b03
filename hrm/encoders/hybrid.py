"""`hybrid_standard` and `hybrid_variational`: deeper.

Four layers a demonstration with pre-norm, its CLS token, two set layers; the variational one puts a
Gaussian behind them.
"""

from __future__ import annotations

import torch
from jaxtyping import Bool, Float, Int
from torch import Tensor

from hrm.encoders.gaussian import Gaussian
from hrm.encoders.settings import EncoderSettings
from hrm.encoders.standard import Standard
from hrm.layers import CastedLinear, rms_norm
from hrm.rng import normals


class HybridStandard(Standard):
    """As `standard` is, but for depth, norms and pooling."""

    num_layers, set_layers = 4, 2
    norm_style, pool = "pre", "cls"


class HybridVariational(HybridStandard):
    """One Gaussian a task, over all of its context tokens; its divergence is their sum."""

    has_latent, variational = True, True

    def make_set(self, settings: EncoderSettings) -> None:
        super().make_set(settings)
        width = settings.hidden_size
        self.latent_dim = settings.latent_dim or width
        self.gaussian = Gaussian(width, self.latent_dim)
        self.expand = CastedLinear(self.latent_dim, width)

    def combine(
        self,
        vectors: Float[Tensor, "slots demos width"],
        real: Bool[Tensor, "slots demos"],
        keys: Int[Tensor, " slots"] | None,
    ) -> tuple[Float[Tensor, "slots tokens width"], Float[Tensor, " slots"]]:
        tokens = rms_norm(self.set(vectors, real), self.eps)
        shape = (tokens.shape[1], self.latent_dim)
        noise = None if keys is None else normals(keys, shape[0] * shape[1]).unflatten(1, shape)
        latents, kl = self.gaussian(tokens, noise)
        return self.expand(latents), torch.where(real.any(1), kl.sum(1), 0.0)
