"""Toy tasks that only their demonstrations tell: every colour becomes another one.

A task is a permutation of the colours; its queries and demonstrations are random grids and what
becomes of them. Nothing in a query says which permutation it is.
"""

from __future__ import annotations

import itertools
from pathlib import Path

import numpy as np

from hrm.data.base import SplitArrays, write_dataset
from hrm.data.demonstrations import Demonstrations

COLOURS, SIDE, SHOWN = 5, 3, 3


def permutations(colours: int = COLOURS, seed: int = 0) -> np.ndarray:
    """All of them in an order of chance, [count, colours]."""
    every = np.array(list(itertools.permutations(range(colours))))
    return np.random.default_rng(seed).permutation(every)


def tasks(
    permutations: np.ndarray, queries: int, seed: int, side: int = SIDE, shown: int = SHOWN
) -> SplitArrays:
    """A puzzle for each permutation, with queries and demonstrations; token 2 is colour 0."""
    count, colours = permutations.shape
    grids = np.random.default_rng(seed).integers(
        colours, size=(count, queries + shown, side * side)
    )
    becomes = np.take_along_axis(permutations[:, None], grids, axis=2)
    before, after = (values.astype(np.uint8) + 2 for values in (grids, becomes))
    return SplitArrays(
        inputs=before[:, :queries].reshape(-1, side * side),
        labels=after[:, :queries].reshape(-1, side * side),
        puzzle_identifiers=np.arange(1, count + 1, dtype=np.int32),
        puzzle_indices=np.arange(0, count * queries + 1, queries, dtype=np.int32),
        group_indices=np.arange(count + 1, dtype=np.int32),
        demonstrations=Demonstrations(
            inputs=before[:, queries:].reshape(-1, side * side),
            outputs=after[:, queries:].reshape(-1, side * side),
            indices=np.arange(0, count * shown + 1, shown, dtype=np.int32),
        ),
    )


def write_tasks(
    root: Path, train: int, held_out: int, queries: int = 4, shown: int = SHOWN
) -> Path:
    """A data set whose splits share no permutation."""
    order = permutations()
    splits = {
        "train": tasks(order[held_out : held_out + train], queries, 1, shown=shown),
        "val": tasks(order[:held_out], 2, 2, shown=shown),
        "test": tasks(order[:held_out], 2, 3, shown=shown),
    }
    names = ["<blank>", *map(str, range(max(train, held_out)))]
    write_dataset(root, splits, vocab_size=COLOURS + 2, identifiers=names, grid=SIDE)  # type: ignore[arg-type]
    return root
