"""What making any kind of data set shares: a request that is checked, and progress."""

from __future__ import annotations

import contextlib
from collections.abc import Callable, Iterator, Mapping
from typing import Any, TypeVar

from pydantic import BaseModel, ValidationError

from hrm.errors import UserError, nearest

Request = TypeVar("Request", bound=BaseModel)
Report = Callable[[str, int, int], None]
"""Called with what is being done, how much is done and how much there is."""


def checked(schema: type[Request], kind: str, values: Mapping[str, Any]) -> Request:
    """A request of `hrm prepare KIND`; `UserError` names the first wrong field."""
    try:
        return schema(**values)
    except ValidationError as error:
        first = error.errors()[0]
        key = str(first["loc"][0])
        if first["type"] == "extra_forbidden":
            hint = nearest(key, schema.model_fields)
            raise UserError(f"hrm prepare {kind} knows no '{key}'{hint}") from error
        raise UserError(f"{key} is {first['input']!r}: {first['msg']}") from error


@contextlib.contextmanager
def reporting(progress: bool) -> Iterator[Report]:
    """A progress bar on standard error per kind of work, or nothing."""
    if not progress:
        yield lambda what, done, total: None
        return
    from rich.console import Console
    from rich.progress import Progress, TaskID

    with Progress(console=Console(stderr=True), transient=True) as bar:
        tasks: dict[str, TaskID] = {}

        def report(what: str, done: int, total: int) -> None:
            if what not in tasks:
                tasks[what] = bar.add_task(what, total=total)
            bar.update(tasks[what], completed=done, total=total)

        yield report
