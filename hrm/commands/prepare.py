"""`hrm prepare KIND`: make a data set: Sudoku, images to segment, or ARC-AGI."""

from __future__ import annotations

import sys
from argparse import BooleanOptionalAction
from collections.abc import Callable
from pathlib import Path
from typing import Any

from hrm.commands.arguments import Parser, print_json
from hrm.data.kinds import KINDS, preparer, request_of
from hrm.errors import UserError, nearest

Say = Callable[[dict[str, Any]], None]
"""Prints a summary for people."""

USAGE = """usage: hrm prepare KIND ... (hrm prepare KIND --help shows all options)

  hrm prepare sudoku   4x4, 6x6 or 9x9, generated or from a CSV
  hrm prepare scenes   images to segment: flood_fill, pathfinder, digits, or pairs from a folder
  hrm prepare arc      ARC-AGI-1 or -2, with demonstrations or for puzzle embeddings

example: hrm prepare sudoku --size 6 --blanks 20 --seed 0 --out data/six"""


def run(arguments: list[str]) -> int:
    if not arguments or arguments[0] in ("-h", "--help"):
        print(USAGE)
        return 0 if arguments else 2
    kind, *rest = arguments
    if kind not in KINDS:
        known = ", ".join(KINDS)
        raise UserError(f"prepare {kind}: unknown{nearest(kind, KINDS)} (there are {known})")
    parser, say = _PARSERS[kind]()
    parser.add_argument("--seed", type=int, help="default 0")
    parser.add_argument("--out", metavar="DIR", required=True, help="a new folder")
    parser.add_argument("--json", action="store_true", help="print one JSON object")
    parser.add_argument("--quiet", action="store_true", help="no progress bar")
    options = vars(parser.parse_args(rest))
    as_json, quiet, out = options.pop("json"), options.pop("quiet"), Path(options.pop("out"))
    given = {key: value for key, value in options.items() if value is not None}
    shows = sys.stderr.isatty() and not quiet
    summary = preparer(kind)(request_of(kind, given, out), progress=shows)
    if as_json:
        print_json(summary)
    else:
        say(summary)
    return 0


def _sudoku() -> tuple[Parser, Say]:
    parser = Parser(
        "hrm prepare sudoku",
        "Make a Sudoku data set whose splits hold no equivalents of one another.",
        "hrm prepare sudoku --size 9 --csv 17_clue.csv.gz --clues 36 --out data/nine",
    )
    add = parser.add_argument
    add("--size", type=int, help="4, 6 or 9 (default 9)")
    add("--csv", metavar="FILE", help="puzzles as source,question,answer,rating, plain or .gz")
    add("--test-csv", metavar="FILE", help="take test puzzles from here")
    add("--count", type=int, help="training puzzles, before augmentation")
    add("--subsample", type=int, help="the published name of --count")
    add("--val-count", type=int, help="validation puzzles")
    add("--test-count", type=int, help="test puzzles")
    add("--blanks", metavar="N|A-B", help="blanks of a generated puzzle")
    add("--clues", type=int, help="clues instead; with --csv: reveal answers until so many stand")
    add("--min-rating", type=int, help="with --csv: only puzzles rated so or more")
    add("--augmentations", type=int, help="stored forms of each training puzzle (published: 1000)")
    add("--split-by", choices=("puzzle", "solution"), help="what splits must not share")
    return parser, _say_sudoku


def _say_sudoku(summary: dict[str, Any]) -> None:
    print(f"{summary['out']}: {summary['size']}x{summary['size']} Sudoku, {summary['source']}")
    for name in ("train", "val", "test"):
        if name in summary:
            split = summary[name]
            low, high = split["clues"]["min"], split["clues"]["max"]
            clues = f"{low} clues" if low == high else f"{low} to {high} clues"
            print(f"  {name:5} {split['puzzles']} puzzles, {split['rows']} rows, {clues}")


