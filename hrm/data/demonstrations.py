"""Demonstrations: the solved examples that a puzzle comes with, as arrays and as a batch's columns.

A batch has room for D of each row's puzzle; the real ones come first, and the rest is padding.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

IntArray = NDArray[np.integer]
Int32 = NDArray[np.int32]


@dataclass(frozen=True)
class Demonstrations:
    """Those of all puzzles of a split, one puzzle's after another's."""

    inputs: IntArray
    """[demonstrations, seq_len]."""
    outputs: IntArray
    """[demonstrations, seq_len]."""
    indices: IntArray
    """[puzzles + 1], the first of each puzzle; a puzzle may have none."""
    left_out: IntArray | None = None
    """[rows], of a row that is itself a demonstration of its puzzle its number there, from 0: it is
    not shown with its own answer. -1: the row is none. None: all are -1."""

    @property
    def most(self) -> int:
        """Of one puzzle."""
        return int(np.diff(self.indices).max())

    def take(
        self, puzzles: NDArray[np.integer], rows: NDArray[np.integer], room: int, pad: int
    ) -> dict[str, Int32]:
        """Copies of those of `rows` [n], which belong to `puzzles` [n]: int32 `demo_inputs` and
        `demo_outputs` [n, room, seq_len] and `demo_mask` [n, room], 1 where there is one."""
        columns = blank(len(rows), room, self.inputs.shape[1], pad)
        first, end = (self.indices[at].astype(np.int64) for at in (puzzles, puzzles + 1))
        skipped = np.full(len(rows), -1) if self.left_out is None else self.left_out[rows]
        skips = skipped >= 0
        number = np.arange(room)
        real = number < (end - first - skips)[:, None]
        number = number + (skips[:, None] & (number >= skipped[:, None]))
        where = (first[:, None] + number)[real]
        columns["demo_inputs"][real] = self.inputs[where]
        columns["demo_outputs"][real] = self.outputs[where]
        columns["demo_mask"][real] = 1
        return columns

    def first(self, puzzles: int, rows: int) -> Demonstrations:
        """Those of the first `puzzles` puzzles, which have `rows` rows: views."""
        end = int(self.indices[puzzles])
        return Demonstrations(
            inputs=self.inputs[:end],
            outputs=self.outputs[:end],
            indices=self.indices[: puzzles + 1],
            left_out=None if self.left_out is None else self.left_out[:rows],
        )


def blank(rows: int, room: int, seq_len: int, pad: int) -> dict[str, Int32]:
    """The columns of rows without any demonstration."""
    return {
        "demo_inputs": np.full((rows, room, seq_len), pad, dtype=np.int32),
        "demo_outputs": np.full((rows, room, seq_len), pad, dtype=np.int32),
        "demo_mask": np.zeros((rows, room), dtype=np.int32),
    }


def joined(sets: Sequence[Demonstrations], rows: Sequence[int]) -> Demonstrations:
    """Those of several sets, of so many rows each, one set's after another's."""
    if len(sets) == 1:
        return sets[0]
    starts = np.cumsum([0] + [len(one.inputs) for one in sets])
    indices = [
        one.indices[:-1].astype(np.int64) + start
        for one, start in zip(sets, starts[:-1], strict=True)
    ]
    left_out = [
        np.full(count, -1) if one.left_out is None else one.left_out
        for one, count in zip(sets, rows, strict=True)
    ]
    return Demonstrations(
        inputs=np.concatenate([one.inputs for one in sets]),
        outputs=np.concatenate([one.outputs for one in sets]),
        indices=np.concatenate([*indices, starts[-1:]]),
        left_out=np.concatenate(left_out),
    )
