"""Flood fill: which free cells of a maze can be reached from its seed?

A board is a square of free cells and walls with one seed. A free cell is reachable if moves to the
four neighbours lead to it from the seed over free cells. Its difficulty is the eccentricity of the
seed: the largest number of moves that a reachable cell is away, so that a model that spreads by one
cell a step needs that many steps.

Every eccentricity of a range is as frequent as any other, in each split (`eccentricities`). Boards
come in two styles, trees of corridors and rooms (`forest`) and caves of random walls, each of many
densities. Of each board the seed is a random cell, the end of a long way or the middle of one. Half
of the boards are left as they grew; in the others walls close every way at a distance that is still
needed, and walls around a window keep the reachable share of the free cells within `SHARE`. No
board is a symmetry of another.
"""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from hrm.data.base import ImageMetadata
from hrm.data.keys import keys_of
from hrm.data.request import Report
from hrm.data.scenes.augment import orbit_keys, symmetry
from hrm.data.scenes.forest import forests
from hrm.data.scenes.scenes import IGNORED, Counts, Scenes, Task, deal, joined, quotas
from hrm.errors import UserError

PAD, FREE, WALL, SEED = range(4)
"""The symbols of an input."""

SHARE = (0.2, 0.8)
"""Least and largest reachable share of the free cells."""

Masks = NDArray[np.bool_]
Distances = NDArray[np.int16]

_USE = 201  # what this task adds to the seed's keys
_CELLS = 1 << 18  # of a round of proposals
_BARREN = 60  # rounds without a new board until the generator gives up
_LEAST_SIZE = 8
_LEAST_WINDOW = 5
_WINDOW = (np.log(0.6), np.log(4.0))  # side of a window over the eccentricity in it, logarithms


