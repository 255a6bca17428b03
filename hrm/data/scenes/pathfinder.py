"""Pathfinder as segmentation: which pixels belong to the dashed contour that carries the marker?

After Linsley et al., "Learning long-range spatial dependencies with horizontal gated recurrent
units" (2018): an image has two or more smooth dashed contours and short distractors, and a disc
marks one contour at one end. The label is the marked contour's stroke, its gaps included. Its
difficulty is the length of that contour in pixels; every length of a range is as frequent as any
other, in each split (`lengths`). The dashes of a contour lie `_GAP` apart and those of others, and
other parts of itself, at least `_CLEARANCE`, so that the answer is well defined. No image is a
symmetry of another.
"""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from hrm.data.base import ImageMetadata
from hrm.data.keys import keys_of
from hrm.data.request import Report
from hrm.data.scenes.augment import orbit_keys
from hrm.data.scenes.scenes import Counts, Scenes, Task, deal, joined, quotas
from hrm.errors import UserError

Floats = NDArray[np.float32]
Curves = NDArray[np.float32]
"""Points of curves as row and column in pixels, [n, points, 2], every `_STEP` along the curve;
beyond a curve's end its last point is repeated."""

_USE = 202  # what this task adds to the seed's keys
_LEAST_SIZE = 24
_STEP = 0.5
_HALF_WIDTH = 0.7
_DASH, _GAP = 4.0, 3.0  # along a contour, of its centre line; round ends make gaps look shorter
_CLEARANCE = 5.0  # between the centre lines of contours
_MARKER = 2.3  # radius
_MARGIN = 3.0
_SELF = 12.0  # parts of a contour that lie so far apart along it must keep the clearance
_BEND = 0.16  # radians a pixel, standard deviation
_CHUNK = 512
_CELLS = 1 << 18  # numbers at a time: so many stay in the processor's cache
_TRIES = 3  # rounds of proposals for a contour
_SECOND = 4  # contours to try until a second one is there
_MOST = 16  # proposals for a contour in a round


def lengths(size: int) -> tuple[int, int]:
    """The range of difficulties of images of this size: 12 to 48 pixels for 32."""
    return size * 3 // 8, size * 3 // 2


def make_pathfinder(size: int, counts: Counts, seed: int, report: Report) -> Task:
    """Images of `size` squared for each split. Raises `UserError` for a size below 24."""
    if size < _LEAST_SIZE:
        raise UserError(f"size is {size}: of pathfinder it may be {_LEAST_SIZE} or more")
    low, high = lengths(size)
    pending = np.repeat(np.arange(low, high + 1), quotas(counts, low, high))
    wanted, turn = len(pending), 0
    seen: set[int] = set()
    kept: list[Scenes] = []
    while len(pending):
        generator = np.random.default_rng(keys_of(seed, _USE, turn))
        turn += 1
        generator.shuffle(pending)
        now, later = pending[:_CHUNK], pending[_CHUNK:]
        scenes, whole = _draw(size, now, generator)
        for row, key in enumerate(orbit_keys(scenes.images).tolist()):
            whole[row] &= key not in seen
            if whole[row]:
                seen.add(key)
        kept.append(scenes.take(np.flatnonzero(whole)))
        # A length whose image did not come about is tried again, or long ones would be rare.
        pending = np.concatenate([now[~whole], later])
        report("contours", wanted - len(pending), wanted)
    image = ImageMetadata(
        channels=1,
        height=size,
        width=size,
        classes=2,
        values="intensity",
        class_names=["other", "marked contour"],
        task="pathfinder",
    )
    return Task(deal(joined(kept), counts, low, high, seed), image, vocab_size=256)


def _draw(
    size: int, long: NDArray[np.int64], generator: np.random.Generator
) -> tuple[Scenes, NDArray[np.bool_]]:
    """An image for each length of the marked contour `long` [n], and whether it came about: [n].

    It did if the marked contour and another found room.
    """
    count = len(long)
    low, high = lengths(size)
    area = (size / 32) ** 2
    taken = np.full((count, size, size), np.inf, dtype=np.float32)  # distance to all contours
    ink = np.zeros((count, size, size), dtype=np.float32)
    marked, placed = _place(long.astype(np.float32), taken, ink, generator, marker=True)
    whole = placed
    others = generator.integers(1, round(3 * area) + 1, size=count)
    found = np.zeros(count, dtype=bool)
    for turn in range(max(int(others.max()), _SECOND)):
        # One other contour there must be: what found no room is tried again, and shorter.
        most = np.where((turn > 0) & ~found, (low + high) / 2, high)
        length = generator.uniform(low, most, size=count).astype(np.float32)
        length[((turn >= others) & found) | ~whole] = 0
        _, placed = _place(length, taken, ink, generator)
        found |= placed
    whole &= found
    for _ in range(round(5 * area)):
        length = generator.choice([_DASH, _DASH, 2 * _DASH + _GAP], size=count)
        length[(generator.random(count) < 0.3) | ~whole] = 0
        _place(length.astype(np.float32), taken, ink, generator)
    brightness = generator.uniform(140, 255, size=(count, 1, 1))
    images = np.rint(np.clip(ink, 0, 1) * brightness).astype(np.uint8)
    labels = (marked <= _HALF_WIDTH + 0.5).astype(np.uint8)
    return Scenes(images[:, None], labels, long.astype(np.int16)), whole


