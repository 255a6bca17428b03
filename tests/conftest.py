"""One thread, fixed seeds, and the core's jaxtyping annotations checked by beartype."""

from collections.abc import Callable
from pathlib import Path

import torch
from hypothesis import settings
from jaxtyping import install_import_hook

install_import_hook(
    ["hrm.layers", "hrm.models", "hrm.halting", "hrm.carry", "hrm.rng", "hrm.training.losses"],
    "beartype.beartype",
)

import pytest  # noqa: E402

Run = Callable[..., tuple[int, str, str]]
"""A command's exit status, and what it said on standard output and standard error."""

settings.register_profile("no_deadline", deadline=None)
settings.load_profile("no_deadline")
torch.set_num_threads(1)


@pytest.fixture(autouse=True)
def _seeded() -> None:
    torch.manual_seed(0)


@pytest.fixture
def hrm(capsys: pytest.CaptureFixture[str]) -> Run:
    """`hrm("evaluate", folder, ...)`: the command in this process."""
    from hrm.cli import main

    def run(*arguments: str | Path) -> tuple[int, str, str]:
        capsys.readouterr()  # Of the fixtures before it.
        status = main([str(a) for a in arguments])
        captured = capsys.readouterr()
        return status, captured.out, captured.err

    return run
