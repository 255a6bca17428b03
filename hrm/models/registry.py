"""The models by the name that `arch.name` gives them."""

from __future__ import annotations

from hrm.models.base import ACTModel
from hrm.models.hrm import HRMACTv1
from hrm.models.trm import TRM

MODELS: dict[str, type[ACTModel]] = {"hrm": HRMACTv1, "trm": TRM}
"""`arch.name` -> the model. TRM-MLP is `trm` with `mlp_t`."""

FROM_DATA = ("batch_size", "seq_len", "vocab_size", "num_puzzle_identifiers")
"""Keys of a model that its data and the batch decide, so an experiment does not set them."""
