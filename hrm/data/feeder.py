"""Rows for the slots that halted, in an order that a seed fixes.

What a slot holds is a function of the seed and of how many rows were admitted before, so the state
is one number and resuming is exact. A row that was drawn is always used.
"""

from __future__ import annotations

from collections.abc import Mapping
from concurrent.futures import Future, ThreadPoolExecutor
from typing import Any, Literal, NamedTuple, Protocol

import numpy as np
from numpy.typing import NDArray

from hrm.data.base import PuzzleSplit
from hrm.data.keys import Keys, keys_of
from hrm.errors import UserError

Int32 = NDArray[np.int32]


class Augmenter(Protocol):
    """Another form of the same puzzles, chosen by one key a row."""

    def __call__(self, columns: Mapping[str, Int32], keys: Keys, /) -> dict[str, Int32]:
        """The columns of n rows, as `PuzzleSplit.take` gives them, and `keys` uint64 [n] -> the
        same columns, new where they change.

        Labels may hold -100. Row i must depend on row i and key i alone.
        """
        ...


class _Made(NamedTuple):
    """Rows in the order in which they are admitted, and the columns of those that are wanted."""

    first: int
    """Serial number of the first."""
    rows: NDArray[np.int64]
    columns: dict[str, Int32]


class Feeder:
    """Draws rows of `split` for halted slots.

    slots: number of rows of the arrays that `fill` returns.
    seed: fixes the order of each epoch and every augmentation.
    epochs: passes over the data, after which slots get padding; None: without end.
    sampling: "rows", an epoch is every row once; "groups", an epoch is one random row of one random
        puzzle of each group, as in the published loader (for sets with one row a puzzle).
    augment: applied to each admitted row, keyed by the seed and the row's serial number.
    shuffle: False keeps the order of the file (of the groups, with "groups").
    easy_first: 0 to 1, how far the first epoch goes from easy rows to hard ones instead of by
        chance; 1: strictly. For sets that tell their rows' difficulty.
    ahead: a thread makes the next rows while the caller works on these: for a device that would
        wait for them. The rows are the same.
    mine: [slots], the slots whose rows the caller wants, where others look after the rest; who gets
        which row does not depend on it. None: all.
    """

    def __init__(
        self,
        split: PuzzleSplit,
        *,
        slots: int,
        seed: int,
        epochs: int | None = None,
        sampling: Literal["rows", "groups"] = "rows",
        augment: Augmenter | None = None,
        shuffle: bool = True,
        easy_first: float = 0.0,
        ahead: bool = False,
        mine: NDArray[np.bool_] | None = None,
    ) -> None:
        if slots < 1:
            raise UserError(f"slots is {slots}: it must be at least 1")
        if epochs is not None and epochs < 0:
            raise UserError(f"epochs is {epochs}: it must be at least 0")
        if sampling not in ("rows", "groups"):
            raise UserError(f"sampling is '{sampling}': it may be 'rows' or 'groups'")
        if not 0 <= easy_first <= 1:
            raise UserError(f"easy_first is {easy_first}: it may be 0 to 1")
        if easy_first and (split.difficulty is None or sampling == "groups" or not shuffle):
            raise UserError(
                f"easy_first is {easy_first}: it must be 0 unless all rows are shuffled and their "
                "difficulty is known"
            )
        self.split = split
        self.slots = slots
        self.seed = seed
        self.epochs = epochs
        self.sampling = sampling
        self.augment = augment
        self.shuffle = shuffle
        self.easy_first = easy_first
        self.mine = np.ones(slots, dtype=bool) if mine is None else mine
        self.rows_per_epoch = len(split) if sampling == "rows" else split.groups
        self._thread = ThreadPoolExecutor(1, "feeder") if ahead else None
        self._made: Future[_Made] | None = None
        """Rows from the next one on, being made ahead."""
        self._admitted = 0
        self._order_epoch = -1
        self._order: NDArray[np.int64] = np.empty(0, dtype=np.int64)
        self._rows = np.full(slots, -1, dtype=np.int64)
        self._padding = split.padding(1)
        self._batch = split.padding(slots)

    @property
    def admitted(self) -> int:
        """Rows drawn so far, without padding."""
        return self._admitted

    @property
    def epoch(self) -> int:
        """Complete passes so far."""
        return self._admitted // self.rows_per_epoch

    @property
    def planned(self) -> int | None:
        """Rows that will be drawn in all; None without end."""
        return None if self.epochs is None else self.epochs * self.rows_per_epoch

    @property
    def exhausted(self) -> bool:
        """Whether every further slot gets padding."""
        return self.planned is not None and self._admitted >= self.planned

    @property
    def rows(self) -> NDArray[np.int64]:
        """The split's row that each slot got last, [slots]; -1 is padding. A copy."""
        return self._rows.copy()

    def fill(self, halted: NDArray[np.bool_]) -> dict[str, Int32]:
        """New rows for the slots where `halted` [slots] is true, in slot order.

        Returns the columns of `PuzzleSplit.take`, [slots, ...]. The other slots' content is
        arbitrary, and that of slots that are not `mine`. The arrays are the feeder's own and are
        overwritten at the next call. After the last epoch slots get `PuzzleSplit.padding`: pad
        tokens, labels all -100.
        """
        halted = np.asarray(halted, dtype=bool)
        if halted.shape != (self.slots,):
            raise ValueError(f"halted has shape {halted.shape}, the feeder has {self.slots} slots")
        slots = np.flatnonzero(halted)
        made = self._next(self.mine[slots])
        filled, padded = slots[: len(made.rows)], slots[len(made.rows) :]
        wanted = filled[self.mine[filled]]
        for name, array in made.columns.items():
            self._batch[name][wanted] = array
        self._rows[filled] = made.rows
        self._admitted += len(made.rows)
        if self._thread is not None:
            everyone = np.ones(self.slots, dtype=bool)
            self._made = self._thread.submit(self._make, self._admitted, everyone)
        if len(padded):
            for name, array in self._padding.items():
                self._batch[name][padded] = array
            self._rows[padded] = -1
        return dict(self._batch)

    def state_dict(self) -> dict[str, Any]:
        """The position, and what it is a position in; made of numbers and strings only."""
        return {
            "admitted": self._admitted,
            "seed": self.seed,
            "sampling": self.sampling,
            "shuffle": self.shuffle,
            "rows_per_epoch": self.rows_per_epoch,
        }

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        """Go on where `state` was taken. `epochs` and `slots` may differ, nothing else may."""
        for key, mine in self.state_dict().items():
            if key not in state:
                raise UserError(f"the feeder's state lacks '{key}'")
            if key != "admitted" and state[key] != mine:
                raise UserError(f"the feeder's state has {key}={state[key]}, this run has {mine}")
        self._admitted = int(state["admitted"])

    def _next(self, wanted: NDArray[np.bool_]) -> _Made:
        """The next `len(wanted)` rows, or as many as are left."""
        ahead, self._made = self._made, None
        made = ahead.result() if ahead is not None else None
        if made is None or made.first != self._admitted:  # A state was loaded meanwhile.
            return self._make(self._admitted, wanted)
        rows = made.rows[: len(wanted)]
        chosen = np.flatnonzero(wanted[: len(rows)])
        return _Made(made.first, rows, {k: array[chosen] for k, array in made.columns.items()})

    def _make(self, first: int, wanted: NDArray[np.bool_]) -> _Made:
        """Rows with the serial numbers from `first` on, `len(wanted)` or as many as are left, and
        of the wanted ones the columns, augmented."""
        rows = self._draw(first, len(wanted))
        chosen = np.flatnonzero(wanted[: len(rows)])
        columns: dict[str, Int32] = {}
        if len(chosen):
            columns = self.split.take(rows[chosen])
            if self.augment is not None:
                columns = self.augment(columns, keys_of(self.seed, first + chosen))
        return _Made(first, rows, columns)

    def _draw(self, first: int, count: int) -> NDArray[np.int64]:
        if self.planned is not None:
            count = min(count, self.planned - first)
        pieces = []
        while count > 0:
            epoch, position = divmod(first, self.rows_per_epoch)
            piece = self._epoch_order(epoch)[position : position + count]
            pieces.append(piece)
            first += len(piece)
            count -= len(piece)
        return np.concatenate(pieces) if pieces else np.empty(0, dtype=np.int64)

    def _epoch_order(self, epoch: int) -> NDArray[np.int64]:
        if epoch != self._order_epoch:
            generator = np.random.default_rng(keys_of(self.seed, epoch))
            order = np.arange(self.rows_per_epoch, dtype=np.int64)
            if self.shuffle:
                generator.shuffle(order)
            if self.easy_first and epoch == 0:
                order = self._easy_first(order)
            if self.sampling == "groups":
                puzzles = _pick(self.split.group_indices, order, generator)
                order = _pick(self.split.puzzle_indices, puzzles, generator)
            self._order, self._order_epoch = order, epoch
        return self._order

    def _easy_first(self, order: NDArray[np.int64]) -> NDArray[np.int64]:
        """Every row once still: by a mean of its place in `order` and its rank of difficulty."""
        assert self.split.difficulty is not None
        # Stable, so that rows as hard as one another stay in the order of chance.
        ranked = order[np.argsort(np.asarray(self.split.difficulty)[order], kind="stable")]
        place, rank = np.empty_like(order), np.empty_like(order)
        place[order] = rank[ranked] = np.arange(len(order))
        mean = (1 - self.easy_first) * place + self.easy_first * rank
        return order[np.argsort(mean[order], kind="stable")]


def _pick(
    indices: NDArray[np.integer], runs: NDArray[np.int64], generator: np.random.Generator
) -> NDArray[np.int64]:
    """A random member of each of `runs`, where run i holds indices[i] .. indices[i + 1] - 1."""
    return generator.integers(indices[runs], indices[runs + 1], dtype=np.int64)
