"""Argument parsing whose errors are one sentence, like every other error."""

from __future__ import annotations

import argparse
import json
import math
from typing import Any, NoReturn

from hrm.errors import UserError


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


def print_json(value: dict[str, Any]) -> None:
    """One JSON object on standard output; what is not a finite number is null."""
    print(json.dumps(_finite(value)))


def _finite(value: Any) -> Any:
    if isinstance(value, dict):
        return {k: _finite(v) for k, v in value.items()}
    if isinstance(value, (list, tuple)):
        return [_finite(v) for v in value]
    if isinstance(value, float) and not math.isfinite(value):
        return None
    return value
