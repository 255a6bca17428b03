"""`hrm solve RUN PUZZLE`: solve puzzles, show every step, check the answer against the rules.

An image goes to `hrm.commands.solve_image`, an ARC task to `hrm.commands.solve_arc`.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import torch
from rich.console import Console

from hrm.commands.arguments import Parser, at_least, limit_steps, print_json
from hrm.commands.picture import is_picture
from hrm.commands.solve_arc import reads_grids, solve_arc
from hrm.commands.solve_image import reads_images, solve_image
from hrm.data.sudoku import Shape, decode, encode, parse_puzzle, shape_of, to_text
from hrm.device import pick_device
from hrm.display import judge, sudoku_trace
from hrm.errors import UserError
from hrm.inference.engine import Engine
from hrm.inference.loop import Trajectory, solve
from hrm.training.checkpoint import LoadedRun, load_run

SLOTS = 256
"""Puzzles of a file that are solved at once."""


def run(arguments: list[str]) -> int:
    parser = Parser(
        "hrm solve",
        "Solve Sudoku with a trained model and show the board after every step.\n"
        "Blanks are '.', '0' or '_'. A file has a puzzle a line.\n"
        "A PNG, JPEG or TIFF goes to a model of images; of a maze white is free, black is a wall,\n"
        "red or middle gray is the seed. --out writes DIR/mask.png (class 0 black, the last class\n"
        "white) and DIR/steps.png (every step, and where the policy halts).\n"
        "A model of ARC takes a task: a JSON file in the official form, or the name of one in its\n"
        "data set. --out draws each test input into DIR.",
        "hrm solve runs/four 1...  ..2. .3.. ...4",
    )
    add = parser.add_argument
    add("run", metavar="RUN", help="a run, a checkpoint, an exported or shipped model, a file")
    add(
        "puzzle",
        metavar="PUZZLE",
        nargs="+",
        help="as text, or a file of them; an image; an ARC task",
    )
    add(
        "--halting",
        choices=("adaptive", "max_steps"),
        default="adaptive",
        help="stop where the policy says so, or run on and say what it would do",
    )
    add("--max-steps", type=int, metavar="N", help="most steps (default: as it was trained)")
    add("--out", metavar="DIR", help="of an image or a task: write a picture of all steps here")
    add(
        "--size",
        type=int,
        metavar="N",
        help="of an image: solve the square in its middle at N x N pixels (default: as it is)",
    )
    add("--data", metavar="DIR", help="where to look up a task's name (default: the run's data)")
    add("--device", default="auto")
    add("--json", action="store_true", help="print one JSON object, or a list for a file")
    options = parser.parse_args(arguments)

    at_least(options, size=1, max_steps=1)
    if len(options.puzzle) == 1 and is_picture(options.puzzle[0]):
        return solve_image(
            options.run,
            options.puzzle[0],
            size=options.size,
            out=options.out,
            halting=options.halting,
            max_steps=options.max_steps,
            device=options.device,
            as_json=options.json,
        )
    if options.size is not None:
        raise UserError("--size: is for an image")
    if (loaded := arc_model(options.run, options.puzzle, options.device)) is not None:
        limit_steps(loaded.model, options.max_steps)
        return solve_arc(
            loaded,
            options.puzzle[0],
            data=options.data,
            out=options.out,
            halting=options.halting,
            as_json=options.json,
        )
    for name in ("out", "data"):
        if getattr(options, name) is not None:
            what = "an image or an ARC task" if name == "out" else "an ARC task"
            raise UserError(f"--{name}: is for {what}; the boards of a puzzle are printed")
    from_file, puzzles = read_puzzles(options.puzzle)
    cells = puzzles.shape[1]
    loaded = load_run(options.run, pick_device(options.device), seq_len=cells)
    if reads_images(loaded.model):
        raise UserError(f"{options.run}: this model reads images; give one in place of a puzzle")
    limit_steps(loaded.model, options.max_steps)
    shape = model_shape(loaded)
    if cells != shape.cells:
        where = options.puzzle[0] if from_file else "PUZZLE"
        raise UserError(
            f"{where}: {cells} cells, but the model solves {shape.n}x{shape.n}, {shape.cells} cells"
        )
    batch = {
        "inputs": torch.from_numpy(encode(puzzles).astype(np.int32)),
        "puzzle_identifiers": torch.zeros(len(puzzles), dtype=torch.int32),
    }
    device = next(loaded.model.parameters()).device
    if options.halting == "adaptive":
        done = Engine(loaded.model, slots=min(len(puzzles), SLOTS)).trajectory(batch)
    else:  # What the policy would do is known to the plain loop alone.
        done = solve(loaded.model, {k: v.to(device) for k, v in batch.items()}, "max_steps")
    results = [result(done, i, shape, puzzles[i]) for i in range(len(puzzles))]
    if options.json:
        print_json({"puzzles": results} if from_file else results[0])
        return 0
    console = Console()
    for i, puzzle in enumerate(puzzles):
        last = int(done.stopped_at[i])
        answers = [decode_answer(step) for step in done.predictions[:last, i]]
        trained = loaded.model.halting.values_going_on
        q_continue = done.q_continue[:last, i].tolist() if trained else None
        q_halt = done.q_halt[:last, i].tolist()
        limit = loaded.model.halting.max_steps
        console.print(
            sudoku_trace(
                shape,
                puzzle,
                answers,
                q_halt,
                q_continue,
                last,
                max_steps=limit,
                wants=done.wants[:, i].tolist() if options.halting == "max_steps" else None,
            )
        )
    if len(puzzles) > 1:
        right = sum(r["valid"] for r in results)
        console.print(f"{right} of {len(puzzles)} answers are valid")
    return 0


def model_shape(loaded: LoadedRun) -> Shape:
    """The board that the model was trained on."""
    shape = shape_of(loaded.sizes["seq_len"], loaded.sizes["vocab_size"])
    if shape is None:
        raise UserError(f"{loaded.path}: this model was not trained on Sudoku of this size")
    return shape


def arc_model(run: str, given: list[str], device: str) -> LoadedRun | None:
    """The model, if a task of ARC is given: a JSON file, or what is no Sudoku and the model reads
    tasks.

    Raises:
        UserError: a file is given, and the model reads no tasks.
    """
    if len(given) > 1:
        return None
    is_file = given[0].endswith(".json")
    if not is_file:
        try:
            read_puzzles(given)
        except UserError:
            pass
        else:
            return None
    try:
        loaded = load_run(run, pick_device(device))
    except UserError:
        if is_file:
            raise
        return None  # What is wrong with the puzzle is told first.
    if reads_grids(loaded.model):
        return loaded
    if is_file:
        raise UserError(f"{run}: this model reads no tasks of ARC, and {given[0]} is one")
    return None


def read_puzzles(given: list[str]) -> tuple[bool, np.ndarray]:
    """Whether a file was given, and the boards (count, cells), all of one size, as digits, 0 for a
    blank."""
    path = Path(given[0])
    from_file = len(given) == 1 and _is_file(path)
    try:
        texts = path.read_text().split("\n") if from_file else ["".join(given)]
    except UnicodeDecodeError:
        raise UserError(f"{path}: is not text; a file of puzzles has one a line") from None
    boards: list[np.ndarray] = []
    for number, text in enumerate(texts, start=1):
        if from_file and not text.strip():
            continue
        where = f"{path}, line {number}: " if from_file else "PUZZLE: "
        try:
            _, digits = parse_puzzle(text)
        except UserError as error:
            raise UserError(f"{where}{error}") from None
        if boards and len(digits) != len(boards[0]):
            raise UserError(
                f"{where}{len(digits)} cells, but the puzzles above have {len(boards[0])}"
            )
        boards.append(digits)
    if not boards:
        raise UserError(f"{path}: holds no puzzle")
    return from_file, np.stack(boards)


def _is_file(path: Path) -> bool:
    try:
        return path.is_file()
    except OSError:  # A long puzzle is no file name.
        return False


def decode_answer(tokens: torch.Tensor) -> np.ndarray:
    """Digits of predicted tokens; padding and blank count as a blank."""
    return decode(tokens.cpu().numpy().clip(min=1))


def result(done: Trajectory, i: int, shape: Shape, puzzle: np.ndarray) -> dict[str, Any]:
    """A solved puzzle for JSON; the values are logits after each step."""
    last = int(done.stopped_at[i])
    answer = decode_answer(done.predictions[last - 1, i])
    return {
        "puzzle": to_text(puzzle),
        "answer": to_text(answer),
        "valid": judge(shape, puzzle, answer)[0],
        "steps": last,
        "q_halt": done.q_halt[:last, i].tolist(),
        "q_continue": done.q_continue[:last, i].tolist(),
    }
