"""Make a Sudoku data set, from this project's generator or from a CSV file.

Splits hold no equivalents of one another under the symmetries of Sudoku: they are cut by
`invariant`, of the puzzles or, more coarsely, of their solutions (`split_by`).

4x4 has only 288 solution grids, in two classes of equivalents, so that splits can be cut by puzzle
only, and "unseen" means "no equivalent of a training puzzle". Inequivalent 4x4 puzzles with exactly
one solution, counted exhaustively:

    blanks    0   1   2   3    4    5    6    7     8    9   10  11  12
    puzzles   2   2  22  56  210  414  788  980  1040  711  376  96  13

With 6 to 12 blanks, the default, these are 4,004 (of which `invariant` tells 3,990 apart).
"""

from __future__ import annotations

from pathlib import Path
from typing import Any, Literal

import numpy as np
from numpy.typing import NDArray
from pydantic import BaseModel, ConfigDict, Field, field_validator

from hrm.data.base import SplitArrays, SplitName, check_target, write_dataset
from hrm.data.keys import draws, keys_of
from hrm.data.request import Report, checked, reporting
from hrm.data.sudoku.csv import read_csv
from hrm.data.sudoku.generator import generate
from hrm.data.sudoku.grid import SHAPES, Digits, Shape, encode
from hrm.data.sudoku.symmetry import SudokuAugment, invariant
from hrm.errors import UserError

SplitBy = Literal["puzzle", "solution"]
Rows = NDArray[np.int64]

# What each use of the seed adds to its keys, so that no two share random numbers.
_SPLIT, _REVEAL, _AUGMENT = 1, 2, 3
_BARREN = 5000
_CHUNK_ROWS = 1 << 15


class _SizeDefaults(BaseModel):
    blanks: tuple[int, int]
    train: int
    val: int
    test: int
    split_by: SplitBy


_DEFAULTS = {
    4: _SizeDefaults(blanks=(6, 12), train=1500, val=250, test=500, split_by="puzzle"),
    6: _SizeDefaults(blanks=(20, 20), train=5000, val=250, test=500, split_by="puzzle"),
    9: _SizeDefaults(blanks=(45, 45), train=20000, val=250, test=1000, split_by="solution"),
}


class SudokuRequest(BaseModel):
    """What `prepare_sudoku` makes. A count that is given must be met."""

    model_config = ConfigDict(extra="forbid")

    size: Literal[4, 6, 9] = 9
    """Rows of a board; 6x6 boxes have two rows and three columns."""
    csv: Path | None = None
    """Puzzles to take, `source,question,answer,rating`, plain or gzipped; None: generate them."""
    test_csv: Path | None = None
    """Test puzzles; None: rows of `csv` are held out. Equivalents leave the other splits."""
    count: int | None = Field(default=None, ge=1)
    """Training puzzles, before augmentation. Default: up to 1500, 5000, 20000 for size 4, 6, 9."""
    val_count: int | None = Field(default=None, ge=0)
    """Default 250; of a `csv` at most a tenth."""
    test_count: int | None = Field(default=None, ge=1)
    """Default 500, 500, 1000 for size 4, 6, 9; of a `csv` at most a tenth."""
    blanks: tuple[int, int] | None = None
    """Blanks of a generated puzzle, drawn from this range; also N or "A-B". Default: 6-12, 20, 45
    for size 4, 6, 9."""
    clues: int | None = Field(default=None, ge=0)
    """Clues instead of blanks. With `csv`: random cells of the answer are revealed until so many
    clues stand; a puzzle that has more keeps them."""
    min_rating: int | None = None
    """With `csv`: only puzzles rated so or more, for training and tests."""
    subsample: int | None = Field(default=None, ge=1)
    """With `csv`: the published name of `count`. The published Sudoku-Extreme recipe has 1000."""
    augmentations: int = Field(default=0, ge=0)
    """Other forms of each training puzzle that are stored with it, as one group. Published: 1000.
    Augmenting at run time needs none."""
    seed: int = 0
    split_by: SplitBy | None = None
    """Whether splits differ in puzzles or also in solution grids, up to equivalence. Default:
    "puzzle" for sizes 4 and 6 (2 and 49 classes of grids), "solution" for 9."""
    out: Path
    """A new or empty folder."""

    @field_validator("blanks", mode="before")
    @classmethod
    def _range(cls, value: Any) -> Any:
        if isinstance(value, str):
            low, _, high = value.partition("-")
            value = (low.strip(), (high or low).strip())
        return (value, value) if isinstance(value, int) else value


