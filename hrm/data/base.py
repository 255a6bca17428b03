"""The on-disk format of a data set, read by memory map and written in one piece.

The layout is the published one of HRM and TRM, so that a folder built by their tools loads here and
one built here loads there:

    ROOT/identifiers.json                       names of the puzzle identifiers, the first "<blank>"
    ROOT/{train,test}/dataset.json              `Metadata`
    ROOT/{train,test}/{set}__inputs.npy         integers [rows, seq_len]; published: uint8
    ROOT/{train,test}/{set}__labels.npy         integers [rows, seq_len]
    ROOT/{train,test}/{set}__puzzle_identifiers.npy    [puzzles]
    ROOT/{train,test}/{set}__puzzle_indices.npy        [puzzles + 1], first row of each puzzle
    ROOT/{train,test}/{set}__group_indices.npy         [groups + 1], first puzzle of each group

A group is a puzzle with its augmentations. Folders written here may have a third split, `val`,
so that choices are made there and figures on `test`, and `prepare.json`, which says how they were
made. More may stand there that the published tools do not write:

    ROOT/{train,val,test}/{set}__difficulty.npy        integers [rows], known exactly
    `image` in dataset.json                            `ImageMetadata`: rows are images
    `grid` in dataset.json                             side of the square that a row is
    `demonstrations` in dataset.json                   puzzles have solved examples of their own:
    ROOT/{train,val,test}/{set}__demo_inputs.npy       integers [demonstrations, seq_len]
    ROOT/{train,val,test}/{set}__demo_outputs.npy      integers [demonstrations, seq_len]
    ROOT/{train,val,test}/{set}__demo_indices.npy      [puzzles + 1], first of each puzzle
    ROOT/{train,val,test}/{set}__demo_left_out.npy     [rows], may be missing: `Demonstrations`

A row of images has channels * height * width inputs (`seq_len`), channel by channel and each row by
row, and height * width labels: the class of each pixel.
"""

from __future__ import annotations

import json
import os
import shutil
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from functools import cached_property
from pathlib import Path
from typing import Any, Literal, Self

import numpy as np
from numpy.typing import NDArray
from pydantic import BaseModel, ConfigDict, Field, ValidationError, model_validator

from hrm.data.demonstrations import Demonstrations, blank, joined
from hrm.errors import UserError, sentence

SplitName = Literal["train", "val", "test"]
IntArray = NDArray[np.integer]

IGNORE = -100
"""The label in memory of a position that counts in no loss or metric."""

_CHECK_ROWS = 1 << 16


class ImageMetadata(BaseModel):
    """`image` in `dataset.json`: what a row's numbers show."""

    model_config = ConfigDict(extra="forbid")

    channels: int = Field(ge=1)
    height: int = Field(ge=1)
    width: int = Field(ge=1)
    classes: int = Field(ge=2)
    """Labels are 0 .. classes - 1, and `ignore_label_id`."""
    values: Literal["categorical", "intensity"]
    """Inputs are symbols 0 .. vocab_size - 1 of one channel, or brightness 0 .. 255."""
    class_names: list[str]
    task: str
    """What made the images: flood_fill, pathfinder, digits, pairs, ..."""

    @property
    def pixels(self) -> int:
        """Labels of a row."""
        return self.height * self.width

    @model_validator(mode="after")
    def _fits(self) -> Self:
        if len(self.class_names) != self.classes:
            raise ValueError(f"class_names has {len(self.class_names)} of {self.classes} names")
        if self.values == "categorical" and self.channels != 1:
            raise ValueError(f"channels is {self.channels}: categorical values have one channel")
        return self


