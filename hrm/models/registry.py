"""The models by the name that `arch.name` gives them."""

from __future__ import annotations

from hrm.models.act import ACTModel
from hrm.models.act_unet import ACTUNet
from hrm.models.etrm import ETRM
from hrm.models.hrm import HRMACTv1
from hrm.models.trm import TRM

MODELS: dict[str, type[ACTModel]] = {
    "hrm": HRMACTv1,
    "trm": TRM,
    "etrm": ETRM,
    "act_unet": ACTUNet,
}
"""`arch.name` -> the model. TRM-MLP is `trm` with `mlp_t`."""
