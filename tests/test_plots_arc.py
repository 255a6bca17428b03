"""The picture of an ARC task: every grid is there, wrong cells are crossed, the halt is marked."""

from pathlib import Path
from typing import Any

import matplotlib.image
import numpy as np
import pytest
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from hrm import plots
from hrm.plots.arc import plot_task


def grid(*rows: list[int]) -> np.ndarray:
    return np.array(rows, dtype=np.uint8)


TRUTH = grid([1, 2], [3, 4])
TASK: dict[str, Any] = {
    "demonstrations": [(grid([5]), grid([6, 7])), (grid([5, 5]), grid([6]))],
    "query": grid([8]),
    "answers": [np.zeros((0, 0), dtype=np.uint8), grid([1, 1, 1]), grid([1, 2], [3, 9]), TRUTH],
    "q_halt": [-4.0, -2.0, 0.0, 2.0],
    "halted_at": 3,
    "truth": TRUTH,
}


@pytest.fixture
def drawn(monkeypatch: pytest.MonkeyPatch) -> list[Figure]:
    """The figures that would be saved."""
    figures: list[Figure] = []
    monkeypatch.setattr(plots.drawing, "save", lambda figure, path: figures.append(figure))
    return figures


def by_title(figure: Figure) -> dict[str, Axes]:
    return {axes.get_title(): axes for axes in figure.axes if axes.get_title()}


def crosses(axes: Axes) -> list[tuple[int, int]]:
    """Rows and columns of the crossed cells."""
    marks = [line for line in axes.lines if line.get_marker() == "x"]
    return [
        (int(y), int(x))
        for line in marks
        for x, y in zip(np.asarray(line.get_xdata()), np.asarray(line.get_ydata()), strict=True)
    ]


def test_every_part_is_there(drawn: list[Figure]) -> None:
    plot_task(**TASK, path=Path("a.png"), title="task 0a")
    titles = by_title(drawn[0])
    assert {"demonstration 1", "demonstration 2", "query", "\N{DOWNWARDS ARROW} right answer"} <= (
        titles.keys()
    )
    np.testing.assert_array_equal(titles["query"].images[0].get_array(), grid([8]))
    outputs = [a for a in drawn[0].axes if a.get_title() == "\N{DOWNWARDS ARROW}"]
    np.testing.assert_array_equal(outputs[0].images[0].get_array(), grid([6, 7]))
    color = titles["query"].images[0].cmap(8)
    np.testing.assert_allclose(color[:3], np.array([0x7F, 0xDB, 0xFF]) / 255)
    # The empty answer has no picture, but its place and its step.
    assert not titles["step 1"].images
    assert titles["step 1"].texts[0].get_text() == "no grid"


def test_wrong_cells_are_crossed_where_the_answer_is_known(drawn: list[Figure]) -> None:
    plot_task(**TASK, path=Path("a.png"))
    titles = by_title(drawn[0])
    assert crosses(titles["step 2\n1x3, not 2x2"]) == [(0, 1), (0, 2)]
    assert crosses(titles["step 3: halt\n1 wrong"]) == [(1, 1)]
    assert crosses(titles["step 4\nright"]) == []
    plot_task(**TASK | {"truth": None}, path=Path("a.png"))
    titles = by_title(drawn[1])
    assert crosses(titles["step 2"]) == []
    assert not any("right" in title for title in titles)


def test_the_halt_is_marked_and_later_steps_are_pale(drawn: list[Figure]) -> None:
    plot_task(**TASK, path=Path("a.png"))
    titles = by_title(drawn[0])
    assert titles["step 3: halt\n1 wrong"].images[0].get_alpha() == 1
    assert titles["step 4\nright"].images[0].get_alpha() < 0.5
    curve, mark = drawn[0].axes[-1].lines
    np.testing.assert_allclose(
        np.column_stack(curve.get_data()),
        [(i + 1, 1 / (1 + np.exp(-q))) for i, q in enumerate(TASK["q_halt"])],
    )
    assert np.asarray(mark.get_xdata())[0] == 3


def test_a_file_of_one_step_and_of_many(tmp_path: Path) -> None:
    one = {"answers": [TRUTH], "q_halt": [0.0], "halted_at": 1, "demonstrations": []}
    many = {"answers": [TRUTH] * 17, "q_halt": [0.0] * 17, "halted_at": 17}
    for name, changes in (("one", one), ("many", many)):
        plot_task(**TASK | changes, path=tmp_path / "new" / f"{name}.png")
        picture = matplotlib.image.imread(tmp_path / "new" / f"{name}.png")
        assert picture.shape[0] > 500
        assert picture.std() > 0
