"""Predictions of ARC rows as votes on the test inputs of their tasks.

A row's identifier names its task and form (`hrm.data.arc.augment.parse_name`). Its place among the
rows of its puzzle is the number of the test input, the same in all forms of a task.
"""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
from jaxtyping import Float, Integer

from hrm.data.arc.augment import parse_name
from hrm.data.arc.grids import LARGEST, VOCAB_SIZE, bounds
from hrm.data.base import Metadata, PuzzleSplit
from hrm.errors import UserError
from hrm.evaluation.grids import Grid, crop, side_of
from hrm.evaluation.voting import Ballots, Query, rank

_CHUNK = 1024
"""Rows whose tokens are looked at at once."""


def is_arc(data: Metadata) -> bool:
    """Whether rows are grids of ARC: their metadata say so, or they are as large as published."""
    published = data.seq_len == LARGEST**2 and data.vocab_size == VOCAB_SIZE
    return data.image is None and (data.grid is not None or published)


def read_identifiers(root: Path) -> list[str]:
    """The names in a data set's `identifiers.json`. Raises `UserError` if it cannot be read."""
    path = root / "identifiers.json"
    try:
        names = json.loads(path.read_text(encoding="utf-8"))
    except (OSError, ValueError) as error:
        raise UserError(f"{path} cannot be read: {error}") from error
    if not isinstance(names, list) or not all(isinstance(name, str) for name in names):
        raise UserError(f"{path} is not a list of names")
    return names


def ballots_of(
    split: PuzzleSplit,
    rows: Integer[np.ndarray, " rows"],
    predictions: Integer[np.ndarray, "rows length"],
    q_halt: Float[np.ndarray, " rows"],
) -> Ballots:
    """The answers to the test inputs of all tasks that have any of `rows`.

    A test input that none of the rows asks keeps its place, without answers and without a right
    one. Rows that are demonstrations of their own puzzle, and those with the blank identifier, are
    no test inputs.

    Args:
        rows: which of the split, each at most once.
        predictions: tokens of their answers.
        q_halt: logits of their answers.

    Raises:
        UserError: two forms of a task, undone, do not ask the same: the names in identifiers.json
            are not those of the rows.
    """
    file = split.path.parent / "identifiers.json"
    names = read_identifiers(split.path.parent)
    if len(names) < split.metadata.num_puzzle_identifiers:
        raise UserError(
            f"{file} has {len(names)} names, but there are "
            f"{split.metadata.num_puzzle_identifiers} puzzle identifiers"
        )
    puzzles = np.searchsorted(split.puzzle_indices, rows, side="right") - 1
    numbers, counts = _test_inputs(split)
    tasks: dict[str, list[_Votes | None]] = {}
    side = side_of(split.metadata.seq_len)
    for start in range(0, len(rows), _CHUNK):
        here = slice(start, start + _CHUNK)
        inputs, labels = (np.asarray(tokens[rows[here]]) for tokens in (split.inputs, split.labels))
        # A pair's grids are moved alike, so that the input tells where its answer begins.
        top, left, _, _ = bounds(inputs, side)
        corners = np.stack([top, left], axis=1)
        grids = [crop(tokens, corners) for tokens in (inputs, labels, predictions[here])]
        for i, (asked, truth, answer) in enumerate(zip(*grids, strict=True), start=start):
            puzzle, number = int(puzzles[i]), int(numbers[rows[i]])
            identifier = int(split.puzzle_identifiers[puzzle])
            if number < 0 or identifier == split.metadata.blank_identifier_id:
                continue
            task, form = parse_name(names[identifier])
            queries = tasks.setdefault(task, [])
            queries += [None] * (int(counts[puzzle]) - len(queries))
            question = form.undo(asked), form.undo(truth)
            votes = queries[number] = queries[number] or _Votes(*question)
            if not all(map(np.array_equal, question, (votes.asked, votes.truth))):
                raise UserError(
                    f"{file}: names the puzzle of row {rows[i]} '{names[identifier]}', but undone "
                    "it does not ask what other forms of that task do"
                )
            votes.grids.append(form.undo(answer))
            votes.q_halt.append(float(q_halt[i]))
    return {
        task: [Query([]) if votes is None else votes.counted() for votes in queries]
        for task, queries in tasks.items()
    }


class _Votes:
    """Those on one test input, as the rows come."""

    def __init__(self, asked: Grid, truth: Grid) -> None:
        self.asked = asked
        self.truth = truth
        """Without cells if it is not known."""
        self.grids: list[Grid] = []
        self.q_halt: list[float] = []

    def counted(self) -> Query:
        return Query(rank(self.grids, self.q_halt), self.truth if self.truth.size else None)


def _test_inputs(
    split: PuzzleSplit,
) -> tuple[Integer[np.ndarray, " all_rows"], Integer[np.ndarray, " puzzles"]]:
    """Of each row of the split the number of its test input in its puzzle, -1 if it is none, and of
    each puzzle how many it has."""
    shown = split.demonstrations
    asks = np.ones(len(split), dtype=bool)
    if shown is not None and shown.left_out is not None:
        asks = np.asarray(shown.left_out) < 0
    before = np.concatenate([[0], np.cumsum(asks)])
    counts = np.diff(before[split.puzzle_indices])
    first = np.repeat(before[split.puzzle_indices[:-1]], np.diff(split.puzzle_indices))
    return np.where(asks, before[:-1] - first, -1), counts
