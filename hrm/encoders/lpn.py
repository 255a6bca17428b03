"""`lpn_standard` and `lpn_variational`: a latent of its own for each demonstration, and their mean.

After Latent Program Networks (Bonnet and Macfarlane 2024, arXiv:2411.08706): what the pairs of a
task have in common is the program that made them. As deep as `hybrid` by default, so that the two
differ in how demonstrations meet, not in depth.
"""

from __future__ import annotations

from jaxtyping import Bool, Float, Int
from torch import Tensor

from hrm.encoders.base import Encoder
from hrm.encoders.gaussian import Gaussian
from hrm.encoders.sets import MeanToTokens, masked_mean
from hrm.encoders.settings import EncoderSettings
from hrm.layers import CastedLinear
from hrm.rng import normals


class LPNStandard(Encoder):
    """The latents are points."""

    num_layers = 4
    norm_style, pool = "pre", "cls"
    has_latent = True

    def make_set(self, settings: EncoderSettings) -> None:
        self.latent_dim = settings.latent_dim or settings.hidden_size
        self.make_latent(settings.hidden_size)
        self.set = MeanToTokens(settings, self.latent_dim)

    def make_latent(self, width: int) -> None:
        self.latent = CastedLinear(width, self.latent_dim)

    def combine(
        self,
        vectors: Float[Tensor, "slots demos width"],
        real: Bool[Tensor, "slots demos"],
        keys: Int[Tensor, " slots"] | None,
    ) -> tuple[Float[Tensor, "slots tokens width"], Float[Tensor, " slots"] | None]:
        return self.set(self.latent(vectors), real), None


class LPNVariational(LPNStandard):
    """The latents are Gaussians, sampled each by itself; the divergence is their mean too."""

    variational = True

    def make_latent(self, width: int) -> None:
        self.gaussian = Gaussian(width, self.latent_dim)

    def combine(
        self,
        vectors: Float[Tensor, "slots demos width"],
        real: Bool[Tensor, "slots demos"],
        keys: Int[Tensor, " slots"] | None,
    ) -> tuple[Float[Tensor, "slots tokens width"], Float[Tensor, " slots"]]:
        shape = (vectors.shape[1], self.latent_dim)
        noise = None if keys is None else normals(keys, shape[0] * shape[1]).unflatten(1, shape)
        latents, kl = self.gaussian(vectors, noise)
        return self.set(latents, real), masked_mean(kl, real)
