"""The processes of one run, as torchrun tells each of them by its environment, and who speaks."""

from __future__ import annotations

import os
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager, redirect_stderr, redirect_stdout
from pathlib import Path

GRACE_S = 10.0
"""What goes wrong in all processes alike the first one says, and ends; torchrun then ends the
others, which wait for so long. One that is still there has a fault of its own to tell."""


def rank() -> int:
    """The number of this process, from 0."""
    return int(os.environ["RANK"]) if count() > 1 else 0


def count() -> int:
    """Processes of the run; 1 without torchrun."""
    launched = {"RANK", "WORLD_SIZE", "MASTER_ADDR"} <= os.environ.keys()
    return int(os.environ["WORLD_SIZE"]) if launched else 1


def local_rank() -> int:
    """The number of this process among those on its machine, from 0."""
    return int(os.environ.get("LOCAL_RANK", rank())) if count() > 1 else 0


def local_count() -> int:
    """Processes of the run on this machine."""
    return int(os.environ.get("LOCAL_WORLD_SIZE", count())) if count() > 1 else 1


@contextmanager
def first_speaks() -> Iterator[None]:
    """What is printed within comes from the first process alone."""
    if rank() == 0:
        yield
        return
    with Path(os.devnull).open("w") as nowhere, redirect_stdout(nowhere), redirect_stderr(nowhere):
        yield


def say_fault(sentence: str) -> None:
    """Tell on standard error what ends this process, unless the first one tells the same."""
    await_first()
    who = f"process {rank()}: " if rank() else ""
    print(f"hrm: {who}{sentence}", file=sys.stderr)


def await_first() -> None:
    """Before this process ends with a fault: let the first one speak."""
    if rank():
        time.sleep(GRACE_S)