def eccentricities(size: int) -> tuple[int, int]:
    """The range of difficulties of boards of this size: 2 to 40 for 16, 4 to 80 for 32."""
    return max(2, size // 8), size * 5 // 2


def make_flood_fill(size: int, counts: Counts, seed: int, report: Report) -> Task:
    """Boards of `size` squared for each split.

    Raises `UserError` for a size that is odd or below 8.
    """
    if size < _LEAST_SIZE or size % 2:
        raise UserError(f"size is {size}: of flood_fill it may be an even number from 8 on")
    low, high = eccentricities(size)
    need = quotas(counts, low, high)
    wanted = int(need.sum())
    seen: set[int] = set()
    kept: list[Scenes] = []
    done = barren = turn = 0
    while done < wanted:
        generator = np.random.default_rng(keys_of(seed, _USE, turn))
        turn += 1
        proposed = _propose(size, int(np.clip(_CELLS // size**2, 16, 1024)), need, low, generator)
        assert proposed.difficulty is not None
        new = []
        for row, (key, hard) in enumerate(
            zip(orbit_keys(proposed.images).tolist(), proposed.difficulty.tolist(), strict=True)
        ):
            if need[hard - low] and key not in seen:
                seen.add(key)
                need[hard - low] -= 1
                new.append(row)
        kept.append(proposed.take(np.array(new, dtype=np.int64)))
        done += len(new)
        barren = 0 if new else barren + 1
        if barren == _BARREN:
            raise UserError(
                f"size is {size}: only {done} of {wanted} different boards were found; lower count"
            )
        report("mazes", done, wanted)
    splits = deal(joined(kept), counts, low, high, seed)
    image = ImageMetadata(
        channels=1,
        height=size,
        width=size,
        classes=2,
        values="categorical",
        class_names=["not reachable", "reachable"],
        task="flood_fill",
    )
    return Task(splits, image, vocab_size=4)


def spread_from(free: Masks, seeds: Masks, limit: int | None = None) -> Distances:
    """Moves from the seeds to each cell, at most `limit`, -1 where none lead: all
    [boards, height, width].

    One wave over all boards at a time; boards whose wave has ended leave.
    """
    distance = np.full(free.shape, -1, dtype=np.int16)
    boards = np.arange(len(free))
    unseen, wave = free & ~seeds, seeds
    distance[seeds] = 0
    moves = 0
    while len(boards) and moves != limit:
        moves += 1
        near = np.zeros_like(wave)
        near[:, 1:] |= wave[:, :-1]
        near[:, :-1] |= wave[:, 1:]
        near[:, :, 1:] |= wave[:, :, :-1]
        near[:, :, :-1] |= wave[:, :, 1:]
        wave = near & unseen
        moving = wave.any(axis=(1, 2))
        if not moving.all():
            boards, wave, unseen = boards[moving], wave[moving], unseen[moving]
        unseen ^= wave
        board, row, column = np.nonzero(wave)
        distance[boards[board], row, column] = moves
    return distance


def _propose(
    size: int, count: int, need: NDArray[np.int64], low: int, generator: np.random.Generator
) -> Scenes:
    """Boards of which most have an eccentricity that is needed ([range from `low` on])."""
    caves = _caves(count // 4, size, generator)
    free = np.concatenate([forests(count - len(caves), size, generator) >= 0, caves])
    # Lattices start at an even row and column; boards need not.
    for board, turn in enumerate(generator.integers(0, 8, size=count).tolist()):
        free[board] = symmetry(free[board], turn)
    target = generator.choice(np.arange(low, low + len(need)), size=count, p=need / need.sum())
    free &= _windows(size, target * np.exp(generator.uniform(*_WINDOW, size=count)), generator)
    some = free.any(axis=(1, 2))
    free, target = free[some], target[some]

    limit = low + len(need)
    seeds, distance = _seeds(free, limit, generator)
    hardest = distance.max(axis=(2, 3))  # [seeds, boards]; `limit` stands for more, too
    wanted = np.append(need > 0, False)[np.maximum(hardest - low, 0)] & (hardest >= low)
    natural = generator.random(len(free)) < 0.5
    good = np.where(natural, wanted, hardest >= target)
    boards = np.arange(len(free))
    chosen = np.argmax(good + generator.random(good.shape), axis=0)
    seeds, distance, hardest = (
        seeds[chosen, boards],
        distance[chosen, boards],
        hardest[chosen, boards],
    )
    target = np.where(natural, hardest, target)
    free &= distance != (target + 1)[:, None, None]
    reached = (distance >= 0) & (distance <= target[:, None, None])

    share = reached.sum(axis=(1, 2)) / free.sum(axis=(1, 2))
    kept = good[chosen, boards] & (share >= SHARE[0]) & (share <= SHARE[1])
    images = np.where(free, FREE, WALL).astype(np.uint8)
    images[seeds] = SEED
    labels = np.where(free, reached, IGNORED).astype(np.uint8)
    return Scenes(images[kept, None], labels[kept], target[kept].astype(np.int16))


def _windows(size: int, sides: NDArray[np.float64], generator: np.random.Generator) -> Masks:
    """A square of each of `sides` [boards], cut to the board's, in a random place of its board."""
    inside = np.clip(sides, min(_LEAST_WINDOW, size), size).astype(np.int64)
    first = (generator.random((2, len(sides))) * (size - inside + 1)).astype(np.int64)[..., None]
    line = np.arange(size)
    rows, columns = (line >= first) & (line < first + inside[:, None])
    return rows[:, :, None] & columns[:, None, :]


def _seeds(free: Masks, limit: int, generator: np.random.Generator) -> tuple[Masks, Distances]:
    """Three seeds for each board, and the moves from them up to `limit`: [3, boards, ...].

    A random cell, the end of a long way from there, and the middle of a long way: so boards of one
    density are easy and hard.
    """
    anywhere = _one_of(free, generator)
    from_anywhere = spread_from(free, anywhere, limit)
    end = _one_of(_farthest(from_anywhere), generator)
    from_end = spread_from(free, end, limit)
    from_other = spread_from(free, _one_of(_farthest(from_end), generator), limit)
    longer = np.maximum(from_end, from_other)
    longer[(from_end < 0) | (from_other < 0)] = limit + 1
    nearest: Masks = longer == longer.min(axis=(1, 2))[:, None, None]
    middle = _one_of(nearest, generator)
    # Within the limit the two ends may not meet: then the random cell stands in.
    meets = np.any(middle & free, axis=(1, 2), keepdims=True)
    middle = np.where(meets, middle, anywhere)
    return (
        np.stack([anywhere, end, middle]),
        np.stack([from_anywhere, from_end, spread_from(free, middle, limit)]),
    )


def _farthest(distance: Distances) -> Masks:
    farthest: Masks = distance == distance.max(axis=(1, 2))[:, None, None]
    return farthest


def _one_of(cells: Masks, generator: np.random.Generator) -> Masks:
    """A random cell of each board's `cells` [boards, height, width], of which it has some."""
    flat = cells.reshape(len(cells), -1)
    chosen = np.argmax(flat * (generator.random(flat.shape, dtype=np.float32) + 1), axis=1)
    seeds = np.zeros_like(flat)
    seeds[np.arange(len(flat)), chosen] = True
    return seeds.reshape(cells.shape)


def _caves(count: int, size: int, generator: np.random.Generator) -> Masks:
    """Random free cells, smoothed by their neighbours up to twice: [count, size, size]."""
    density = generator.uniform(0.35, 0.65, size=(count, 1, 1))
    free: Masks = generator.random((count, size, size)) < density
    rounds = generator.integers(0, 3, size=count)
    for turn in range(2):
        padded = np.pad(free, ((0, 0), (1, 1), (1, 1))).astype(np.int8)
        rows = padded[:, :-2] + padded[:, 1:-1] + padded[:, 2:]
        around = rows[:, :, :-2] + rows[:, :, 1:-1] + rows[:, :, 2:]
        free = np.where((rounds > turn)[:, None, None], around >= 5, free)
    return free