def sudoku_request(**values: Any) -> SudokuRequest:
    """A checked request; `UserError` names the first wrong field."""
    return checked(SudokuRequest, "sudoku", values)


def prepare_sudoku(request: SudokuRequest, progress: bool = False) -> dict[str, Any]:
    """Make the data set that `request` describes and return a summary.

    The summary has `out`, `size`, `source`, `split_by`, `seed`, and for each split `puzzles`,
    `rows` and `clues` (min, mean, max). It is also in `prepare.json`. `progress` shows a bar on
    standard error. Raises `UserError`, and then leaves no files.
    """
    shape = SHAPES[request.size]
    _check(request, shape)
    check_target(request.out)
    with reporting(progress) as report:
        boards = _from_csv(request, report) if request.csv else _from_generator(request, report)
        augmentations = {"train": request.augmentations}
        splits: dict[SplitName, SplitArrays] = {}
        summary: dict[str, Any] = {
            "size": request.size,
            "source": "csv" if request.csv else "generator",
            "split_by": _split_by(request),
            "seed": request.seed,
        }
        for name, (puzzles, solutions) in boards.items():
            if len(puzzles) == 0:
                continue
            copies = augmentations.get(name, 0)
            splits[name] = _arrays(shape, puzzles, solutions, copies, request.seed, report)
            clues = np.count_nonzero(puzzles, axis=1)
            summary[name] = {
                "puzzles": len(puzzles),
                "rows": len(splits[name].inputs),
                "clues": {
                    "min": int(clues.min()),
                    "mean": round(float(clues.mean()), 3),
                    "max": int(clues.max()),
                },
            }
        settings = request.model_dump(mode="json", exclude={"out"})
        prepare = {"task": "sudoku", "settings": settings, "summary": summary}
        report("writing", 0, 1)
        write_dataset(request.out, splits, vocab_size=shape.vocab_size, prepare=prepare)
        report("writing", 1, 1)
    return {"out": str(request.out), **summary}


def _check(request: SudokuRequest, shape: Shape) -> None:
    """Refuse settings that contradict one another."""
    if request.blanks is not None and request.clues is not None:
        raise UserError("blanks and clues exclude each other: give one of them")
    if request.clues is not None and not 1 <= request.clues < shape.cells:
        raise UserError(f"clues is {request.clues}: it may be 1 to {shape.cells - 1}")
    if request.blanks is not None and not 1 <= request.blanks[0] <= request.blanks[1] < shape.cells:
        low, high = request.blanks
        raise UserError(f"blanks is {low}-{high}: it may be a range within 1-{shape.cells - 1}")
    if request.csv is None:
        for key in ("test_csv", "min_rating", "subsample"):
            if getattr(request, key) is not None:
                raise UserError(f"{key} needs csv: the generator has no use for it")
        return
    if request.blanks is not None:
        raise UserError("blanks is for generated puzzles: with csv give clues")
    if request.count is not None and request.subsample is not None:
        raise UserError("subsample is another name of count: give one of them")


def _split_by(request: SudokuRequest) -> SplitBy:
    return request.split_by or _DEFAULTS[request.size].split_by


def _classes(request: SudokuRequest, puzzles: Digits, solutions: Digits) -> NDArray[np.uint64]:
    boards = solutions if _split_by(request) == "solution" else puzzles
    return invariant(SHAPES[request.size], boards)


