"""The trace of a puzzle in the terminal, with and without colours."""

import io
import re

import numpy as np
import pytest
from rich.console import Console

from hrm.data.sudoku.grid import SHAPES, parse_puzzle
from hrm.display import at_fault, judge, sudoku_trace

SHAPE, PUZZLE = parse_puzzle("1... ..3. .4.. ...2")
SOLUTION = parse_puzzle("1324 4231 2413 3142")[1]


def board(text: str) -> np.ndarray:
    return np.array([int(c) for c in "".join(text.split())], dtype=np.uint8)


def shown(*args: object, width: int = 80, color: bool = False, **kwargs: object) -> str:
    file = io.StringIO()
    console = Console(
        file=file,
        width=width,
        force_terminal=color,
        color_system="truecolor" if color else None,
        _environ={},
    )
    console.print(sudoku_trace(*args, **kwargs))  # type: ignore[arg-type]
    return file.getvalue()


WRONG = board("1324 4231 2413 3132")  # a 3 at row 4, column 3, against the 3s of its row and box
ZERO = [0.0, 0.0, 0.0]


def test_fault_is_the_models_cell_never_the_given() -> None:
    assert not at_fault(SHAPE, PUZZLE, PUZZLE).any()
    assert not at_fault(SHAPE, PUZZLE, SOLUTION).any()
    # Row 4: 3 1 3 2. Both 3s are the model's. In column 3 and box 4 the other 3s: (2, 3) is given,
    # (3, 4) the model's.
    wrong = at_fault(SHAPE, PUZZLE, WRONG)
    assert np.flatnonzero(wrong).tolist() == [11, 12, 14]


def test_a_given_not_kept_is_at_fault() -> None:
    answer = SOLUTION.copy()
    answer[15] = 0
    assert np.flatnonzero(at_fault(SHAPE, PUZZLE, answer)).tolist() == [15]


def test_judge() -> None:
    assert judge(SHAPE, PUZZLE, SOLUTION)[0]
    assert judge(SHAPE, PUZZLE, PUZZLE) == (False, "not valid: 12 cells blank")
    valid, why = judge(SHAPE, PUZZLE, WRONG)
    assert not valid
    assert why == "not valid: row 4 has 2 times the digit 3 and 2 more such"
    # A right grid of another puzzle.
    other = board("2143 3412 1234 4321")
    assert judge(SHAPE, PUZZLE, other) == (False, "not valid: 4 givens not kept")


def test_the_whole_trace_without_colour() -> None:
    text = shown(SHAPE, PUZZLE, [WRONG, SOLUTION], [-2.0, 3.0], [0.0, -1.0], 2, width=78)
    assert "\x1b" not in text
    assert text.isascii()
    assert [line.rstrip() for line in text.splitlines()] == [
        "5 given  5 filled  *5 changed in this step  !5 breaks a rule  &5 both",
        "right: the model's own chance that the board is right; continue: its value of",
        "going on",
        "",
        " 1 . | . .          1*3 |*2*4          1 3 | 2 4",
        " . . | 3 .         *4*2 | 3*1          4 2 | 3 1",
        "-----+-----        -----+-----        -----+-----",
        " . 4 | . .         *2 4 |*1&3          2 4 | 1 3",
        " . . | . 2         &3*1 |&3 2          3 1 |*4 2",
        "puzzle             step 1: go on      step 2: halt",
        "12 cells to fill   right      11.9%   right      95.3%",
        "                   continue   50.0%   continue   26.9%",
        "                   12 cells changed   1 cell changed",
        "",
        "valid: each row, column and box has every digit once, and the givens are kept",
    ]


def test_what_breaks_a_rule_unchanged_has_its_own_mark() -> None:
    text = shown(SHAPE, PUZZLE, [WRONG, WRONG], ZERO, None, 2)
    assert "!3 1 |!3 2" in text
    assert "0 cells changed" in text
    assert "continue" not in text
    assert text.rstrip().endswith("row 4 has 2 times the digit 3 and 2 more such")


def test_a_halt_at_the_limit_is_told() -> None:
    answers = [WRONG, SOLUTION]
    assert "step 2: halt (last step)" in shown(SHAPE, PUZZLE, answers, ZERO, None, 2, max_steps=2)
    assert "last step" not in shown(SHAPE, PUZZLE, answers, ZERO, None, 1, max_steps=2)


def test_nothing_after_the_halt_is_shown() -> None:
    text = shown(SHAPE, PUZZLE, [SOLUTION, WRONG], ZERO, None, 1)
    assert "step 1: halt" in text
    assert "step 2" not in text
    assert "valid: each" in text


def test_colours_say_what_the_marks_say() -> None:
    text = shown(SHAPE, PUZZLE, [WRONG, WRONG], ZERO, None, 2, color=True)

    def style(of: str) -> str:
        return re.findall(rf"\x1b\[([\d;]+)m{re.escape(of)}\x1b", text)[-1]

    styles = {name: style(name) for name in ("*4", "&3", "!3", " 1")}
    assert len(set(styles.values())) == 4
    assert "31" in styles["!3"].split(";")  # red letters
    assert "41" in styles["&3"].split(";")  # red ground
    assert "103" in styles["*4"].split(";")  # bright yellow ground


def test_no_color_keeps_the_marks(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("NO_COLOR", "1")
    file = io.StringIO()
    console = Console(file=file, width=80, force_terminal=True)
    console.print(sudoku_trace(SHAPE, PUZZLE, [WRONG], ZERO, None, 1))
    codes = {
        c for group in re.findall(r"\x1b\[([\d;]+)m", file.getvalue()) for c in group.split(";")
    }
    assert codes <= {"0", "1", "2"}  # bold and dim are no colours
    assert "&3" in re.sub(r"\x1b\[[\d;]*m", "", file.getvalue())


@pytest.mark.parametrize("size", [4, 6, 9])
@pytest.mark.parametrize("width", [30, 80, 200])
def test_boards_are_wrapped_to_the_width_and_whole(size: int, width: int) -> None:
    shape = SHAPES[size]
    puzzle = np.zeros(shape.cells, dtype=np.uint8)
    generator = np.random.default_rng(size)
    answers = [generator.integers(0, size + 1, shape.cells) for _ in range(16)]
    text = shown(shape, puzzle, answers, [0.1] * 16, [0.2] * 16, 16, width=width)
    lines = text.splitlines()
    assert max(map(len, lines)) <= width
    assert [int(n) for n in re.findall(r"step (\d+):", text)] == list(range(1, 17))
    boards = "\n".join(line for line in lines if re.fullmatch(r"[\d .*!&|]+", line) and "|" in line)
    for digit in range(1, size + 1):
        expected = sum(int((a == digit).sum()) for a in answers)
        assert boards.count(str(digit)) == expected


@pytest.mark.parametrize("halted_at", [0, 3])
def test_a_halt_outside_of_the_trajectory(halted_at: int) -> None:
    with pytest.raises(ValueError, match="1 to 2"):
        sudoku_trace(SHAPE, PUZZLE, [WRONG, SOLUTION], [0.0, 0.0], None, halted_at)


def test_extreme_values_do_not_overflow() -> None:
    assert "100.0%" in shown(SHAPE, PUZZLE, [SOLUTION], [1e6], [-1e6], 1)