class Metadata(BaseModel):
    """`dataset.json`. Unknown keys of other builders are kept."""

    model_config = ConfigDict(extra="allow")

    pad_id: int = Field(ge=0)
    """Token that fills a row; also the input of padding rows."""
    ignore_label_id: int | None
    """Label on disk that becomes `IGNORE` in memory; none if null."""
    blank_identifier_id: int = Field(ge=0)
    """Puzzle identifier of padding rows and of puzzles without one of their own."""
    vocab_size: int = Field(ge=1)
    seq_len: int = Field(ge=1)
    num_puzzle_identifiers: int = Field(ge=1)
    total_groups: int = Field(ge=0)
    mean_puzzle_examples: float = Field(ge=0)
    """Rows per puzzle."""
    sets: list[str] = Field(min_length=1)
    total_puzzles: int | None = None
    """Written by TRM's builders only."""
    image: ImageMetadata | None = None
    """Given if rows are images."""
    demonstrations: int | None = Field(default=None, ge=1)
    """Most demonstrations of a puzzle, in any split; none if the set has no such files."""
    grid: int | None = Field(default=None, ge=1)
    """Given if rows are squares of tokens: their side."""

    @model_validator(mode="after")
    def _grid_fits(self) -> Self:
        if self.grid is not None and self.seq_len != self.grid**2:
            raise ValueError(f"seq_len is {self.seq_len}, but grid is {self.grid}")
        return self

    @model_validator(mode="after")
    def _image_fits(self) -> Self:
        if (image := self.image) is None:
            return self
        if self.seq_len != image.channels * image.pixels:
            raise ValueError(
                f"seq_len is {self.seq_len}, but an image has {image.channels} * {image.height} * "
                f"{image.width} values"
            )
        if image.values == "intensity" and self.vocab_size != 256:
            raise ValueError(f"vocab_size is {self.vocab_size}: intensities have 256 values")
        return self

    @property
    def label_len(self) -> int:
        """Labels of a row: `seq_len`, or the pixels of an image."""
        return self.seq_len if self.image is None else self.image.pixels


@dataclass(frozen=True)
class SplitArrays:
    """One split in memory, before it is written. Shapes as in the module's docstring."""

    inputs: IntArray
    labels: IntArray
    puzzle_identifiers: IntArray
    puzzle_indices: IntArray
    group_indices: IntArray
    difficulty: IntArray | None = None
    """Of each row, [rows]."""
    demonstrations: Demonstrations | None = None

    @classmethod
    def from_rows(
        cls,
        inputs: IntArray,
        labels: IntArray,
        *,
        group_size: int = 1,
        difficulty: IntArray | None = None,
    ) -> SplitArrays:
        """Each row a puzzle with the blank identifier; each run of `group_size` rows a group."""
        rows = len(inputs)
        if rows % group_size:
            raise ValueError(f"{rows} rows do not divide into groups of {group_size}")
        return cls(
            inputs=inputs,
            labels=labels,
            puzzle_identifiers=np.zeros(rows, dtype=np.int32),
            puzzle_indices=np.arange(rows + 1, dtype=np.int32),
            group_indices=np.arange(0, rows + 1, group_size, dtype=np.int32),
            difficulty=difficulty,
        )


