"""Mazes of several trees: random trees grown side by side on a lattice, many boards at a time.

Each tree grows by the growing-tree algorithm: a member that still has a free neighbour is picked,
the newest one (a winding corridor, as by depth-first search) or a random one (a bush, as by Prim),
and a neighbour joins it. The share of the one and the other, how fast each tree grows, where it
stops and how many walls within a tree are opened afterwards are drawn for each board, so that
boards of equal density have short ways and long ones.
"""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

Owners = NDArray[np.int8]

_TREES = 4
_STEPS = np.array([(-1, 0), (1, 0), (0, -1), (0, 1)])


def forests(count: int, size: int, generator: np.random.Generator) -> Owners:
    """The tree that each cell of `count` boards belongs to, -1 for a wall: [count, size, size].

    Cells of different trees never touch. `size` is even; the lattice has every other cell.
    """
    side = size // 2
    owner, parent = _grow(count, side, generator)
    loops = generator.random(count) ** 2 * (generator.random(count) < 0.75)
    return _draw(owner, parent, loops, generator)


def _grow(
    count: int, side: int, generator: np.random.Generator
) -> tuple[Owners, NDArray[np.int64]]:
    """Trees on a lattice: the owner and the parent (or itself) of each lattice cell, both
    [count, side * side]; owner -1 and parent -1 are cells that no tree has reached."""
    cells, boards = side * side, np.arange(count)
    newest = generator.choice([0.0, 0.5, 0.9, 1.0], size=count)
    trees = generator.integers(2, _TREES + 1, size=count)
    speed = generator.random((count, _TREES)) + 0.15
    speed[np.arange(_TREES) >= trees[:, None]] = 0
    # Growth that stops early leaves walls around small trees.
    left = np.ceil(cells * (0.1 + 0.9 * np.sqrt(generator.random(count)))).astype(np.int64) - trees
    blocked = generator.random(count) ** 2 * 0.3

    # A border of foreign cells spares all tests for the lattice's edge.
    wide = side + 2
    owner = np.full((count, wide * wide), -2, dtype=np.int8)
    inner = (np.arange(1, side + 1)[:, None] * wide + np.arange(1, side + 1)).reshape(-1)
    free = generator.random((count, cells)) >= blocked[:, None]
    owner[:, inner] = np.where(free, -1, -2)
    parent = np.full((count, wide * wide), -1, dtype=np.int64)
    stack = np.zeros((count, _TREES, cells), dtype=np.int64)
    height = np.zeros((count, _TREES), dtype=np.int64)
    roots = inner[np.argsort(generator.random((count, cells)), axis=1)[:, :_TREES]]
    for tree in range(_TREES):
        grows = np.flatnonzero(tree < trees)
        root = roots[grows, tree]
        owner[grows, root], parent[grows, root] = tree, root
        stack[grows, tree, 0], height[grows, tree] = root, 1

    steps = np.array([-wide, wide, -1, 1])
    alive = boards
    while len(alive):
        rows = len(alive)
        weight = np.cumsum(speed[alive] * (height[alive] > 0), axis=1)
        tree = (weight <= generator.random((rows, 1)) * weight[:, -1:]).sum(axis=1)
        top = height[alive, tree] - 1
        place = np.where(
            generator.random(rows) < newest[alive],
            top,
            (generator.random(rows) * (top + 1)).astype(np.int64),
        )
        cell = stack[alive, tree, place]
        around = cell[:, None] + steps
        open_ = owner[alive[:, None], around] == -1
        chosen = np.argmax(open_ * (generator.random((rows, 4)) + 0.5), axis=1)
        can = open_[np.arange(rows), chosen]

        grown, grown_tree = alive[can], tree[can]
        new = around[can, chosen[can]]
        owner[grown, new] = grown_tree
        parent[grown, new] = cell[can]
        stack[grown, grown_tree, top[can] + 1] = new
        height[grown, grown_tree] += 1
        left[grown] -= 1

        stuck, stuck_tree = alive[~can], tree[~can]
        stack[stuck, stuck_tree, place[~can]] = stack[stuck, stuck_tree, top[~can]]
        height[stuck, stuck_tree] -= 1
        alive = alive[(left[alive] > 0) & (height[alive].sum(axis=1) > 0)]
    index = np.full(wide * wide + 1, -1)
    index[inner] = np.arange(cells)
    return np.maximum(owner[:, inner], -1), index[parent[:, inner]]


def _draw(
    owner: Owners,
    parent: NDArray[np.int64],
    loops: NDArray[np.float64],
    generator: np.random.Generator,
) -> Owners:
    """Boards of a lattice's trees: a cell a lattice cell, and the cells between where a tree's
    branch passes or, with a chance of `loops` [count], where two cells of one tree lie next to each
    other. Where four of them are all joined, the cell in their middle is open too."""
    count, cells = owner.shape
    side = int(np.sqrt(cells))
    grid = owner.reshape(count, side, side)
    up = parent.reshape(count, side, side)
    index = np.arange(cells).reshape(side, side)
    board = np.full((count, 2 * side, 2 * side), -1, dtype=np.int8)
    board[:, ::2, ::2] = grid
    # Right neighbours, then lower ones.
    for one, two, step, between in (
        (np.s_[:, :, :-1], np.s_[:, :, 1:], 1, np.s_[:, ::2, 1:-1:2]),
        (np.s_[:, :-1, :], np.s_[:, 1:, :], side, np.s_[:, 1:-1:2, ::2]),
    ):
        first = index[one[1:]]
        branch = (up[one] == first + step) | (up[two] == first)
        opened = generator.random(branch.shape) < loops[:, None, None]
        joined = branch | (opened & (grid[one] == grid[two]))
        board[between] = np.where(joined, grid[one], -1)
    middle = board[:, 1:-1:2, 1:-1:2]
    sides = (
        board[:, :-2:2, 1:-1:2], board[:, 2::2, 1:-1:2],
        board[:, 1:-1:2, :-2:2], board[:, 1:-1:2, 2::2],
    )  # fmt: skip
    whole = np.logical_and.reduce([part >= 0 for part in sides])
    middle[...] = np.where(whole, sides[0], -1)
    return board
