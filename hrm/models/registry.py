"""The models by the name that `arch.name` gives them."""

from __future__ import annotations

from hrm.models.act import ACTModel
from hrm.models.act_unet import ACTUNet
from hrm.models.config import TokenModelConfig
from hrm.models.hrm import HRMACTv1
from hrm.models.trm import TRM

MODELS: dict[str, type[ACTModel]] = {"hrm": HRMACTv1, "trm": TRM, "act_unet": ACTUNet}
"""`arch.name` -> the model. TRM-MLP is `trm` with `mlp_t`."""

FROM_DATA = tuple(TokenModelConfig.from_data)
"""Keys of a token model that its data and the batch decide, so an experiment does not set them; of
any model it is `config_type.from_data`."""