def _from_generator(
    request: SudokuRequest, report: Report
) -> dict[SplitName, tuple[Digits, Digits]]:
    """Generated puzzles, all of them inequivalent."""
    shape, defaults = SHAPES[request.size], _DEFAULTS[request.size]
    blanks = request.blanks or defaults.blanks
    if request.clues is not None:
        blanks = (shape.cells - request.clues, shape.cells - request.clues)
    test = defaults.test if request.test_count is None else request.test_count
    val = defaults.val if request.val_count is None else request.val_count
    train = defaults.train if request.count is None else request.count
    wanted = test + val + train

    kept: list[tuple[Digits, Digits]] = []
    seen: set[int] = set()
    drawn = barren = 0
    while len(seen) < wanted and barren < _BARREN:
        indices = np.arange(drawn, drawn + min(max(wanted - len(seen), 256), 2048))
        drawn += len(indices)
        puzzles, solutions = generate(shape, indices, seed=request.seed, blanks=blanks)
        new = []
        for row, key in enumerate(_classes(request, puzzles, solutions).tolist()):
            if key not in seen and len(seen) < wanted:
                seen.add(key)
                new.append(row)
        kept.append((puzzles[new], solutions[new]))
        barren = 0 if new else barren + len(indices)
        report("generating", len(seen), wanted)

    least = test + val + (1 if request.count is None else train)
    if len(seen) < least:
        raise UserError(
            f"only {len(seen)} inequivalent {shape.n}x{shape.n} {_split_by(request)}s with "
            f"{blanks[0]}-{blanks[1]} blanks were found, fewer than count, val_count and "
            f"test_count need ({least}): lower these or widen blanks"
        )
    puzzles, solutions = (np.concatenate(part) for part in zip(*kept, strict=True))
    # Common classes are found first, so the order must not decide the split.
    order = _generator(request.seed).permutation(len(puzzles))
    test_rows, val_rows, train_rows = np.split(order, [test, test + val])
    return {
        "train": (puzzles[train_rows], solutions[train_rows]),
        "val": (puzzles[val_rows], solutions[val_rows]),
        "test": (puzzles[test_rows], solutions[test_rows]),
    }


def _from_csv(request: SudokuRequest, report: Report) -> dict[SplitName, tuple[Digits, Digits]]:
    """Puzzles of a file; equivalents of one another stay in one split."""
    shape, defaults = SHAPES[request.size], _DEFAULTS[request.size]
    assert request.csv is not None
    report("reading", 0, 1)
    data = read_csv(request.csv, shape, min_rating=request.min_rating)
    held = data
    if request.test_csv is not None:
        held = read_csv(request.test_csv, shape, min_rating=request.min_rating)
    report("reading", 1, 1)

    test = _counted(request.test_count, defaults.test, len(held))
    val = _counted(request.val_count, defaults.val, len(data))
    given = request.count if request.subsample is None else request.subsample
    train = defaults.train if given is None else given

    generator = _generator(request.seed)
    test_rows: Rows = np.empty(0, dtype=np.int64)
    banned: NDArray[np.uint64] = np.empty(0, dtype=np.uint64)
    if request.test_csv is not None:
        if len(held) < test:
            raise UserError(f"{request.test_csv} has {len(held)} puzzles, test_count is {test}")
        test_rows = generator.permutation(len(held))[:test]
        banned = _classes(request, held.puzzles[test_rows], held.solutions[test_rows])
        sizes = [val, train]
    else:
        sizes = [test, val, train]

    rows = generator.permutation(len(data))
    # A few times the wanted rows do nearly always; hashing all of a file of millions takes minutes.
    for pool in (rows[: 4 * sum(sizes)], rows):
        report("comparing", 0, 1)
        keys = _classes(request, data.puzzles[pool], data.solutions[pool])
        free = ~np.isin(keys, banned)
        parts = allocate(keys[free], sizes, generator)
        if len(parts[-1]) == train or len(pool) == len(rows):
            break
    parts = [pool[free][part] for part in parts]
    report("comparing", 1, 1)
    least = [*sizes[:-1], 1 if given is None else train]
    if any(len(part) < size for part, size in zip(parts, least, strict=True)):
        found = sum(len(part) for part in parts)
        raise UserError(
            f"{request.csv} has {len(data)} puzzles{_rated(request)}, of which {found} are left "
            f"to splits without equivalents: lower count ({train}), val_count ({val}) or "
            f"test_count ({test})"
        )
    if request.test_csv is None:
        test_rows = parts[0]

    def take(source: Literal["csv", "test_csv"], rows: Rows) -> tuple[Digits, Digits]:
        table = data if source == "csv" else held
        puzzles, solutions = table.puzzles[rows], table.solutions[rows]
        if request.clues is not None:
            salt = 0 if source == "csv" else 1
            keys = keys_of(request.seed, _REVEAL, salt, rows)
            puzzles = reveal(puzzles, solutions, request.clues, draws(keys, shape.cells))
        return puzzles, solutions

    return {
        "train": take("csv", parts[-1]),
        "val": take("csv", parts[-2]),
        "test": take("csv" if request.test_csv is None else "test_csv", test_rows),
    }