@dataclass(frozen=True)
class PuzzleSplit:
    """One split, read by memory map; several sets of a split are concatenated."""

    name: str
    path: Path
    metadata: Metadata
    inputs: IntArray
    labels: IntArray
    puzzle_identifiers: IntArray
    puzzle_indices: IntArray
    group_indices: IntArray
    difficulty: IntArray | None = None
    """Of each row, [rows], where the data set's maker knows it exactly."""
    demonstrations: Demonstrations | None = None
    """Of each puzzle, where the data set has any."""

    def __len__(self) -> int:
        return len(self.inputs)

    @property
    def groups(self) -> int:
        return len(self.group_indices) - 1

    @cached_property
    def row_identifiers(self) -> NDArray[np.int32]:
        """The puzzle identifier of each row: int32 [rows]."""
        return np.repeat(self.puzzle_identifiers, np.diff(self.puzzle_indices)).astype(np.int32)

    def take(self, rows: NDArray[np.integer]) -> dict[str, NDArray[np.int32]]:
        """Copies of `rows` [n]: int32 `inputs` and `labels` [n, seq_len], `puzzle_identifiers` [n].

        Of images, `labels` are [n, height * width]. Labels that are ignored on disk are `IGNORE`.
        With demonstrations, D of them (`Metadata.demonstrations`): also `demo_inputs` and
        `demo_outputs` [n, D, seq_len] and `demo_mask` [n, D], 1 where there is one. They come
        first; the rest is padding.
        """
        columns = {
            "inputs": self.inputs[rows].astype(np.int32),
            "labels": self.take_labels(rows),
            "puzzle_identifiers": self.row_identifiers[rows],
        }
        if self.demonstrations is not None:
            puzzles = np.searchsorted(self.puzzle_indices, rows, side="right") - 1
            columns |= self.demonstrations.take(puzzles, rows, self._room, self.metadata.pad_id)
        return columns

    def take_labels(self, rows: NDArray[np.integer]) -> NDArray[np.int32]:
        """The `labels` of `take` alone."""
        labels = self.labels[rows].astype(np.int32)
        if self.metadata.ignore_label_id is not None:
            labels[labels == self.metadata.ignore_label_id] = IGNORE
        return labels

    def padding(self, rows: int) -> dict[str, NDArray[np.int32]]:
        """The columns of `take` for `rows` rows that are none: pad tokens, labels all `IGNORE`, the
        blank identifier, no demonstrations."""
        data = self.metadata
        columns = {
            "inputs": np.full((rows, data.seq_len), data.pad_id, dtype=np.int32),
            "labels": np.full((rows, data.label_len), IGNORE, dtype=np.int32),
            "puzzle_identifiers": np.full(rows, data.blank_identifier_id, dtype=np.int32),
        }
        if self.demonstrations is not None:
            columns |= blank(rows, self._room, data.seq_len, data.pad_id)
        return columns

    @property
    def _room(self) -> int:
        """Demonstrations that a row has room for."""
        return self.metadata.demonstrations or 0

    def limit_groups(self, count: int | None) -> PuzzleSplit:
        """The first `count` groups, as views of the same arrays; all if None, or if there are no
        more. Raises `UserError` below 1."""
        if count is None or count >= self.groups:
            return self
        if count < 1:
            raise UserError(f"{self.path}: got a limit of {count} groups, but it is at least 1")
        puzzles = int(self.group_indices[count])
        rows = int(self.puzzle_indices[puzzles])
        shown = self.demonstrations
        sizes = {
            "total_groups": count,
            "total_puzzles": puzzles,
            "mean_puzzle_examples": rows / puzzles,
        }
        return replace(
            self,
            metadata=self.metadata.model_copy(update=sizes),
            inputs=self.inputs[:rows],
            labels=self.labels[:rows],
            puzzle_identifiers=self.puzzle_identifiers[:puzzles],
            puzzle_indices=self.puzzle_indices[: puzzles + 1],
            group_indices=self.group_indices[: count + 1],
            difficulty=None if self.difficulty is None else self.difficulty[:rows],
            demonstrations=None if shown is None else shown.first(puzzles, rows),
        )


def spread(total: int, count: int | None) -> NDArray[np.int64]:
    """`count` of the rows 0 .. total - 1, spread evenly; all if None, or if there are no more."""
    count = total if count is None else min(count, total)
    return np.unique(np.linspace(0, total - 1, count).astype(np.int64))


def batches(
    split: PuzzleSplit, rows: NDArray[np.integer], size: int
) -> Iterator[tuple[slice, dict[str, NDArray[np.int32]]]]:
    """`rows` of the split, up to `size` at a time: where in `rows` they stand, and their copies."""
    for start in range(0, len(rows), size):
        where = slice(start, min(start + size, len(rows)))
        yield where, split.take(rows[where])


def has_split(root: str | Path, name: SplitName) -> bool:
    """Whether `root` has the split `name`. Published folders have no `val`."""
    return (Path(root) / name / "dataset.json").is_file()


def looked_at(root: str | Path, name: Literal["val", "test"]) -> Literal["val", "test"]:
    """The split that is looked at while training, where `name` is asked for: test if it is not
    there."""
    return name if has_split(root, name) else "test"


def load_split(root: str | Path, name: SplitName) -> PuzzleSplit:
    """Open and check a split.

    Raises `UserError` if a file is missing, truncated or does not fit the others, if a token lies
    outside the vocabulary, or an identifier or a pixel's class outside its range. A million rows
    take about a second.
    """
    root = Path(root)
    folder = root / name
    if not root.is_dir():
        raise UserError(f"{root} is not a data set: there is no such folder")
    if not (folder / "dataset.json").is_file():
        raise UserError(f"{root} has no split '{name}': {folder / 'dataset.json'} is missing")
    metadata = _read_metadata(folder / "dataset.json")

    sets = [_read_set(folder, set_name, metadata) for set_name in metadata.sets]
    row_starts = np.cumsum([0] + [len(arrays.inputs) for arrays in sets])
    puzzle_starts = np.cumsum([0] + [len(arrays.puzzle_identifiers) for arrays in sets])
    split = PuzzleSplit(
        name=name,
        path=folder,
        metadata=metadata,
        inputs=_join([arrays.inputs for arrays in sets]),
        labels=_join([arrays.labels for arrays in sets]),
        puzzle_identifiers=_join([arrays.puzzle_identifiers for arrays in sets]),
        puzzle_indices=_join_indices([arrays.puzzle_indices for arrays in sets], row_starts),
        group_indices=_join_indices([arrays.group_indices for arrays in sets], puzzle_starts),
        difficulty=_join_difficulty(folder, metadata.sets, sets),
        demonstrations=_join_demonstrations(sets),
    )
    if split.groups != metadata.total_groups:
        raise UserError(
            f"{folder / 'dataset.json'} says total_groups={metadata.total_groups}, "
            f"but the index files have {split.groups}"
        )
    return split


