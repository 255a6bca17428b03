"""Sudoku of 4x4, 6x6 and 9x9: boards, solver, generator, symmetries, files, data sets."""

from hrm.data.sudoku.generator import generate
from hrm.data.sudoku.grid import (
    SHAPES,
    Shape,
    consistent,
    decode,
    encode,
    format_board,
    keeps_givens,
    parse_puzzle,
    shape_of,
    solved,
    to_text,
    violations,
)
from hrm.data.sudoku.prepare import SudokuRequest, prepare_sudoku, sudoku_request
from hrm.data.sudoku.solver import Outcome, Solver
from hrm.data.sudoku.symmetry import SudokuAugment, invariant

__all__ = [
    "SHAPES",
    "Outcome",
    "Shape",
    "Solver",
    "SudokuAugment",
    "SudokuRequest",
    "consistent",
    "decode",
    "encode",
    "format_board",
    "generate",
    "invariant",
    "keeps_givens",
    "parse_puzzle",
    "prepare_sudoku",
    "shape_of",
    "solved",
    "sudoku_request",
    "to_text",
    "violations",
]
