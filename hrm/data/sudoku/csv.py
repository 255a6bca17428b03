"""The CSV format of the Sudoku-Extreme data set: `source,question,answer,rating`.

Only `question` is required. A missing answer is computed and must be the only one; a given answer
is checked against the rules and the givens, and is trusted to be the only one. A missing rating is
this project's own (`Outcome.guesses`), which is not comparable with the published one.
"""

from __future__ import annotations

import csv
import gzip
import io
import zlib
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from hrm.data.sudoku.grid import Digits, Shape, consistent, keeps_givens, solved
from hrm.data.sudoku.solver import Solver
from hrm.errors import UserError

_COLUMNS = ("question", "answer", "rating")
_GZIP_MAGIC = b"\x1f\x8b"


@dataclass(frozen=True)
class CsvPuzzles:
    """The rows of a file, in its order."""

    puzzles: Digits
    """uint8 [rows, cells], 0 for a blank."""
    solutions: Digits
    """uint8 [rows, cells]."""
    ratings: NDArray[np.int64]
    """[rows]."""

    def __len__(self) -> int:
        return len(self.puzzles)


def read_csv(path: str | Path, shape: Shape, *, min_rating: int | None = None) -> CsvPuzzles:
    """Read puzzles of `shape` from a plain or gzipped file, those rated `min_rating` or more.

    Raises `UserError` with the file's name and line for anything wrong.
    """
    path = Path(path)
    questions: list[str] = []
    answers: list[str] = []
    ratings: list[int | None] = []
    lines: list[int] = []
    for line, question, answer, rating in _rows(path):
        value = _rating(path, line, rating)
        if min_rating is not None and value is not None and value < min_rating:
            continue
        questions.append(question)
        answers.append(answer)
        ratings.append(value)
        lines.append(line)

    puzzles = _digits(path, lines, questions, shape, "question")
    unanswered = np.array([not answer for answer in answers], dtype=bool)
    unrated = np.array([rating is None for rating in ratings], dtype=bool)
    blank = "." * shape.cells
    solutions = _digits(path, lines, [answer or blank for answer in answers], shape, "answer")
    _raise_at(path, lines, ~consistent(shape, puzzles), "the question's givens clash")

    rated = np.array([rating or 0 for rating in ratings], dtype=np.int64)
    solver = Solver(shape)
    for row in np.flatnonzero(unanswered | unrated):
        outcome = solver.solve(puzzles[row])
        if unrated[row]:
            rated[row] = outcome.guesses
        if unanswered[row]:
            if outcome.solution is None or outcome.count != 1:
                found = "no solution" if outcome.count == 0 else "more than one solution"
                raise UserError(f"{path} line {lines[row]}: the question has {found}")
            solutions[row] = outcome.solution
    _raise_at(path, lines, ~solved(shape, solutions), "the answer breaks the rules")
    _raise_at(path, lines, ~keeps_givens(puzzles, solutions), "the answer changes the givens")

    if min_rating is not None:
        kept = rated >= min_rating
        puzzles, solutions, rated = puzzles[kept], solutions[kept], rated[kept]
    if len(puzzles) == 0:
        rating = "" if min_rating is None else f" rated {min_rating} or more"
        raise UserError(f"{path} has no puzzle{rating}")
    return CsvPuzzles(puzzles, solutions, rated)


def _rows(path: Path) -> Iterator[tuple[int, str, str, str]]:
    """Line number, question, answer and rating of each row; missing columns are empty."""
    try:
        with path.open("rb") as raw:
            zipped = raw.peek(2)[:2] == _GZIP_MAGIC
            stream = gzip.GzipFile(fileobj=raw) if zipped else raw
            reader = csv.reader(io.TextIOWrapper(stream, encoding="utf-8", newline=""))
            header = [name.strip() for name in next(reader, [])]
            if "question" not in header:
                raise UserError(f"{path} line 1: the header must name the column 'question'")
            places = [header.index(name) if name in header else -1 for name in _COLUMNS]
            for row in reader:
                if not row:
                    continue
                if len(row) != len(header):
                    raise UserError(
                        f"{path} line {reader.line_num}: {len(row)} columns "
                        f"instead of {len(header)}"
                    )
                question, answer, rating = (
                    row[place].strip() if place >= 0 else "" for place in places
                )
                yield reader.line_num, question, answer, rating
    except UserError:
        raise
    except (OSError, EOFError, UnicodeDecodeError, csv.Error, zlib.error) as error:
        reason = getattr(error, "strerror", None) or error
        raise UserError(f"cannot read {path} as CSV: {reason}") from error


def _rating(path: Path, line: int, text: str) -> int | None:
    if not text:
        return None
    try:
        return int(text)
    except ValueError as error:
        raise UserError(f"{path} line {line}: the rating '{text}' is no whole number") from error


def _digits(
    path: Path, lines: Sequence[int], boards: Sequence[str], shape: Shape, column: str
) -> Digits:
    """Text boards to digits [rows, cells], all at once."""
    for line, board in zip(lines, boards, strict=True):
        if len(board) != shape.cells:
            raise UserError(
                f"{path} line {line}: the {column} has {len(board)} characters instead of "
                f"{shape.cells} ({shape.n}x{shape.n})"
            )
    # Latin-1 keeps one byte a character; what it lacks becomes "?", which no board may hold.
    codes = np.frombuffer("".join(boards).encode("latin-1", "replace"), dtype=np.uint8)
    digit_of = np.full(256, 255, dtype=np.uint8)
    digit_of[[ord(character) for character in ".0_"]] = 0
    digit_of[ord("1") : ord("1") + shape.n] = np.arange(1, shape.n + 1)
    digits = digit_of[codes].reshape(-1, shape.cells)
    wrong = np.argwhere(digits == 255)
    if len(wrong):
        row, cell = wrong[0]
        raise UserError(
            f"{path} line {lines[row]}: the {column} has '{boards[row][cell]}', it may have "
            f"1 to {shape.n}, and '.', '0' or '_' for a blank"
        )
    return digits


def _raise_at(path: Path, lines: Sequence[int], wrong: NDArray[np.bool_], what: str) -> None:
    if wrong.any():
        raise UserError(f"{path} line {lines[int(np.argmax(wrong))]}: {what}")
