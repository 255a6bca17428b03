"""One thread, fixed seeds, and the core's jaxtyping annotations checked by beartype."""

from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

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

from hrm.carry import Carry  # noqa: E402

Run = Callable[..., tuple[int, str, str]]
"""A command's exit status, and what it said on standard output and standard error."""

settings.register_profile("no_deadline", deadline=None, max_examples=50)
settings.load_profile("no_deadline")
torch.set_num_threads(1)

CHECKED = 30
"""Model steps and updates of weights, together, of a test with annotations checked: the hundredth
tells nothing new, and at a toy's size checking takes as long as computing."""
UNCHECKED = jaxtyping.config.jaxtyping_disable  # JAXTYPING_DISABLE=1 leaves out all of it.
taken = 0


def _taken(*_: object) -> None:
    global taken
    taken += 1
    if taken == CHECKED:
        jaxtyping.config.update("jaxtyping_disable", True)


def _refill(self: Carry, *arguments: Any) -> Carry:
    _taken()
    return refill(self, *arguments)


refill, Carry.refill = Carry.refill, _refill  # type: ignore[method-assign]
register_optimizer_step_post_hook(_taken)


@pytest.fixture(autouse=True)
def _checked_anew() -> Iterator[None]:
    yield
    global taken
    taken = 0
    jaxtyping.config.update("jaxtyping_disable", UNCHECKED)


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
