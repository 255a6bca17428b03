"""Why the runs of a comparison's folder were made: the commands that ran the series, and the
choices of the decision tree.

    OUT/series.json    noted as the series goes, so that a report of the folder can tell of it
"""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from hrm.compare.plan import Choice
from hrm.files import write_text
from hrm.training.checkpoint import read_json

NAME = "series.json"


@dataclass(frozen=True)
class Series:
    """What ran a comparison's folder."""

    commands: tuple[str, ...] = ()
    """In the order in which they were first given: it may have been gone on with by others."""
    choices: tuple[Choice, ...] = ()
    """Those of the last command that came to any."""


def read_series(out: Path) -> Series | None:
    """What was noted; None: nothing.

    A folder that older code made has it in `comparison.json`, if its series came to an end there:
    nothing is decided anew from its runs, since it was with fewer of them that it was decided.
    """
    kept, report = out / NAME, out / "comparison.json"
    if kept.is_file():
        noted = read_json(kept)
        return Series(tuple(noted["commands"]), _choices(noted["choices"]))
    told = read_json(report) if report.is_file() else {}
    if not told.get("choices"):
        return None
    about = told.get("about", {})
    # One that was read into itself tells both what read it and what ran it.
    commands = about.get("ran") or [about[key] for key in ("command",) if key in about]
    return Series(tuple(commands), _choices(told["choices"]))


def keep_series(out: Path, command: str, choices: Sequence[Choice]) -> None:
    """Note a command of a series, and the choices that it has come to."""
    before = read_series(out) or Series()
    commands = dict.fromkeys((*before.commands, command))
    made = Series(tuple(commands), tuple(choices) or before.choices)
    write_text(out / NAME, json.dumps(asdict(made), indent=1) + "\n")


def _choices(kept: Sequence[Mapping[str, Any]]) -> tuple[Choice, ...]:
    return tuple(Choice(one["question"], one["answer"], tuple(one["why"])) for one in kept)
