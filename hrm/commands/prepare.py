"""`hrm prepare sudoku`: make a data set, from the project's generator or from a CSV."""

from __future__ import annotations

import sys

from hrm.commands.arguments import Parser, print_json
from hrm.errors import UserError, nearest

KINDS = ("sudoku",)
USAGE = """usage: hrm prepare KIND ... (hrm prepare KIND --help shows all options)

  hrm prepare sudoku   4x4, 6x6 or 9x9, generated or from a CSV

example: hrm prepare sudoku --size 6 --blanks 20 --seed 0 --out data/six"""


def run(arguments: list[str]) -> int:
    if not arguments or arguments[0] in ("-h", "--help"):
        print(USAGE)
        return 0 if arguments else 2
    kind, *rest = arguments
    if kind not in KINDS:
        raise UserError(f"prepare {kind}: unknown{nearest(kind, KINDS)} (there are {KINDS[0]})")
    return _sudoku(rest)


def _sudoku(arguments: list[str]) -> int:
    from hrm.data.sudoku import prepare_sudoku, sudoku_request

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
    add("--seed", type=int, help="default 0")
    add("--out", metavar="DIR", required=True, help="a new folder")
    add("--json", action="store_true", help="print one JSON object")
    add("--quiet", action="store_true", help="no progress bar")
    options = vars(parser.parse_args(arguments))
    as_json, quiet = options.pop("json"), options.pop("quiet")
    given = {key: value for key, value in options.items() if value is not None}
    shows = sys.stderr.isatty() and not quiet
    summary = prepare_sudoku(sudoku_request(**given), progress=shows)
    if as_json:
        print_json(summary)
        return 0
    print(f"{summary['out']}: {summary['size']}x{summary['size']} Sudoku, {summary['source']}")
    for name in ("train", "val", "test"):
        if name in summary:
            split = summary[name]
            low, high = split["clues"]["min"], split["clues"]["max"]
            clues = f"{low} clues" if low == high else f"{low} to {high} clues"
            print(f"  {name:5} {split['puzzles']} puzzles, {split['rows']} rows, {clues}")
    return 0