def _counted(given: int | None, default: int, available: int) -> int:
    return given if given is not None else min(default, max(available // 10, 1))


def _rated(request: SudokuRequest) -> str:
    return "" if request.min_rating is None else f" rated {request.min_rating} or more"


def _generator(seed: int) -> np.random.Generator:
    return np.random.default_rng(keys_of(seed, _SPLIT))


def allocate(
    keys: NDArray[np.uint64], sizes: list[int], generator: np.random.Generator
) -> list[Rows]:
    """Rows for splits of `sizes`, in this order, so that rows with one key [rows] share a split.

    Where a class does not fit whole into its split, the rest of it is left out. The last splits
    come out smaller where rows run out.
    """
    classes, inverse = np.unique(keys, return_inverse=True)
    rank = generator.permutation(len(classes))[inverse]
    order = np.argsort(rank, kind="stable")
    ranks = rank[order]
    parts = []
    start = 0
    for size in sizes:
        part = order[start : start + size]
        parts.append(part)
        if len(part):
            last = ranks[start + len(part) - 1]
            start = int(np.searchsorted(ranks, last, side="right"))
    return parts


def reveal(puzzles: Digits, solutions: Digits, clues: int, numbers: NDArray[np.uint64]) -> Digits:
    """Puzzles [rows, cells] with cells of their answers added until `clues` clues stand.

    Cells are added in the order of their random `numbers` [rows, cells]. No given is taken away,
    and a puzzle with one solution keeps it.
    """
    order = np.argsort(np.where(puzzles > 0, np.uint64(0), numbers | np.uint64(1)), axis=1)
    shown = puzzles > 0
    np.put_along_axis(shown, order[:, :clues], True, axis=1)
    return np.where(shown, solutions, 0).astype(np.uint8)


def _arrays(
    shape: Shape, puzzles: Digits, solutions: Digits, copies: int, seed: int, report: Report
) -> SplitArrays:
    """Token arrays in groups of a puzzle and `copies` other forms of it, as published."""
    inputs, labels = encode(puzzles), encode(solutions)
    if copies == 0:
        return SplitArrays.from_rows(inputs, labels)
    group = copies + 1
    all_inputs = np.repeat(inputs, group, axis=0)
    all_labels = np.repeat(labels, group, axis=0)
    serial = np.arange(len(all_inputs))
    others = serial[serial % group > 0]
    augment = SudokuAugment(shape)
    for start in range(0, len(others), _CHUNK_ROWS):
        rows = others[start : start + _CHUNK_ROWS]
        keys = keys_of(seed, _AUGMENT, rows)
        all_inputs[rows], all_labels[rows] = augment.move(all_inputs[rows], all_labels[rows], keys)
        report("augmenting", start + len(rows), len(others))
    return SplitArrays.from_rows(all_inputs, all_labels, group_size=group)
