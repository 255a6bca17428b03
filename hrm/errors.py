"""The one exception that bad input causes: one sentence, and exit status 2 of a command."""

from __future__ import annotations

import difflib
from collections.abc import Callable, Iterable

from pydantic import ValidationError


class UserError(ValueError):
    """Bad input. The message is one sentence: the key, file or value, and what it may be."""


def nearest(word: str, known: Iterable[str]) -> str:
    """`"; did you mean 'x'?"` for the known word most like `word`, or an empty string."""
    close = difflib.get_close_matches(word, list(known), n=1, cutoff=0.5)
    return f"; did you mean '{close[0]}'?" if close else ""


def sentence(
    error: ValidationError, prefix: str = "", *, hint: Callable[[str], str] = lambda where: ""
) -> str:
    """One sentence about a validation's first fault: key, what it got, what it may be.

    prefix: where the model that was validated stands, such as "arch".
    hint: what is said after an unknown key, given where it stands.
    """
    fault = error.errors()[0]
    where = ".".join([*([prefix] if prefix else []), *map(str, fault["loc"])])
    cause = fault.get("ctx", {}).get("error")
    if fault["type"] == "extra_forbidden":
        return f"{where}: unknown key{hint(where)}"
    if fault["type"] == "missing":
        return f"{where}: is missing"
    if isinstance(cause, ValidationError):
        return sentence(cause, where, hint=hint)
    if isinstance(cause, ValueError):
        # Our own validators already name the key within the model.
        return f"{where}.{cause}" if where else str(cause)
    message = fault["msg"][0].lower() + fault["msg"][1:]
    return f"{where or 'the whole'}: got {fault['input']!r}, but {message}"
