"""A split's arrays: tasks in their forms, each task a group and each form a puzzle."""

from __future__ import annotations

import hashlib
from collections.abc import Iterator, Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from hrm.data.arc.augment import COLOURS, Form, move, random_forms, random_places, tokens_to, turned
from hrm.data.arc.grids import Tokens, encode
from hrm.data.arc.tasks import Task
from hrm.data.base import SplitArrays
from hrm.data.demonstrations import Demonstrations
from hrm.data.keys import draws, keys_of

# What each use of the seed adds to its keys, so that no two share random numbers.
_ORDER, _FORM, _PLACE = 1, 2, 3
_TRIALS = 5
"""Random forms that are tried for each one wanted, as published."""
_CHUNK = 64
"""Forms that are made at once."""


@dataclass(frozen=True)
class Forms:
    """A task and its forms, the first of them the task as it is."""

    task: Task
    symmetry: NDArray[np.int64]
    """[forms]."""
    colours: NDArray[np.uint8]
    """[forms, 10], what each colour becomes."""

    def __len__(self) -> int:
        return len(self.symmetry)

    @property
    def names(self) -> list[str]:
        """As published."""
        both = zip(self.symmetry.tolist(), self.colours.tolist(), strict=True)
        return [Form(which, tuple(to)).name(self.task.name) for which, to in both]


@dataclass(frozen=True)
class Group:
    """A task in its forms as it stands in a split. Pairs are numbered, demonstrations first."""

    forms: Forms
    first_identifier: int
    """Of the first form; the others' follow."""
    rows: Sequence[int]
    """Pairs that are rows."""
    shown: Sequence[int] = ()
    """Pairs that are demonstrations. One that is a row too is not shown there."""


def order_key(task: Task, seed: int) -> int:
    """A random number of a task, whatever other tasks there are."""
    return int(keys_of(seed, _ORDER, _number(task))[0])


def _number(task: Task) -> int:
    return int.from_bytes(hashlib.sha256(task.name.encode()).digest()[:7], "big")


def forms_of(task: Task, copies: int, seed: int) -> Forms:
    """The task as it is and up to `copies` random forms, all of whose grids differ together.

    A form is dropped if its pairs, in any order, are those of one before, as published.
    """
    symmetries = [np.zeros(1, dtype=np.int64)]
    colours = [np.arange(COLOURS, dtype=np.uint8)[None]]
    seen = {_signature(task, 0, colours[0][0])}
    tried = 0
    while len(seen) <= copies and tried < _TRIALS * copies:
        trials = np.arange(tried, min(tried + copies + 1 - len(seen), _TRIALS * copies))
        tried += len(trials)
        symmetry, to = random_forms(keys_of(seed, _FORM, _number(task), trials))
        new = []
        for trial, which in enumerate(symmetry.tolist()):
            signature = _signature(task, which, to[trial])
            if signature not in seen:
                seen.add(signature)
                new.append(trial)
        symmetries.append(symmetry[new])
        colours.append(to[new])
    return Forms(task, np.concatenate(symmetries), np.concatenate(colours))


def arrays_of(groups: Sequence[Group], side: int, place_seed: int | None = None) -> SplitArrays:
    """The arrays of a split. Grids begin at the top left; with a `place_seed` all pairs but one of
    each puzzle begin anywhere in the square, as published for training."""
    length = side**2
    rows = sum(len(group.forms) * len(group.rows) for group in groups)
    shown = sum(len(group.forms) * len(group.shown) for group in groups)
    inputs, labels = (np.empty((rows, length), dtype=np.uint8) for _ in range(2))
    demo_inputs, demo_outputs = (np.empty((shown, length), dtype=np.uint8) for _ in range(2))
    row = demo = 0
    for group in groups:
        for pairs in _chunks(group.forms, side, place_seed):
            for which, first, second, start in (
                (group.rows, inputs, labels, row),
                (group.shown, demo_inputs, demo_outputs, demo),
            ):
                taken = pairs[:, list(which)].reshape(-1, 2, length)
                at = slice(start, start + len(taken))
                first[at], second[at] = taken[:, 0], taken[:, 1]
            row += len(pairs) * len(group.rows)
            demo += len(pairs) * len(group.shown)
    demonstrations = None
    if shown:
        starts = _starts(groups, [len(group.shown) for group in groups])
        demonstrations = Demonstrations(demo_inputs, demo_outputs, starts, _left_out(groups))
    return SplitArrays(
        inputs=inputs,
        labels=labels,
        puzzle_identifiers=np.concatenate(
            [group.first_identifier + np.arange(len(group.forms)) for group in groups]
        ).astype(np.int32),
        puzzle_indices=_starts(groups, [len(group.rows) for group in groups]),
        group_indices=np.cumsum([0] + [len(group.forms) for group in groups], dtype=np.int32),
        demonstrations=demonstrations,
    )


