"""A Sudoku being solved, step by step, for the terminal.

Colours help, but all that matters is in the characters too, and those are ASCII: a log, a pipe and
NO_COLOR show the same.
"""

from __future__ import annotations

import math
from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray
from rich.columns import Columns
from rich.console import Group, RenderableType
from rich.text import Text

from hrm.data.sudoku.grid import Shape, keeps_givens, solved, violations

_GIVEN, _KEPT, _CHANGED = "bold", "cyan", "bold black on bright_yellow"
_BROKEN, _BROKEN_CHANGED = "bold red", "bold white on red"
_MARKS = {(False, False): " ", (True, False): "*", (False, True): "!", (True, True): "&"}


def sudoku_trace(
    shape: Shape,
    puzzle: NDArray[np.integer],
    answers: Sequence[NDArray[np.integer]],
    q_halt: Sequence[float],
    q_continue: Sequence[float] | None,
    halted_at: int,
    *,
    max_steps: int | None = None,
    wants: Sequence[bool] | None = None,
) -> RenderableType:
    """The boards after each step up to the halt, with what the halt head said of each.

    Args:
        shape: the board's geometry.
        puzzle: digits [cells], 0 for a blank.
        answers: digits [cells] after each step, 0 for a blank; those after `halted_at` are not
            shown.
        q_halt, q_continue: logits after each step; `q_continue` None if the model has none.
        halted_at: the step, from 1, after which the model halted.
        max_steps: the step limit; a halt there is shown as such.
        wants: whether the policy would halt after each step, for a trace that does not follow it
            but runs on to the limit.
    """
    if not 1 <= halted_at <= min(len(answers), len(q_halt)):
        raise ValueError(f"halted_at must be 1 to {len(answers)}, got {halted_at}")
    panels = [_panel(_board(shape, puzzle, puzzle, puzzle), ["puzzle", _blanks(puzzle)])]
    before = puzzle
    for step, answer in enumerate(answers[:halted_at], start=1):
        changed = int((answer != before).sum())
        decision = "go on" if step < halted_at else "halt"
        if wants is not None:
            decision = "would halt" if wants[step - 1] else "would go on"
        elif step == halted_at == max_steps:
            decision = "halt (last step)"
        lines = [f"step {step}: {decision}", f"right     {_percent(q_halt[step - 1])}"]
        if q_continue is not None:
            lines.append(f"continue  {_percent(q_continue[step - 1])}")
        lines.append(f"{changed} cell{'' if changed == 1 else 's'} changed")
        panels.append(_panel(_board(shape, puzzle, before, answer), lines))
        before = answer
    valid, verdict = judge(shape, puzzle, before)
    return Group(
        _legend(q_continue is not None),
        Text(),
        Columns(panels, padding=(0, 3), equal=True),
        Text(verdict, style="bold green" if valid else "bold red"),
    )


def judge(
    shape: Shape, puzzle: NDArray[np.integer], answer: NDArray[np.integer]
) -> tuple[bool, str]:
    """Whether an answer is filled, obeys the rules and keeps the givens, and a sentence on it.

    Args:
        puzzle, answer: digits [cells], 0 for a blank.
    """
    if solved(shape, answer[None])[0] and keeps_givens(puzzle, answer):
        return True, "valid: each row, column and box has every digit once, and the givens are kept"
    faults = []
    if blank := int((answer == 0).sum()):
        faults.append(f"{blank} {_cells(blank)} blank")
    if overwritten := int(((puzzle != 0) & (puzzle != answer)).sum()):
        faults.append(f"{overwritten} given{'' if overwritten == 1 else 's'} not kept")
    if clashes := violations(shape, answer):
        more = f" and {len(clashes) - 1} more such" if len(clashes) > 1 else ""
        faults.append(f"{clashes[0]}{more}")
    return False, f"not valid: {'; '.join(faults)}"


def at_fault(
    shape: Shape, puzzle: NDArray[np.integer], answer: NDArray[np.integer]
) -> NDArray[np.bool_]:
    """Cells [cells] that break a rule: a given not kept, or a digit repeated in a unit.

    Of a clash with a given only the other cell is at fault.
    """
    kept = (puzzle != 0) & (puzzle == answer)
    fault = (puzzle != 0) & ~kept
    for unit in shape.units:
        digits = answer[unit]
        repeated = (digits[:, None] == digits[None]).sum(1) > 1
        fault[unit] |= repeated & (digits != 0)
    return fault & ~kept


def _board(
    shape: Shape,
    puzzle: NDArray[np.integer],
    before: NDArray[np.integer],
    answer: NDArray[np.integer],
) -> Text:
    """A cell is its mark and its digit; boxes are parted by lines."""
    fault, changed = at_fault(shape, puzzle, answer), answer != before
    bar = "+".join(["-" * (2 * shape.box_cols + 1)] * (shape.n // shape.box_cols))
    board = Text(no_wrap=True)
    for row in range(shape.n):
        if row:
            board.append("\n")
            if row % shape.box_rows == 0:
                board.append(f"{bar}\n", style="dim")
        for column in range(shape.n):
            if column and column % shape.box_cols == 0:
                board.append(" ")
                board.append("|", style="dim")
            cell = row * shape.n + column
            mark = _MARKS[bool(changed[cell]), bool(fault[cell])]
            board.append(mark + str(answer[cell] or "."), style=_style(puzzle[cell], mark))
        board.append(" ")
    return board


def _style(given: int, mark: str) -> str:
    if mark == "&":
        return _BROKEN_CHANGED
    if mark == "!":
        return _BROKEN
    if mark == "*":
        return _CHANGED
    return _GIVEN if given else _KEPT


def _panel(board: Text, lines: list[str]) -> Text:
    """A board with its lines under it and an empty one at the end."""
    name, *rest = lines
    return Text("\n").join([board, Text(name, style="bold"), *map(Text, rest), Text()])


def _legend(with_continue: bool) -> Text:
    marks = Text("  ").join(
        [
            Text("5 given", style=_GIVEN),
            Text("5 filled", style=_KEPT),
            Text("*5 changed in this step", style=_CHANGED),
            Text("!5 breaks a rule", style=_BROKEN),
            Text("&5 both", style=_BROKEN_CHANGED),
        ]
    )
    values = "right: the model's own chance that the board is right"
    if with_continue:
        values += "; continue: its value of going on"
    return marks.append(f"\n{values}", style="dim")


def _blanks(puzzle: NDArray[np.integer]) -> str:
    blank = int((puzzle == 0).sum())
    return f"{blank} {_cells(blank)} to fill"


def _cells(count: int) -> str:
    return "cell" if count == 1 else "cells"


def _percent(logit: float) -> str:
    return f"{(1 + math.tanh(logit / 2)) / 2:6.1%}"
