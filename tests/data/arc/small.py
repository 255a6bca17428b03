"""A folder of small tasks in the official form."""

import json
from pathlib import Path
from typing import Any

Value = dict[str, list[dict[str, Any]]]


def task(number: int, demonstrations: int = 3, tests: int = 1, width: int = 3) -> Value:
    """A task that shares no pair, in any form, with one of another number below 8.

    Its pair p has the input [[a, b, 0, ...], [0, c, ...]] of `width` columns, where a and b differ
    as p is odd or even, and a longer output the larger its number.
    """

    def pair(p: int) -> dict[str, Any]:
        line = [[1, 2, 3], [1, 1, 2], [4, 1, 1], [5, 0, 1], [6, 6, 1]][p]
        first = (line + [0] * width)[:width]
        return {
            "input": [first, ([0, 7, 8] + [0] * width)[:width]],
            "output": [first[:2]] * (number + 1),
        }

    pairs = [pair(p) for p in range(demonstrations + tests)]
    return {"train": pairs[:demonstrations], "test": pairs[demonstrations:]}


def write_folder(root: Path, training: dict[str, Value], evaluation: dict[str, Value]) -> Path:
    """One file a task."""
    for subset, tasks in (("training", training), ("evaluation", evaluation)):
        (root / subset).mkdir(parents=True)
        for name, value in tasks.items():
            (root / subset / f"{name}.json").write_text(json.dumps(value))
    return root


def small_folder(root: Path) -> Path:
    """Five training tasks a to e, of which e is 4 cells wide, and two of evaluation, x and y.

    b has two tests, c two demonstrations, x four demonstrations.
    """
    training = {name: task(i) for i, name in enumerate("abcde")}
    training |= {"b": task(1, tests=2), "c": task(2, demonstrations=2), "e": task(4, width=4)}
    return write_folder(root, training, {"x": task(5, demonstrations=4), "y": task(6)})
