"""An ARC task being solved, step by step, for the terminal.

A cell is its mark and its colour's number on that colour: numbers and marks are ASCII, so that a
log, a pipe and NO_COLOR show the same.
"""

from __future__ import annotations

import math
from collections.abc import Sequence

import numpy as np
from jaxtyping import Bool
from rich.columns import Columns
from rich.console import Group, RenderableType
from rich.text import Text

from hrm.evaluation.grids import Grid, verdict, wrong_cells

COLOURS = (
    "#000000",
    "#0074d9",
    "#ff4136",
    "#2ecc40",
    "#ffdc00",
    "#aaaaaa",
    "#f012be",
    "#ff851b",
    "#7fdbff",
    "#870c25",
)
"""The ten colours as the official viewer shows them."""
_ON_DARK = frozenset((0, 1, 2, 6, 9))
"""Colours on which white can be read."""
_MARKS = {(False, False): " ", (True, False): "*", (False, True): "!", (True, True): "&"}


def arc_trace(
    demonstrations: Sequence[tuple[Grid, Grid]],
    query: Grid,
    answers: Sequence[Grid],
    q_halt: Sequence[float],
    halted_at: int,
    *,
    truth: Grid | None = None,
    max_steps: int | None = None,
    wants: Sequence[bool] | None = None,
) -> RenderableType:
    """The demonstrations, the query, the answer after each step, and what the halt head said.

    An answer that a step left as it was is not shown again.

    Args:
        demonstrations: pairs of input and output, colours 0 to 9.
        answers: the predicted grid after each step; those after `halted_at` are not shown.
        q_halt: the logit of "the answer is right" after each step.
        halted_at: the step, from 1, after which the model halted.
        truth: the right answer, where it is known.
        max_steps: the step limit; a halt there is shown as such.
        wants: whether the policy would halt after each step, for a trace that does not follow it
            but runs on to the limit.
    """
    if not 1 <= halted_at <= min(len(answers), len(q_halt)):
        raise ValueError(f"halted_at must be 1 to {len(answers)}, got {halted_at}")
    given = [
        Text("\n").join([_cells(a), Text("->"), _cells(b), Text(f"demonstration {i}"), Text()])
        for i, (a, b) in enumerate(demonstrations, start=1)
    ]
    given.append(Text("\n").join([_cells(query), Text("query", style="bold"), Text()]))
    if truth is not None:
        right = Text("right answer", style="bold")
        given.append(Text("\n").join([_cells(truth), right, Text()]))
    lines: list[Text] = []
    for step in range(1, halted_at + 1):
        decision = "go on" if step < halted_at else "halt"
        if wants is not None:
            decision = "would halt" if wants[step - 1] else "would go on"
        elif step == halted_at == max_steps:
            decision = "halt (last step)"
        told = "" if truth is None else f"  {verdict(answers[step - 1], truth)}"
        lines.append(Text(f"step {step:2}  right {_percent(q_halt[step - 1])}  {decision}{told}"))
    return Group(
        _legend(truth is not None),
        Text(),
        Columns(given, padding=(0, 3)),
        Columns(_shown(answers[:halted_at], truth), padding=(0, 3)),
        *lines,
        *_last_line(answers[halted_at - 1], truth),
    )


def _shown(answers: Sequence[Grid], truth: Grid | None) -> list[Text]:
    """One panel for each run of steps that agree."""
    panels = []
    before: Grid | None = None
    first = 1
    for step, answer in enumerate(answers, start=1):
        if step < len(answers) and np.array_equal(answers[step], answer):
            continue
        name = f"step {step}" if first == step else f"steps {first} to {step}"
        panels.append(
            Text("\n").join([_cells(answer, before, truth), Text(name, style="bold"), Text()])
        )
        before, first = answer, step + 1
    return panels


def _cells(grid: Grid, before: Grid | None = None, truth: Grid | None = None) -> Text:
    """Rows of cells, marked where they differ from `before` and from `truth`."""
    none: Bool[np.ndarray, "height width"] = np.zeros(grid.shape, dtype=bool)
    changed = none if before is None else wrong_cells(grid, before)
    wrong = none if truth is None else wrong_cells(grid, truth)
    text = Text(no_wrap=True)
    for row, values in enumerate(grid.tolist()):
        if row:
            text.append("\n")
        for column, value in enumerate(values):
            mark = _MARKS[bool(changed[row, column]), bool(wrong[row, column])]
            text.append(f"{mark}{value}", style=_style(value))
    return text if grid.size else Text("no grid", style="dim")


def _style(colour: int) -> str:
    return f"{'white' if colour in _ON_DARK else 'black'} on {COLOURS[colour]}"


def _legend(with_truth: bool) -> Text:
    marks = ["*5 changed in this step"]
    if with_truth:
        marks += ["!5 wrong", "&5 both"]
    told = "right: the model's own chance that the answer is right"
    return Text("  ".join(marks)).append(f"\n{told}", style="dim")


def _last_line(answer: Grid, truth: Grid | None) -> list[Text]:
    if truth is None:
        return []
    said = verdict(answer, truth)
    return [Text(f"answer: {said}", style="bold green" if said == "right" else "bold red")]


def _percent(logit: float) -> str:
    return f"{(1 + math.tanh(logit / 2)) / 2:6.1%}"
