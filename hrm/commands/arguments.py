"""Argument parsing whose errors are one sentence, like every other error."""

from __future__ import annotations

import argparse
import json
from typing import TYPE_CHECKING, Any, NoReturn

from hrm.errors import UserError
from hrm.training.metrics import finite

if TYPE_CHECKING:
    from hrm.models import ACTModel


class Parser(argparse.ArgumentParser):
    """An argparse parser with an example in its help."""

    def __init__(self, prog: str, description: str, example: str) -> None:
        super().__init__(
            prog=prog,
            description=description,
            epilog=f"example: {example}",
            formatter_class=argparse.RawDescriptionHelpFormatter,
            allow_abbrev=False,
        )

    def error(self, message: str) -> NoReturn:
        raise UserError(f"{message} (see {self.prog} --help)")


def at_least(options: argparse.Namespace, **limits: int) -> None:
    """Raises UserError if an option that was given is below its limit."""
    for name, least in limits.items():
        value = getattr(options, name)
        if value is not None and value < least:
            raise UserError(f"--{name.replace('_', '-')}: got {value}, but it is at least {least}")


def limit_steps(model: ACTModel, most: int | None) -> None:
    """`--max-steps`: the policy's last step, in place of the one that it was trained with."""
    if most is not None:
        model.halting.max_steps = most


def print_json(value: dict[str, Any]) -> None:
    """One JSON object on standard output; what is not a finite number is null."""
    print(json.dumps(finite(value)))
