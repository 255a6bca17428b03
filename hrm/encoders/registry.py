"""The encoders by the name that `arch.encoder_type` gives them."""

from __future__ import annotations

from hrm.encoders.base import Encoder
from hrm.encoders.hybrid import HybridStandard, HybridVariational
from hrm.encoders.lpn import LPNStandard, LPNVariational
from hrm.encoders.standard import Standard

ENCODERS: dict[str, type[Encoder]] = {
    "standard": Standard,
    "hybrid_standard": HybridStandard,
    "hybrid_variational": HybridVariational,
    "lpn_standard": LPNStandard,
    "lpn_variational": LPNVariational,
}
"""`encoder_type` -> the encoder."""
