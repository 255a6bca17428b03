"""Scenes of real handwritten digits: mark all digits of the class that a cue in the corner shows.

The digits are scikit-learn's `load_digits`, 1,797 images of 8x8 pixels from the UCI repository
(Alpaydin and Kaynak, 1998). The cue stands in the top left corner, which a line marks off, so that
it can be found in a turned image too; it is never one of the digits to be marked. The label is 1 on
the ink of scattered digits of the cue's class: there is at least one, and at least one digit of
another class. The real digits of train, val and test scenes are disjoint sets, 70, 15 and 15 of a
hundred of each class. The difficulty is the number of scattered digits; every number of a range is
as frequent as any other, in each split (`digit_counts`).
"""

from __future__ import annotations

from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from hrm.data.base import ImageMetadata, SplitName
from hrm.data.keys import keys_of
from hrm.data.request import Report
from hrm.data.scenes.augment import orbit_keys
from hrm.data.scenes.scenes import Counts, Pixels, Scenes, Task, even
from hrm.errors import UserError

INK = 64
"""A pixel of a digit is ink if it is brighter."""

_USE = 203  # what this task adds to the seed's keys
_SPLITS: tuple[SplitName, ...] = ("train", "val", "test")
_SHARES = (0.7, 0.85)  # where val and test begin among the digits of a class
_SIDE = 8
_CORNER = _SIDE + 1  # the cue and the line around it
_APART = _SIDE + 1  # least distance of two digits' corners in rows or in columns
_LINE = 128
_LEAST_SIZE = 24
_CHUNK = 256
_TRIES = 60


class Digits(NamedTuple):
    """Real digits: images uint8 [n, 8, 8] of 0 to 255, and their classes [n]."""

    images: Pixels
    classes: NDArray[np.int64]


def digit_counts(size: int) -> tuple[int, int]:
    """The range of difficulties of scenes of this size: 2 to 6 digits for 32."""
    return 2, int(0.55 * (size**2 - _CORNER**2) / _APART**2)


def real_digits(seed: int) -> dict[SplitName, Digits]:
    """The digits of each split. Raises `UserError` if scikit-learn is missing."""
    try:
        from sklearn.datasets import load_digits
    except ImportError as error:
        raise UserError("digit scenes need scikit-learn: pip install 'hrm[scenes]'") from error
    loaded = load_digits()
    images = np.rint(loaded.images * (255 / 16)).astype(np.uint8)
    generator = np.random.default_rng(keys_of(seed, _USE))
    rows: dict[SplitName, list[NDArray[np.int64]]] = {name: [] for name in _SPLITS}
    for digit in range(10):
        of_class = generator.permutation(np.flatnonzero(loaded.target == digit))
        cuts = [int(len(of_class) * share) for share in _SHARES]
        for name, part in zip(_SPLITS, np.split(of_class, cuts), strict=True):
            rows[name].append(part)
    return {
        name: Digits(images[np.concatenate(parts)], loaded.target[np.concatenate(parts)])
        for name, parts in rows.items()
    }


def make_digit_scenes(size: int, counts: Counts, seed: int, report: Report) -> Task:
    """Scenes of `size` squared for each split.

    Raises `UserError` for a size below 24, or if scikit-learn is missing.
    """
    if size < _LEAST_SIZE:
        raise UserError(f"size is {size}: of digits it may be {_LEAST_SIZE} or more")
    digits = real_digits(seed)
    splits: dict[SplitName, Scenes] = {}
    seen: set[int] = set()
    for number, name in enumerate(_SPLITS):
        count = counts.get(name, 0)
        if count:
            generator = np.random.default_rng(keys_of(seed, _USE, number))
            splits[name] = _split(size, count, digits[name], seen, generator, report)
    image = ImageMetadata(
        channels=1,
        height=size,
        width=size,
        classes=2,
        values="intensity",
        class_names=["other", "digit of the cue's class"],
        task="digits",
    )
    return Task(splits, image, vocab_size=256)


def _split(
    size: int,
    count: int,
    digits: Digits,
    seen: set[int],
    generator: np.random.Generator,
    report: Report,
) -> Scenes:
    """`count` scenes that are not `seen`."""
    numbers = generator.permutation(even(count, *digit_counts(size)))
    images = np.zeros((count, 1, size, size), dtype=np.uint8)
    labels = np.zeros((count, size, size), dtype=np.uint8)
    pending = np.arange(count)
    while len(pending):
        now, later = pending[:_CHUNK], pending[_CHUNK:]
        corners, whole = _corners(size, numbers[now], generator)
        drawn = _draw(size, numbers[now], corners, digits, generator)
        for row, key in enumerate(orbit_keys(drawn.images).tolist()):
            whole[row] &= key not in seen
            if whole[row]:
                seen.add(key)
        images[now[whole]], labels[now[whole]] = drawn.images[whole], drawn.labels[whole]
        pending = np.concatenate([now[~whole], later])
        report("scenes", count - len(pending), count)
    return Scenes(images, labels, numbers.astype(np.int16))


def _corners(
    size: int, numbers: NDArray[np.int64], generator: np.random.Generator
) -> tuple[NDArray[np.int64], NDArray[np.bool_]]:
    """Top left corners of `numbers` [n] digits that overlap neither one another nor the cue's
    corner, [n, largest number, 2], and whether all found a place, [n]."""
    scenes, most = len(numbers), int(numbers.max())
    corners = np.full((scenes, most, 2), -2 * size)
    whole = np.ones(scenes, dtype=bool)
    for digit in range(most):
        pending = np.flatnonzero((digit < numbers) & whole)
        for _ in range(_TRIES):
            tried = generator.integers(0, size - _SIDE + 1, size=(len(pending), 2))
            apart = np.abs(tried[:, None] - corners[pending]).max(axis=2) >= _APART
            free = apart.all(axis=1) & (tried > _CORNER).any(axis=1)
            corners[pending[free], digit] = tried[free]
            pending = pending[~free]
        whole[pending] = False
    return corners, whole


def _draw(
    size: int,
    numbers: NDArray[np.int64],
    corners: NDArray[np.int64],
    digits: Digits,
    generator: np.random.Generator,
) -> Scenes:
    """Scenes with digits at `corners`: 1 to half of them are of the cue's class."""
    images = np.zeros((len(numbers), 1, size, size), dtype=np.uint8)
    labels = np.zeros((len(numbers), size, size), dtype=np.uint8)
    images[:, 0, _CORNER - 1, :_CORNER] = images[:, 0, :_CORNER, _CORNER - 1] = _LINE
    members = [np.flatnonzero(digits.classes == digit) for digit in range(10)]
    for scene, number in enumerate(numbers.tolist()):
        cued = int(generator.integers(10))
        same = generator.integers(1, number // 2 + 1)
        cue, *targets = generator.choice(members[cued], size=same + 1, replace=False)
        others = (cued + generator.integers(1, 10, size=number - same)) % 10
        shown = [*targets, *(generator.choice(members[other]) for other in others)]
        images[scene, 0, :_SIDE, :_SIDE] = digits.images[cue]
        for digit, (row, column) in zip(shown, corners[scene].tolist(), strict=False):
            if row < 0:  # This scene did not find room for all and is drawn again.
                continue
            there = np.s_[row : row + _SIDE, column : column + _SIDE]
            images[scene, 0][there] = digits.images[digit]
            if digits.classes[digit] == cued:
                labels[scene][there] = digits.images[digit] > INK
    return Scenes(images, labels)