def _place(
    length: Floats,
    taken: Floats,
    ink: Floats,
    generator: np.random.Generator,
    *,
    marker: bool = False,
) -> tuple[Floats, NDArray[np.bool_]]:
    """Draw a dashed curve of `length` [n] into each image where it finds room; 0: none is wanted.

    `taken` and `ink` [n, size, size] are changed. Returns the distance of each pixel to the new
    curve, infinite where there is none, and whether there is one: [n].
    """
    distance = np.full_like(taken, np.inf)
    placed = np.zeros(len(length), dtype=bool)
    size = taken.shape[1]
    for _ in range(_TRIES):
        rows = np.flatnonzero((length > 0) & ~placed)
        if not len(rows):
            break
        # More proposals for each where few images wait; the first that fits is taken.
        rows = np.repeat(rows, min(_CHUNK // len(rows), _MOST))
        curves = _curves(length[rows], size, generator)
        inside = (curves >= _MARGIN) & (curves <= size - 1 - _MARGIN)
        fits = inside.reshape(len(rows), -1).all(axis=1)
        rows, curves = rows[fits], curves[fits]
        pixel = np.rint(curves).astype(np.int64)
        # A point lies up to 0.71 from its pixel's centre.
        fits = taken[rows[:, None], pixel[..., 0], pixel[..., 1]].min(axis=1) >= _CLEARANCE + 0.75
        rows, curves = rows[fits], curves[fits]
        fits = _keeps_from_itself(curves, length[rows])
        rows, first = np.unique(rows[fits], return_index=True)
        curves = curves[fits][first]
        if not len(rows):
            continue
        placed[rows] = True
        drawn = length[rows]
        distance[rows] = _distances(curves, size)
        along = np.minimum(np.arange(curves.shape[1]) * _STEP, drawn[:, None])
        dashed = (along % (_DASH + _GAP)) <= _DASH
        off = np.where(dashed[..., None], curves, np.float32(-1e3))
        stroke = np.clip(_HALF_WIDTH + 0.5 - _distances(off, size), 0, 1)
        reach = distance[rows]
        if marker:
            to_end = _distances(curves[:, :1], size)
            stroke = np.maximum(stroke, np.clip(_MARKER + 0.5 - to_end, 0, 1))
            reach = np.minimum(reach, np.maximum(to_end - (_MARKER - _HALF_WIDTH), 0))
        ink[rows] = np.maximum(ink[rows], stroke)
        taken[rows] = np.minimum(taken[rows], reach)
    return distance, placed


def _curves(length: Floats, size: int, generator: np.random.Generator) -> Curves:
    """Smooth random curves of `length` [n]: the bend itself wanders."""
    count, points = len(length), int(np.ceil(length.max() / _STEP)) + 1
    knots = int(np.ceil(points * _STEP / 8)) + 2
    bends = generator.normal(scale=_BEND, size=(count, knots))
    where = np.arange(points) * _STEP / 8
    left = where.astype(np.int64)
    bend = bends[:, left] * (1 - where + left) + bends[:, left + 1] * (where - left)
    heading = generator.uniform(0, 2 * np.pi, size=(count, 1)) + np.cumsum(bend * _STEP, axis=1)
    # The step to each point, which is cut where the curve ends.
    step = np.clip(length[:, None] - np.arange(-1, points - 1) * _STEP, 0, _STEP)
    step[:, 0] = 0
    path = np.stack([step * np.sin(heading), step * np.cos(heading)], axis=2).cumsum(axis=1)
    # A random place among those where it stays inside, if there are any.
    least, most = path.min(axis=1), path.max(axis=1)
    room = np.maximum(size - 1 - 2 * _MARGIN - (most - least), 0)
    start = _MARGIN - least + room * generator.random((count, 2))
    return (path + start[:, None]).astype(np.float32)


def _keeps_from_itself(curves: Curves, length: Floats) -> NDArray[np.bool_]:
    """Whether parts of a curve that are far apart along it are far apart in the image: [n]."""
    thin = curves[:, ::3]
    gap = np.square(thin[:, :, None] - thin[:, None]).sum(axis=3)
    along = np.minimum(np.arange(thin.shape[1]) * _STEP * 3, length[:, None])
    far = np.abs(along[:, :, None] - along[:, None]) >= _SELF
    return ~(far & (gap < (_CLEARANCE + 1) ** 2)).any(axis=(1, 2))


def _distances(curves: Curves, size: int) -> Floats:
    """From each pixel's centre to the nearest point of a curve: [n, size, size]."""
    line = np.arange(size, dtype=np.float32)
    rows = np.square(line[:, None] - curves[:, None, :, 0])  # [n, size, points]
    columns = np.square(line[:, None] - curves[:, None, :, 1])
    nearest = np.empty((len(curves), size, size), dtype=np.float32)
    step = max(_CELLS // max(columns.size, 1), 1)
    for row in range(0, size, step):
        part = rows[:, row : row + step, None] + columns[:, None]
        nearest[:, row : row + step] = part.min(axis=3)
    return np.sqrt(nearest)