def _scenes() -> tuple[Parser, Say]:
    parser = Parser(
        "hrm prepare scenes",
        "Make a data set of images to segment: generated, or a folder's images and masks.",
        "hrm prepare scenes --task flood_fill --size 16 --count 10000 --seed 0 --out data/flood_16",
    )
    add = parser.add_argument
    add("--task", required=True, help="flood_fill, pathfinder, digits or pairs")
    add("--size", type=int, help="rows and columns (default 16, 32, 32, 64)")
    add("--count", type=int, help="training images (default 10000; of pairs all that are left)")
    add("--val-count", type=int, help="validation images (default 500; of pairs a tenth)")
    add("--test-count", type=int, help="test images (default 1000; of pairs a tenth)")
    add("--folder", metavar="DIR", help="pairs: holds images/NAME.png and masks/NAME.png")
    add("--colour", choices=("gray", "rgb"), help="pairs: channels of the images (default gray)")
    add("--fit", choices=("crop", "resize"), help="pairs: middle square or all (default crop)")
    add("--ignore", type=int, help="pairs: value of a mask that counts in no loss, often 255")
    return parser, _say_scenes


def _say_scenes(summary: dict[str, Any]) -> None:
    size = summary["size"]
    print(f"{summary['out']}: {size}x{size} {summary['task']}, {summary['classes']} classes")
    for name in ("train", "val", "test"):
        if name in summary:
            split, hard = summary[name], summary[name]["difficulty"]
            range_ = "" if hard is None else f", difficulty {hard['min']} to {hard['max']}"
            positive = split["positive"]
            share = "" if positive is None else f", {positive:.1%} of the pixels positive"
            print(f"  {name:5} {split['rows']} images{range_}{share}")


def _arc() -> tuple[Parser, Say]:
    parser = Parser(
        "hrm prepare arc",
        "Make a data set of ARC-AGI, for models that read demonstrations or for puzzle embeddings.",
        "hrm prepare arc --source arc_agi_1 --max-grid 10 --seed 0 --out data/arc_10",
    )
    add = parser.add_argument
    add("--source", metavar="NAME|DIR", help="arc_agi_1 (default), arc_agi_2, or official JSON")
    add("--protocol", help="encoder (default: rows with demonstrations) or embedding (published)")
    add("--max-grid", type=int, help="side of the square; larger tasks are left out (default 30)")
    add("--queries", help="encoder: what training asks for, test (default) or leave_one_out")
    add("--augmentations", type=int, help="stored forms of each task (published: 1000; default 0)")
    add("--eval-augmentations", type=int, help="encoder: those of val and test, which vote")
    add("--translate", action=BooleanOptionalAction, help="whether training grids begin anywhere")
    add("--max-train-groups", type=int, help="most training tasks")
    add("--max-eval-groups", type=int, help="most evaluation tasks; 0: no test")
    add("--val-groups", type=int, help="training tasks held out for val (default a tenth)")
    add("--leave-out-groups", type=int, help="training tasks left out, another set's val")
    return parser, _say_arc


def _say_arc(summary: dict[str, Any]) -> None:
    grid, left = summary["max_grid"], summary["left_out"]
    print(f"{summary['out']}: {summary['source']}, {summary['protocol']}, {grid}x{grid}")
    for name in ("train", "val", "test"):
        if name in summary:
            split = summary[name]
            shown = f", {split['demonstrations']} demonstrations" if split["demonstrations"] else ""
            print(
                f"  {name:5} {split['groups']} tasks, {split['puzzles']} puzzles, "
                f"{split['rows']} rows{shown}"
            )
    print(
        f"  left out: {left['training']} training and {left['evaluation']} evaluation tasks with a "
        f"larger grid, {len(summary['twins'])} training tasks like one held out"
    )


_PARSERS: dict[str, Callable[[], tuple[Parser, Say]]] = {
    "sudoku": _sudoku,
    "scenes": _scenes,
    "arc": _arc,
}
