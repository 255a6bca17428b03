"""A task in the terminal: all that matters is in the characters, and the colours are ARC's."""

import io
from typing import Any

import numpy as np
import pytest
from rich.console import Console

from hrm.display_arc import arc_trace


def grid(*rows: list[int]) -> np.ndarray:
    return np.array(rows, dtype=np.uint8)


NOTHING = np.zeros((0, 0), dtype=np.uint8)
TRUTH = grid([1, 2], [3, 4])
DEMONSTRATIONS = [(grid([5]), grid([6, 7]))]
ANSWERS = [NOTHING, grid([1, 1], [3, 9]), grid([1, 2], [3, 9]), TRUTH, TRUTH]


def shown(*, width: int = 100, color: bool = False, **changes: Any) -> str:
    arguments: dict[str, Any] = {
        "demonstrations": DEMONSTRATIONS,
        "query": grid([8]),
        "answers": ANSWERS,
        "q_halt": [-4.0, -2.0, 0.0, 2.0, 4.0],
        "halted_at": 5,
        "truth": TRUTH,
    }
    system: dict[str, Any] = (
        {"force_terminal": True, "color_system": "truecolor"} if color else {"color_system": None}
    )
    written = io.StringIO()
    Console(file=written, width=width, **system).print(arc_trace(**arguments | changes))
    return written.getvalue()


def test_all_is_in_the_characters() -> None:
    text = shown()
    assert text.isascii()
    lines = [line.strip() for line in text.splitlines()]
    assert "demonstration 1" in text
    assert any("6 7" in line for line in lines)
    assert "query" in text
    assert "right answer" in text
    # Step 2 after an empty grid: all changed, two of four wrong; step 3 mends one of them.
    assert "*1&1" in text
    assert "*3&9" in text
    assert " 1*2" in text
    assert " 3!9" in text


def test_a_line_for_each_step() -> None:
    lines = [line for line in shown(max_steps=5).splitlines() if " right " in line]
    steps = [line.split() for line in lines if line.startswith("step ")]
    assert [s[1] for s in steps] == ["1", "2", "3", "4", "5"]
    assert [s[3] for s in steps] == ["1.8%", "11.9%", "50.0%", "88.1%", "98.2%"]
    assert steps[0][4:] == ["go", "on", "no", "grid"]
    assert steps[1][4:] == ["go", "on", "2", "wrong"]
    assert steps[4][4:] == ["halt", "(last", "step)", "right"]
    assert "answer: right" in shown()
    assert "answer: 1 wrong" in shown(halted_at=3)


def test_answers_that_stay_are_shown_once() -> None:
    assert "steps 4 to 5" in shown()
    # Of what comes after the halt nothing is shown.
    text = shown(halted_at=2)
    assert "step 3" not in text
    assert "step  3" not in text


def test_a_policy_that_is_not_followed() -> None:
    text = shown(wants=[False, True, False, False, True])
    assert text.count("would halt") == 2
    assert text.count("would go on") == 3


def test_without_the_right_answer() -> None:
    text = shown(truth=None)
    assert "right answer" not in text
    assert "wrong" not in text
    assert "answer:" not in text


def test_cells_lie_on_the_colours_of_arc() -> None:
    text = shown(color=True)
    for red, green, blue in ((0x7F, 0xDB, 0xFF), (0x87, 0x0C, 0x25)):  # colours 8 and 9
        assert f"48;2;{red};{green};{blue}" in text


@pytest.mark.parametrize("halted_at", [0, 6])
def test_a_halt_that_is_no_step(halted_at: int) -> None:
    with pytest.raises(ValueError, match="halted_at must be 1 to 5"):
        shown(halted_at=halted_at)