def check_target(root: str | Path) -> None:
    """Raise `UserError` if `root` cannot become a data set's folder: it may be absent or empty."""
    root = Path(root)
    if root.exists() and not root.is_dir():
        raise UserError(f"{root} is a file: a data set needs a new or empty folder")
    if root.is_dir() and any(root.iterdir()):
        raise UserError(f"{root} is not empty: a data set needs a new or empty folder")


def write_dataset(
    root: str | Path,
    splits: Mapping[SplitName, SplitArrays],
    *,
    vocab_size: int,
    pad_id: int = 0,
    ignore_label_id: int | None = 0,
    blank_identifier_id: int = 0,
    identifiers: Sequence[str] = ("<blank>",),
    image: ImageMetadata | None = None,
    grid: int | None = None,
    prepare: Mapping[str, Any] | None = None,
    files: Mapping[str, Any] | None = None,
) -> None:
    """Write `splits` to `root`, whole or not at all.

    Everything goes to a folder beside `root`, which is renamed at the end. `image` says what rows
    that are images show, `grid` is the side of rows that are squares, `prepare` becomes
    `prepare.json`, and `files` more such files by name. Raises `UserError` if `root` is in use or
    cannot be written (a full disk).
    """
    root = Path(root).resolve()
    check_target(root)
    shown = [arrays.demonstrations for arrays in splits.values()]
    known = [demonstrations.most for demonstrations in shown if demonstrations is not None]
    if known and len(known) < len(shown):
        raise ValueError("some splits have demonstrations, and others have none")
    temporary = root.with_name(f".{root.name}.{os.getpid()}.part")
    try:
        temporary.mkdir(parents=True)
        for name, arrays in splits.items():
            metadata = Metadata(
                pad_id=pad_id,
                ignore_label_id=ignore_label_id,
                blank_identifier_id=blank_identifier_id,
                vocab_size=vocab_size,
                seq_len=arrays.inputs.shape[1],
                num_puzzle_identifiers=len(identifiers),
                total_groups=len(arrays.group_indices) - 1,
                mean_puzzle_examples=len(arrays.inputs) / max(len(arrays.puzzle_identifiers), 1),
                sets=["all"],
                total_puzzles=len(arrays.puzzle_identifiers),
                image=image,
                demonstrations=max(known) if known else None,
                grid=grid,
            )
            _write_split(temporary / name, arrays, metadata)
        _write_json(temporary / "identifiers.json", list(identifiers))
        if prepare is not None:
            _write_json(temporary / "prepare.json", dict(prepare))
        for file, content in (files or {}).items():
            (temporary / file).write_text(json.dumps(content) + "\n", encoding="utf-8")
        temporary.replace(root)
    except OSError as error:
        raise UserError(f"cannot write the data set {root}: {error.strerror or error}") from error
    finally:
        shutil.rmtree(temporary, ignore_errors=True)


def _write_split(folder: Path, arrays: SplitArrays, metadata: Metadata) -> None:
    folder.mkdir()
    for field in ("inputs", "labels", "puzzle_identifiers", "puzzle_indices", "group_indices"):
        np.save(folder / f"all__{field}.npy", getattr(arrays, field))
    if arrays.difficulty is not None:
        np.save(folder / "all__difficulty.npy", arrays.difficulty)
    if arrays.demonstrations is not None:
        for field, array in vars(arrays.demonstrations).items():
            if array is not None:
                np.save(folder / f"all__demo_{field}.npy", array)
    # Without any of these the file is the published one, key for key.
    unused = {key for key in ("image", "demonstrations", "grid") if getattr(metadata, key) is None}
    _write_json(folder / "dataset.json", metadata.model_dump(exclude=unused))


