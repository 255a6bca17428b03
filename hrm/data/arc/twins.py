"""Tasks that share a pair in another form, which a split by name alone would not keep apart.

ARC-AGI-1 has two training tasks with pairs of an evaluation task (40853293 and 070dd51e, caa06a1f
and 50a16a69).
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from hrm.data.arc.augment import COLOURS, SYMMETRIES, turned
from hrm.data.arc.tasks import Pair, Task


def twins(tasks: Sequence[Task], others: Sequence[Task]) -> list[str]:
    """Names of `tasks` with a pair that, turned and with other colours, is one of `others`."""
    theirs = [pair for other in others for pair in other.pairs if pair.output is not None]
    rough = {_rough(pair) for pair in theirs}
    suspects = [
        (task.name, pair)
        for task in tasks
        for pair in task.pairs
        if pair.output is not None and _rough(pair) in rough
    ]
    # Sizes and counts tell nearly all pairs apart, at a fraction of the time.
    rough = {_rough(pair) for _, pair in suspects}
    exact = {canonical(pair) for pair in theirs if _rough(pair) in rough}
    return sorted({name for name, pair in suspects if canonical(pair) in exact})


def canonical(pair: Pair) -> bytes:
    """The same of two pairs if and only if one is a form of the other. Its output is known."""
    return min(_relabelled(pair, symmetry) for symmetry in range(SYMMETRIES))


def _relabelled(pair: Pair, symmetry: int) -> bytes:
    """A turned pair with its colours numbered as they come; black stays."""
    assert pair.output is not None
    grids = [turned(grid, symmetry) for grid in (pair.input, pair.output)]
    cells = np.concatenate([grid.reshape(-1) for grid in grids])
    colours, first = np.unique(cells, return_index=True)
    number = np.zeros(COLOURS, dtype=np.uint8)
    met = colours[np.argsort(first)]
    number[met[met > 0]] = np.arange(1, 1 + np.count_nonzero(met))
    return bytes((*grids[0].shape, *grids[1].shape)) + number[cells].tobytes()


def _rough(pair: Pair) -> tuple[object, ...]:
    """What all forms of a pair share."""
    assert pair.output is not None
    counts = [
        np.bincount(grid.reshape(-1), minlength=COLOURS) for grid in (pair.input, pair.output)
    ]
    sizes = (sorted(pair.input.shape), sorted(pair.output.shape))
    pairs = sorted(zip(*(count[1:].tolist() for count in counts), strict=True))
    return (*map(tuple, sizes), int(counts[0][0]), tuple(pairs))
