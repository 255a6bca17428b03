"""One thread, fixed seeds, and the core's jaxtyping annotations checked by beartype."""

import torch
from hypothesis import settings
from jaxtyping import install_import_hook

install_import_hook(
    ["hrm.layers", "hrm.models", "hrm.halting", "hrm.carry", "hrm.rng", "hrm.training.losses"],
    "beartype.beartype",
)

import pytest  # noqa: E402

settings.register_profile("no_deadline", deadline=None)
settings.load_profile("no_deadline")
torch.set_num_threads(1)


@pytest.fixture(autouse=True)
def _seeded() -> None:
    torch.manual_seed(0)