def _write_json(path: Path, value: Any) -> None:
    path.write_text(json.dumps(value, indent=2) + "\n", encoding="utf-8")


def _read_metadata(path: Path) -> Metadata:
    try:
        return Metadata.model_validate(json.loads(path.read_text(encoding="utf-8")))
    except (OSError, ValueError) as error:
        reason = sentence(error) if isinstance(error, ValidationError) else str(error)
        raise UserError(f"{path} is not a data set's description: {reason}") from error


def _read_set(folder: Path, name: str, metadata: Metadata) -> SplitArrays:
    def read(field: str, ndim: int) -> IntArray:
        return _read_array(folder / f"{name}__{field}.npy", ndim)

    if Path(name).name != name:
        raise UserError(f"{folder / 'dataset.json'}: sets holds '{name}', which is no plain name")
    arrays = SplitArrays(
        inputs=read("inputs", 2),
        labels=read("labels", 2),
        puzzle_identifiers=read("puzzle_identifiers", 1),
        puzzle_indices=read("puzzle_indices", 1),
        group_indices=read("group_indices", 1),
        difficulty=read("difficulty", 1) if (folder / f"{name}__difficulty.npy").exists() else None,
        demonstrations=_read_demonstrations(folder, name) if metadata.demonstrations else None,
    )
    prefix, rows = folder / name, len(arrays.inputs)
    for field, array, length in (
        ("inputs", arrays.inputs, metadata.seq_len),
        ("labels", arrays.labels, metadata.label_len),
    ):
        expected = (rows, length)
        if array.shape != expected:
            raise UserError(f"{prefix}__{field}.npy has shape {array.shape} instead of {expected}")
    if arrays.difficulty is not None and len(arrays.difficulty) != rows:
        raise UserError(
            f"{prefix}__difficulty.npy has {len(arrays.difficulty)} entries for {rows} rows"
        )
    _check_indices(Path(f"{prefix}__puzzle_indices.npy"), arrays.puzzle_indices, rows)
    puzzles = len(arrays.puzzle_indices) - 1
    if len(arrays.puzzle_identifiers) != puzzles:
        raise UserError(
            f"{prefix}__puzzle_identifiers.npy has {len(arrays.puzzle_identifiers)} entries "
            f"for {puzzles} puzzles"
        )
    _check_indices(Path(f"{prefix}__group_indices.npy"), arrays.group_indices, puzzles)

    vocabulary, identifiers = metadata.vocab_size, metadata.num_puzzle_identifiers
    _check_range(Path(f"{prefix}__inputs.npy"), arrays.inputs, vocabulary, None, "token")
    classes = vocabulary if metadata.image is None else metadata.image.classes
    _check_range(
        Path(f"{prefix}__labels.npy"), arrays.labels, classes, metadata.ignore_label_id, "label"
    )
    _check_range(
        Path(f"{prefix}__puzzle_identifiers.npy"),
        arrays.puzzle_identifiers,
        identifiers,
        None,
        "puzzle identifier",
    )
    if arrays.demonstrations is not None:
        _check_demonstrations(prefix, arrays, arrays.demonstrations, metadata)
    return arrays


def _read_demonstrations(folder: Path, name: str) -> Demonstrations:
    def read(field: str, ndim: int) -> IntArray:
        return _read_array(folder / f"{name}__demo_{field}.npy", ndim)

    has_left_out = (folder / f"{name}__demo_left_out.npy").exists()
    return Demonstrations(
        inputs=read("inputs", 2),
        outputs=read("outputs", 2),
        indices=read("indices", 1),
        left_out=read("left_out", 1) if has_left_out else None,
    )


