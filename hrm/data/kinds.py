"""The kinds of data sets that can be made, by name, for the command and for a training run."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from importlib import import_module
from pathlib import Path
from typing import Any

from pydantic import BaseModel

from hrm.errors import UserError, nearest

KINDS = ("sudoku", "scenes", "arc")


def request_of(kind: str, settings: Mapping[str, Any], out: Path) -> BaseModel:
    """The checked request of `hrm prepare KIND`; `UserError` names the first wrong setting."""
    if kind not in KINDS:
        raise UserError(f"kind is {kind!r}: it may be one of {', '.join(KINDS)}{_hint(kind)}")
    made: BaseModel = getattr(import_module(f"hrm.data.{kind}"), f"{kind}_request")(
        **settings, out=out
    )
    return made


def preparer(kind: str) -> Callable[..., dict[str, Any]]:
    """What makes the data set of a request: `preparer(kind)(request, progress=...)`."""
    function: Callable[..., dict[str, Any]] = getattr(
        import_module(f"hrm.data.{kind}"), f"prepare_{kind}"
    )
    return function


def _hint(kind: object) -> str:
    return nearest(kind, KINDS) if isinstance(kind, str) else ""
