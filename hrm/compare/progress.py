"""A job that runs or has failed, in a line for people."""

from __future__ import annotations

import json
import os
import signal
from collections.abc import Mapping
from pathlib import Path
from typing import Any


def progress_line(name: str, updates: int | None, row: Mapping[str, Any]) -> str:
    """A running job in words, from the last row of its log; `updates`: how many it will take."""
    of = f" of {updates}" if updates else ""
    words = [f"{name}: update {row['step']}{of}"]
    for key, gloss in (
        ("train/exact_accuracy", "exact"),
        ("train/steps", "steps"),
        ("train/q_halt_accuracy", "q_halt"),
        ("eval/exact_accuracy", "held out"),
    ):
        if row.get(key) is not None:
            words.append(f"{gloss} {row[key]:.3f}")
    seconds = row.get("time/train_s") or 0.0
    if updates and row["step"]:
        left = seconds * (updates / row["step"] - 1)
        words.append(f"about {left / 60:.0f} min left")
    return ", ".join(words)


def last_row(path: Path) -> dict[str, Any] | None:
    """The last whole row of a log that may be growing."""
    try:
        with path.open("rb") as file:
            file.seek(0, os.SEEK_END)
            file.seek(max(0, file.tell() - (1 << 18)))
            lines = file.read().split(b"\n")[:-1]
        row = json.loads(lines[-1])
    except (OSError, IndexError, ValueError):
        return None
    return row if isinstance(row, dict) and "step" in row else None


def last_error(said: str, status: int) -> str:
    """The line that tells why a command failed; by which signal it ended, if by one."""
    lines = [line.strip() for line in said.splitlines()]
    lines = [line for line in lines if line and not line.startswith("hrm: warning:")]
    last = lines[-1].removeprefix("hrm: ") if lines else "nothing was said"
    if status >= 0:
        return f"{last} (exit status {status})"
    try:
        name = signal.Signals(-status).name
    except ValueError:
        name = f"signal {-status}"
    return f"ended by {name}; last line: {last}"