def _tokens(task: Task, side: int) -> Tokens:
    """[pairs, 2, side * side], at the top left."""
    return np.stack([[encode(grid, side) for grid in (p.input, p.output)] for p in task.pairs])


def _moved(
    tokens: Tokens,
    side: int,
    symmetry: NDArray[np.int64],
    colours: NDArray[np.uint8],
    numbers: NDArray[np.uint64] | None = None,
) -> Tokens:
    """A task's `tokens` [pairs, 2, side * side] in some forms: [forms, pairs, 2, side * side].

    With random `numbers` [forms, 1 + 2 * pairs] pairs begin anywhere, but for one of each form.
    """
    forms, pairs = len(symmetry), len(tokens)
    rows = np.broadcast_to(tokens, (forms, *tokens.shape))
    which, token_to = np.repeat(symmetry, pairs), np.repeat(tokens_to(colours), pairs, axis=0)
    first, second = (rows[:, :, i].reshape(forms * pairs, -1) for i in (0, 1))
    top = left = np.zeros(forms * pairs, dtype=np.int64)
    if numbers is not None:
        stays = np.arange(pairs) == (numbers[:, :1] % np.uint64(pairs)).astype(np.int64)
        places = random_places(numbers[:, 1:].reshape(-1, 2), first, second, side, which)
        top, left = (np.where(stays.reshape(-1), 0, at) for at in places)
    moved = [move(part, side, which, token_to, top, left) for part in (first, second)]
    return np.stack(moved, axis=1).reshape(rows.shape)


def _chunks(forms: Forms, side: int, place_seed: int | None) -> Iterator[Tokens]:
    """All pairs of a task, some forms at a time: [forms, pairs, 2, side * side]."""
    tokens = _tokens(forms.task, side)
    for start in range(0, len(forms), _CHUNK):
        some = np.arange(start, min(start + _CHUNK, len(forms)))
        numbers = None
        if place_seed is not None:
            keys = keys_of(place_seed, _PLACE, _number(forms.task), some)
            numbers = draws(keys, 1 + 2 * len(tokens))
        yield _moved(tokens, side, forms.symmetry[some], forms.colours[some], numbers)


def _signature(task: Task, symmetry: int, colours: NDArray[np.uint8]) -> bytes:
    """Of the pairs of a form of a task, whatever their order."""
    pairs = []
    for pair in task.pairs:
        grids = [turned(colours[g], symmetry) for g in (pair.input, pair.output) if g is not None]
        pairs.append(b"".join(bytes(grid.shape) + grid.tobytes() for grid in grids))
    return hashlib.sha256(b"".join(sorted(pairs))).digest()


def _starts(groups: Sequence[Group], counts: Sequence[int]) -> NDArray[np.int32]:
    """Of puzzles that have `counts` each, by group."""
    each = np.repeat(counts, [len(group.forms) for group in groups])
    return np.cumsum([0, *each], dtype=np.int32)


def _left_out(groups: Sequence[Group]) -> NDArray[np.int32] | None:
    """Of each row the demonstration that it is; None if no row is one."""
    if not any(set(group.rows) & set(group.shown) for group in groups):
        return None
    of_groups = [
        np.tile([pair if pair in group.shown else -1 for pair in group.rows], len(group.forms))
        for group in groups
    ]
    return np.concatenate(of_groups).astype(np.int32)
