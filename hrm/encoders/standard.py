"""`standard`: shallow. Two layers a demonstration, the mean of its cells, one set layer."""

from __future__ import annotations

from typing import ClassVar

from jaxtyping import Bool, Float, Int
from torch import Tensor

from hrm.encoders.base import Encoder
from hrm.encoders.demonstration import Pool
from hrm.encoders.sets import SetEncoder
from hrm.encoders.settings import EncoderSettings, NormStyle


class Standard(Encoder):
    """Post-norm, as the recursion that reads its context."""

    num_layers, set_layers = 2, 1
    norm_style: ClassVar[NormStyle] = "post"
    pool: ClassVar[Pool] = "mean"

    def make_set(self, settings: EncoderSettings) -> None:
        assert self.set_layers is not None
        self.set = SetEncoder(settings, settings.set_layers or self.set_layers, self.style)

    def combine(
        self,
        vectors: Float[Tensor, "slots demos width"],
        real: Bool[Tensor, "slots demos"],
        keys: Int[Tensor, " slots"] | None,
    ) -> tuple[Float[Tensor, "slots tokens width"], Float[Tensor, " slots"] | None]:
        return self.set(vectors, real), None
