"""One thread, fixed seeds, and the core's jaxtyping annotations checked by beartype."""

from collections.abc import Callable, Iterator
from pathlib import Path

import jaxtyping
import torch
from hypothesis import settings
from jaxtyping import install_import_hook
from torch.optim.optimizer import register_optimizer_step_post_hook

install_import_hook(
    [
        "hrm.layers",
        "hrm.encoders",
        "hrm.models",
        "hrm.halting",
        "hrm.carry",
        "hrm.rng",
        "hrm.token_loss",
        "hrm.training.losses",
    ],
    "beartype.beartype",
)

import pytest  # noqa: E402

Run = Callable[..., tuple[int, str, str]]
"""A command's exit status, and what it said on standard output and standard error."""

settings.register_profile("no_deadline", deadline=None, max_examples=50)
settings.load_profile("no_deadline")
torch.set_num_threads(1)

CHECKED_UPDATES = 8
"""Optimizer steps of a test with annotations checked: the hundredth update tells nothing new, and
checking takes as long as computing at a toy's size."""
updates = 0


def _after_update(*_: object) -> None:
    global updates
    updates += 1
    if updates == CHECKED_UPDATES:
        jaxtyping.config.update("jaxtyping_disable", True)


register_optimizer_step_post_hook(_after_update)


@pytest.fixture(autouse=True)
def _checked_anew() -> Iterator[None]:
    yield
    global updates
    updates = 0
    jaxtyping.config.update("jaxtyping_disable", False)


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
