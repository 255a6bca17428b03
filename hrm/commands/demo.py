"""`hrm demo`: prepare 4x4 Sudoku, train on it, evaluate, and watch a puzzle being solved."""

from __future__ import annotations

import shutil
import sys
from pathlib import Path

import numpy as np
import torch
from rich.console import Console

from hrm.commands import evaluate, solve, train
from hrm.commands.arguments import Parser
from hrm.config import compose
from hrm.data.base import PuzzleSplit, load_split
from hrm.data.sudoku import decode, to_text
from hrm.errors import UserError
from hrm.inference.loop import solve as solve_batch
from hrm.models import ACTModel
from hrm.training.checkpoint import load_run

LOOKED_AT = 500
GOAL = 0.99
ENOUGH = 0.998
"""Of the validation puzzles: enough that the goal is met on the test puzzles too."""


def run(arguments: list[str]) -> int:
    parser = Parser(
        "hrm demo",
        "Make 4x4 puzzles, train TRM on them (under a minute), evaluate on unseen ones, solve one.",
        "hrm demo --out runs/demo",
    )
    parser.add_argument("--out", default="runs/demo", help="a new folder (default: runs/demo)")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--again", action="store_true", help="replace the folder if it is a demo's")
    options = parser.parse_args(arguments)
    out = Path(options.out)
    if options.again and (out / "demo").is_file():
        shutil.rmtree(out)
    if out.exists():
        raise UserError(f"--out: {out} exists; give another folder, or --again for a demo's own")
    config = compose(
        [
            "experiment=sudoku_4x4",
            f"data.path={out / 'data'}",
            f"data.prepare.seed={options.seed}",
            "data.prepare.count=2900",
            f"+data.prepare.val_count={LOOKED_AT}",
            f"stop_at_exact_accuracy={ENOUGH}",
            f"seed={options.seed}",
            f"out={out / 'run'}",
        ]
    )
    out.mkdir(parents=True)
    (out / "demo").write_text("A folder that hrm demo made.\n")

    console = Console(stderr=True)
    console.rule("1. puzzles and training")
    if status := train.train(config):
        return status
    console.rule("2. unseen puzzles")
    loaded = load_run(out / "run")
    figures = evaluate.figures_of(loaded, count=LOOKED_AT)
    evaluate.show(figures)
    if figures["exact_accuracy"] < GOAL:
        print(f"hrm: only {figures['exact_accuracy']:.1%} are exactly right", file=sys.stderr)
        return 1
    console.rule("3. one of them, step by step")
    text, halts_at_once = longest_solved(loaded.model, load_split(out / "data", "test"))
    halting = "max_steps" if halts_at_once else "adaptive"
    status = solve.run([str(out / "run"), text, "--halting", halting])
    print(f"Everything is in {out}: try  hrm solve {out / 'run'} '{text}' --json", file=sys.stderr)
    return status


def longest_solved(model: ACTModel, test: PuzzleSplit) -> tuple[str, bool]:
    """The test puzzle that the policy thought about longest and got right, and whether that is but
    one step; among equals the one whose board settled last."""
    taken = test.take(np.arange(min(LOOKED_AT, len(test))))
    labels = taken.pop("labels")
    batch = {k: torch.from_numpy(v) for k, v in taken.items()}
    done = solve_batch(model, batch, "max_steps")
    right = (done.predictions.numpy() == labels).all(2)
    steps = done.policy_steps.numpy()
    at_halt = right[steps - 1, np.arange(len(steps))]
    first_right = np.where(right.any(0), right.argmax(0), 0)
    chosen = int(np.where(at_halt & right[-1], steps * (len(right) + 1) + first_right, -1).argmax())
    return to_text(decode(taken["inputs"][chosen])), bool(steps[chosen] == 1)
