"""What every image task makes, and how many distinct ones go to each split."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from hrm.data.base import ImageMetadata, SplitArrays, SplitName
from hrm.data.keys import keys_of

Pixels = NDArray[np.uint8]
Counts = Mapping[SplitName, int]
"""Rows of each split."""

IGNORED = 255
"""The label on disk of a pixel that counts in no loss or metric."""


@dataclass(frozen=True)
class Scenes:
    """Images uint8 [n, channels, height, width], the class of each pixel uint8 [n, height, width],
    and a difficulty [n] where it is known."""

    images: Pixels
    labels: Pixels
    difficulty: NDArray[np.int16] | None = None

    def __len__(self) -> int:
        return len(self.images)

    def take(self, rows: NDArray[np.integer]) -> Scenes:
        """Those rows."""
        difficulty = None if self.difficulty is None else self.difficulty[rows]
        return Scenes(self.images[rows], self.labels[rows], difficulty)

    def arrays(self) -> SplitArrays:
        """As they lie on disk."""
        count = len(self)
        return SplitArrays.from_rows(
            self.images.reshape(count, -1),
            self.labels.reshape(count, -1),
            difficulty=self.difficulty,
        )


@dataclass(frozen=True)
class Task:
    """The splits of a task, and what their images show."""

    splits: dict[SplitName, Scenes]
    image: ImageMetadata
    vocab_size: int


def joined(parts: Sequence[Scenes]) -> Scenes:
    """All rows of `parts`, which have a difficulty."""
    known = [part.difficulty for part in parts if part.difficulty is not None]
    return Scenes(
        np.concatenate([part.images for part in parts]),
        np.concatenate([part.labels for part in parts]),
        np.concatenate(known),
    )


def even(count: int, low: int, high: int) -> NDArray[np.int64]:
    """`count` difficulties from `low` to `high`, each as often as any other or once more: [count].

    What is left over after whole rounds is spread over the range.
    """
    values = np.arange(low, high + 1)
    rest = count % len(values)
    spread = values[np.arange(rest) * len(values) // max(rest, 1)]
    return np.sort(np.concatenate([np.repeat(values, count // len(values)), spread]))


def deal(scenes: Scenes, counts: Counts, low: int, high: int, seed: int) -> dict[SplitName, Scenes]:
    """Scenes to splits in a random order, so that each split's difficulties are `even`.

    There must be as many scenes of each difficulty as all splits together need.
    """
    generator = np.random.default_rng(keys_of(seed, _DEAL))
    order = generator.permutation(len(scenes))
    assert scenes.difficulty is not None
    of_difficulty = {
        value: list(order[scenes.difficulty[order] == value]) for value in range(low, high + 1)
    }
    splits: dict[SplitName, Scenes] = {}
    for name, count in counts.items():
        if count:
            wanted = generator.permutation(even(count, low, high)).tolist()
            splits[name] = scenes.take(np.array([of_difficulty[value].pop() for value in wanted]))
    return splits


def quotas(counts: Counts, low: int, high: int) -> NDArray[np.int64]:
    """How many scenes of each difficulty `low` .. `high` the splits need: [high - low + 1]."""
    needed = np.zeros(high + 1, dtype=np.int64)
    for count in counts.values():
        needed += np.bincount(even(count, low, high), minlength=high + 1)
    return needed[low:]


_DEAL = 101  # what dealing adds to the seed's keys
