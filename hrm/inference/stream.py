"""Streams of puzzles: rows read no further than asked, numbered, checked, those that fail named."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections import deque
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass
from itertools import islice
from typing import Any

import numpy as np
from jaxtyping import Int
from torch import Tensor

from hrm.data.base import PuzzleSplit
from hrm.data.base import batches as batches_of
from hrm.errors import UserError
from hrm.models.act import Column

Columns = Mapping[str, Any]
"""A row, or a batch of rows: arrays, tensors or lists by name."""

SPLIT_ROWS = 256
"""Rows of a split that are read at once."""


@dataclass(frozen=True)
class Piece:
    """Rows that the model can read."""

    index: Int[np.ndarray, " rows"]
    data: dict[str, np.ndarray]

    def select(self, rows: Any) -> Piece:
        return Piece(self.index[rows], {k: v[rows] for k, v in self.data.items()})


class Source(ABC):
    """A stream's rows: numbered, checked, and read no further than asked."""

    def __init__(self, columns: Mapping[str, Column]) -> None:
        self.columns = columns
        self.count = 0
        """Rows read."""
        self.exhausted = False
        self.failed: dict[int, str] = {}
        """By index a sentence on each row that the model cannot read; the reader empties it."""
        self.ahead: deque[Piece] = deque()

    @property
    def ended(self) -> bool:
        """All has been read and taken."""
        return self.exhausted and not self.ahead

    def take(self, count: int) -> Iterator[Piece]:
        """Rows read ahead, then of the stream, `count` in all; those that fail leave gaps."""
        while count and self.ahead:
            piece = self.ahead.popleft()
            if len(piece.index) > count:
                self.ahead.appendleft(piece.select(slice(count, None)))
                piece = piece.select(slice(count))
            count -= len(piece.index)
            yield piece
        if count and not self.exhausted:
            yield from self.read(count)

    def read_ahead(self, count: int) -> None:
        """Hold up to `count` rows ready."""
        missing = count - sum(len(piece.index) for piece in self.ahead)
        if missing > 0 and not self.exhausted:
            self.ahead.extend(piece for piece in self.read(missing) if len(piece.index))

    @abstractmethod
    def read(self, count: int) -> Iterator[Piece]:
        """The next rows of the stream, `count` if there are as many, failed ones included."""

    def in_range(self, piece: Piece) -> Piece:
        """The rows whose integers are all in range; the others have failed."""
        good = np.ones(len(piece.index), dtype=bool)
        for name, values in piece.data.items():
            end = self.columns[name].end
            outside = (values < 0) | (values >= end)
            if outside.any():
                for row in np.flatnonzero(outside.reshape(len(outside), -1).any(1)):
                    where = np.argwhere(outside[row])[0]
                    value = int(values[(row, *where)])
                    place = f" at position {where[0]}" if len(where) else ""
                    self.failed[int(piece.index[row])] = (
                        f"{name}: {value}{place} is not in 0..{end - 1}"
                    )
                    good[row] = False
        return piece if good.all() else piece.select(good)


class RowSource(Source):
    """Row by row."""

    def __init__(self, columns: Mapping[str, Column], rows: Iterable[Columns]) -> None:
        super().__init__(columns)
        self.rows = iter(rows)

    def read(self, count: int) -> Iterator[Piece]:
        index: list[int] = []
        data: dict[str, list[np.ndarray]] = {name: [] for name in self.columns}
        taken = 0
        for taken, row in enumerate(islice(self.rows, count), start=1):  # noqa: B007
            try:
                values = [_readable(row, name, column) for name, column in self.columns.items()]
            except UserError as error:
                self.failed[self.count] = str(error)
            else:
                index.append(self.count)
                for name, value in zip(data, values, strict=True):
                    data[name].append(value)
            self.count += 1
        self.exhausted = taken < count
        if index:
            stacked = {name: np.stack(values) for name, values in data.items()}
            yield self.in_range(Piece(np.array(index), stacked))


class BatchSource(Source):
    """Slices of batches."""

    def __init__(self, columns: Mapping[str, Column], batches: Iterator[Columns]) -> None:
        super().__init__(columns)
        self.batches = batches
        self.batch: dict[str, np.ndarray] = {}
        self.start = self.rows = 0

    def read(self, count: int) -> Iterator[Piece]:
        while count:
            if self.start == self.rows and not self._open_next():
                return
            stop = min(self.start + count, self.rows)
            taken = {name: values[self.start : stop] for name, values in self.batch.items()}
            index = np.arange(self.count, self.count + stop - self.start)
            count, self.start, self.count = count - len(index), stop, self.count + len(index)
            try:
                taken = {
                    name: _readable(taken, name, column, axes_before=1)
                    for name, column in self.columns.items()
                }
            except UserError as error:
                self.failed |= dict.fromkeys(index.tolist(), str(error))
            else:
                yield self.in_range(Piece(index, taken))

    def _open_next(self) -> bool:
        """Begin the next batch that holds any rows."""
        for batch in self.batches:
            self.batch = {name: _array(batch[name]) for name in self.columns if name in batch}
            lengths = {name: values.shape[:1] for name, values in self.batch.items()}
            if "inputs" not in lengths or len(set(lengths.values())) > 1 or not lengths["inputs"]:
                told = ", ".join(f"{k} {v.shape}" for k, v in self.batch.items()) or "nothing"
                raise UserError(
                    f"the batch from row {self.count} on holds {told}, but it needs inputs (rows, "
                    "seq_len) and as many rows of all else"
                )
            self.start, self.rows = 0, len(self.batch["inputs"])
            if self.rows:
                return True
        self.exhausted = True
        return False


def _array(value: Any) -> np.ndarray:
    """As numpy sees it; a tensor of a device comes to the host."""
    return value.detach().cpu().numpy() if isinstance(value, Tensor) else np.asarray(value)


def _readable(row: Columns, name: str, column: Column, axes_before: int = 0) -> np.ndarray:
    """The integers under `name`. Raises UserError if they are not there, or of another shape."""
    shape = column.shape
    try:
        values = _array(row[name])
    except KeyError:
        raise UserError(f"{name}: is missing, and the model needs it") from None
    except (IndexError, TypeError, ValueError):
        raise UserError(f"{name}: cannot be read as an array of shape {shape}") from None
    if column.shorter and values.ndim == axes_before + len(shape):
        missing = shape[0] - values.shape[axes_before]
        if missing > 0:
            nothing = [(0, missing if axis == axes_before else 0) for axis in range(values.ndim)]
            values = np.pad(values, nothing)
    if values.shape[axes_before:] != shape:
        most = "at most " if column.shorter else ""
        raise UserError(
            f"{name}: has shape {values.shape[axes_before:]}, but the model reads {most}{shape}"
        )
    if not np.issubdtype(values.dtype, np.integer):
        raise UserError(f"{name}: holds {values.dtype}, but the model reads integers")
    return values


def as_batches(batches: Columns | PuzzleSplit | Iterable[Columns]) -> Iterator[Columns]:
    if isinstance(batches, PuzzleSplit):
        everything = np.arange(len(batches))
        return (taken for _, taken in batches_of(batches, everything, SPLIT_ROWS))
    return iter([batches]) if isinstance(batches, Mapping) else iter(batches)