def _check_demonstrations(
    prefix: Path, arrays: SplitArrays, demonstrations: Demonstrations, metadata: Metadata
) -> None:
    indices, left_out = demonstrations.indices, demonstrations.left_out
    puzzles, rows, end = len(arrays.puzzle_identifiers), len(arrays.inputs), indices[-1]
    if len(indices) != puzzles + 1 or indices[0] != 0 or np.any(indices[1:] < indices[:-1]):
        raise UserError(
            f"{prefix}__demo_indices.npy has {len(indices)} entries from {indices[0]} to {end}: it "
            f"must have {puzzles + 1} and never fall from 0 on"
        )
    for field in ("inputs", "outputs"):
        array, path = getattr(demonstrations, field), Path(f"{prefix}__demo_{field}.npy")
        if array.shape != (end, metadata.seq_len):
            raise UserError(
                f"{path} has shape {array.shape} instead of {(int(end), metadata.seq_len)}"
            )
        _check_range(path, array, metadata.vocab_size, None, "token")
    assert metadata.demonstrations is not None
    if demonstrations.most > metadata.demonstrations:
        raise UserError(
            f"{prefix}__demo_indices.npy has a puzzle with {demonstrations.most} demonstrations, "
            f"but dataset.json says demonstrations={metadata.demonstrations}"
        )
    if left_out is None:
        return
    path = Path(f"{prefix}__demo_left_out.npy")
    if len(left_out) != rows:
        raise UserError(f"{path} has {len(left_out)} entries for {rows} rows")
    of_row = np.repeat(np.diff(indices), np.diff(arrays.puzzle_indices))
    wrong = np.flatnonzero((left_out < -1) | (left_out >= of_row))
    if len(wrong):
        row = int(wrong[0])
        raise UserError(
            f"{path} has {left_out[row]} in row {row}, whose puzzle has {of_row[row]} "
            "demonstrations: it may be -1 or the number of one, from 0"
        )


def _read_array(path: Path, ndim: int) -> IntArray:
    try:
        # A plain view: indexing numpy's memmap class costs several times as much.
        array = np.asarray(np.load(path, mmap_mode="r", allow_pickle=False))
    except FileNotFoundError as error:
        raise UserError(f"{path} is missing") from error
    except (OSError, ValueError, EOFError) as error:
        raise UserError(f"{path} is truncated or is no .npy file: {error}") from error
    if array.ndim != ndim or not np.issubdtype(array.dtype, np.integer):
        raise UserError(
            f"{path} holds {array.dtype} of shape {array.shape} instead of {ndim}-D integers"
        )
    if len(array) == 0:
        raise UserError(f"{path} is empty")
    return array


def _check_indices(path: Path, indices: IntArray, end: int) -> None:
    """Starts of consecutive, non-empty runs that cover 0..end."""
    if indices[0] != 0 or indices[-1] != end or not np.all(indices[1:] > indices[:-1]):
        raise UserError(f"{path} must rise from 0 to {end} without repeating a number")


def _check_range(path: Path, array: IntArray, end: int, ignored: int | None, what: str) -> None:
    for start in range(0, len(array), _CHECK_ROWS):
        chunk = array[start : start + _CHECK_ROWS]
        if chunk.min() >= 0 and chunk.max() < end:
            continue
        outside = (chunk < 0) | (chunk >= end)
        if ignored is not None:
            outside &= chunk != ignored
        if outside.any():
            where = np.argwhere(outside)[0]
            value = int(chunk[tuple(where)])
            row = start + int(where[0])
            raise UserError(f"{path} has the {what} {value} in row {row}: it may be 0 to {end - 1}")


def _join(arrays: list[IntArray]) -> IntArray:
    return arrays[0] if len(arrays) == 1 else np.concatenate(arrays)


def _join_difficulty(folder: Path, names: list[str], sets: list[SplitArrays]) -> IntArray | None:
    known = [arrays.difficulty for arrays in sets if arrays.difficulty is not None]
    if known and len(known) < len(sets):
        missing = next(n for n, a in zip(names, sets, strict=True) if a.difficulty is None)
        raise UserError(f"{folder / missing}__difficulty.npy is missing, other sets have theirs")
    return _join(known) if known else None


def _join_demonstrations(sets: list[SplitArrays]) -> Demonstrations | None:
    known = [arrays.demonstrations for arrays in sets if arrays.demonstrations is not None]
    return joined(known, [len(arrays.inputs) for arrays in sets]) if known else None


def _join_indices(indices: list[IntArray], starts: NDArray[np.integer]) -> IntArray:
    shifted = [
        array[:-1].astype(np.int64) + start
        for array, start in zip(indices, starts[:-1], strict=True)
    ]
    return np.concatenate([*shifted, starts[-1:]])
