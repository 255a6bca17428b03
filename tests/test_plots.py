"""Plots: readable PNG files, whole or absent, from whatever a metrics file holds."""

import importlib
import sys
from collections.abc import Callable
from pathlib import Path

import matplotlib.image
import numpy as np
import pytest
from matplotlib.figure import Figure

import hrm
from hrm import plots
from hrm.errors import UserError
from hrm.evaluation import calibration_bins, summarise


@pytest.fixture
def drawn(monkeypatch: pytest.MonkeyPatch) -> list[Figure]:
    """The figures that would be saved."""
    figures: list[Figure] = []
    monkeypatch.setattr(plots.drawing, "save", lambda figure, path: figures.append(figure))
    return figures


ROWS = [
    {"step": 1, "train/loss": 2.0, "train/lm_loss": 1.5, "train/exact_accuracy": None},
    {"step": 2, "train/loss": float("nan"), "train/exact_accuracy": 0.5, "train/steps": 4.0},
    {"step": 4, "train/loss": 0.5, "eval/exact_accuracy": 0.25},
]


def test_training_leaves_out_what_is_missing(tmp_path: Path, drawn: list[Figure]) -> None:
    plots.plot_training(ROWS, tmp_path / "a.png")
    loss, share, steps = drawn[0].axes
    assert loss.get_yscale() == "log"
    lines = {line.get_label(): np.column_stack(line.get_data()).tolist() for line in loss.lines}
    assert lines == {"loss": [[1, 2.0], [4, 0.5]], "token loss alone": [[1, 1.5]]}
    lines = {line.get_label(): np.column_stack(line.get_data()).tolist() for line in share.lines}
    assert lines == {"training rows, at halt": [[2, 0.5]], "evaluation": [[4, 0.25]]}
    assert np.column_stack(steps.lines[0].get_data()).tolist() == [[2, 4.0]]


def test_training_without_steps_at_halt_says_so(tmp_path: Path, drawn: list[Figure]) -> None:
    plots.plot_training([{"step": 1, "train/loss": 2.0}], tmp_path / "a.png")
    steps = drawn[0].axes[2]
    assert not steps.lines
    assert [text.get_text() for text in steps.texts] == ["no values"]


def test_a_long_curve_has_its_running_mean(tmp_path: Path, drawn: list[Figure]) -> None:
    rows = [{"step": i, "train/loss": float(i % 2)} for i in range(400)]
    plots.plot_training(rows, tmp_path / "a.png")
    loss = drawn[0].axes[0]
    assert loss.get_yscale() == "linear"  # a loss of 0 has no logarithm
    raw, mean = loss.lines
    steps, values = np.asarray(mean.get_xdata()), np.asarray(mean.get_ydata())
    assert len(np.asarray(raw.get_xdata())) == 400
    assert (steps[0], steps[-1], len(steps)) == (7, 399, 393)
    np.testing.assert_allclose(values, 0.5)


def test_histogram_shows_shares_and_their_mean(tmp_path: Path, drawn: list[Figure]) -> None:
    plots.plot_steps_histogram([1, 0, 3], tmp_path / "a.png")
    axes = drawn[0].axes[0]
    bars = [(b.get_x() + b.get_width() / 2, b.get_height()) for b in axes.patches]
    np.testing.assert_allclose(bars, [(1, 0.25), (2, 0), (3, 0.75)])
    assert np.asarray(axes.lines[0].get_xdata())[0] == 2.5
    assert axes.get_ylabel() == "Share of 4 rows"


def test_accuracy_over_steps_marks_the_mean_halt(tmp_path: Path, drawn: list[Figure]) -> None:
    plots.plot_accuracy_by_step([0.5, 0.75, 1.0], tmp_path / "a.png", mean_steps=1.5)
    plots.plot_accuracy_by_step([0.5], tmp_path / "b.png")
    curve, mark = drawn[0].axes[0].lines
    assert np.column_stack(curve.get_data()).tolist() == [[1, 0.5], [2, 0.75], [3, 1.0]]
    assert np.asarray(mark.get_xdata())[0] == 1.5
    assert len(drawn[1].axes[0].lines) == 1


def test_calibration_leaves_out_empty_bins(tmp_path: Path, drawn: list[Figure]) -> None:
    bins = calibration_bins(np.array([-9.0, 9.0, 9.0]), np.array([False, True, False]))
    plots.plot_calibration(bins, tmp_path / "a.png", error=0.33)
    measured = drawn[0].axes[0].lines[1]
    np.testing.assert_allclose(np.asarray(measured.get_ydata()), [0, 0.5])
    assert "0.330" in drawn[0].axes[0].get_title()


def test_evaluation_prefers_the_policys_steps(tmp_path: Path, drawn: list[Figure]) -> None:
    labels = np.array([[1], [2]])
    predictions = np.array([[[1], [1]], [[1], [2]]])
    q = np.array([[1.0, -1.0], [1.0, 1.0]])
    summary = summarise(predictions, q, labels, np.array([2, 2]), np.array([1, 2]))
    plots.plot_evaluation(summary, tmp_path)
    assert [b.get_height() for b in drawn[0].axes[0].patches] == [0.5, 0.5]
    assert np.asarray(drawn[1].axes[0].lines[1].get_xdata())[0] == 1.5


BINS = calibration_bins(np.array([-9.0, 0.5, 9.0]), np.array([False, True, True]))


@pytest.mark.parametrize(
    "draw",
    [
        lambda path: plots.plot_training(ROWS, path),
        lambda path: plots.plot_training([], path),
        lambda path: plots.plot_training([{"step": 1, "train/loss": 1.0}], path),
        lambda path: plots.plot_steps_histogram([0, 0], path),
        lambda path: plots.plot_accuracy_by_step([0.5], path),
        lambda path: plots.plot_calibration(BINS, path),
    ],
)
def test_the_file_is_a_picture(draw: Callable[[Path], None], tmp_path: Path) -> None:
    path = tmp_path / "plots" / "a.png"
    draw(path)
    image = matplotlib.image.imread(path)
    assert min(image.shape[:2]) > 300
    assert image[..., :3].std() > 0.02
    assert list(path.parent.iterdir()) == [path]


def test_evaluation_names_its_files(tmp_path: Path) -> None:
    summary = {
        "steps_histogram": [1, 1],
        "mean_steps": 1.5,
        "accuracy_by_step": [0.5, 1.0],
        "q_halt_calibration": BINS,
        "q_halt_calibration_error": 0.1,
    }
    files = plots.plot_evaluation(summary, tmp_path)
    assert [f.name for f in files] == [
        "steps_at_halt.png",
        "accuracy_by_step.png",
        "calibration.png",
    ]
    assert sorted(files) == sorted(tmp_path.iterdir())


def test_a_failed_write_leaves_the_old_picture(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = tmp_path / "a.png"
    path.write_bytes(b"old")

    def full(self: Figure, beside: Path, **_: object) -> None:
        beside.write_bytes(b"half")
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(Figure, "savefig", full)
    with pytest.raises(UserError, match=r"a\.png: cannot be written: No space left on device"):
        plots.plot_steps_histogram([1], path)
    assert path.read_bytes() == b"old"
    assert list(tmp_path.iterdir()) == [path]


def test_pyplot_is_not_needed(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "matplotlib.pyplot", None)
    monkeypatch.setattr(hrm, "plots", plots)
    for name in [name for name in sys.modules if name.startswith("hrm.plots")]:
        monkeypatch.delitem(sys.modules, name)
    importlib.import_module("hrm.plots").plot_steps_histogram([1], tmp_path / "a.png")


VALUES = {"contribution": [1.0, 0.5, 0.2], "accumulated": [1.0, 1.5, 1.7], "threshold": [1.4] * 3}
MASKS = np.array([[[0, 0], [1, 0]], [[0, 1], [1, 0]], [[1, 1], [1, 2]]])


def test_steps_of_an_image_show_each_mask_and_mark_the_halt(
    tmp_path: Path, drawn: list[Figure]
) -> None:
    image = np.ones((2, 2, 3))
    shown = np.array([[True, True], [True, False]])
    plots.plot_steps(image, MASKS, tmp_path / "a.png", halted_at=2, values=VALUES, shown=shown)
    *tiles, below = drawn[0].axes
    titles = [tile.get_title() for tile in tiles]
    assert titles == ["input", "step 1", "step 2: halt", "step 3"]
    first, third = (np.asarray(tiles[i].images[0].get_array()) for i in (1, 3))
    assert len(np.unique(first.reshape(-1, 3), axis=0)) == 2
    # What has no answer is not painted, and what follows the halt is pale.
    np.testing.assert_allclose(third[1, 1], 1)
    assert third[1, 0].min() > first[1, 0].min()
    accumulated, threshold, halt = below.lines
    np.testing.assert_allclose(np.asarray(accumulated.get_ydata()), VALUES["accumulated"])
    np.testing.assert_allclose(np.asarray(threshold.get_ydata()), VALUES["threshold"])
    assert np.asarray(halt.get_xdata())[0] == 2
    assert [bar.get_height() for bar in below.patches] == VALUES["contribution"]


def test_steps_of_a_policy_without_value_functions(tmp_path: Path, drawn: list[Figure]) -> None:
    values = {"q_halt": [-1.0, 2.0, 3.0]}
    plots.plot_steps(np.ones((2, 2, 3)), MASKS, tmp_path / "a.png", halted_at=3, values=values)
    assert [line.get_label() for line in drawn[0].axes[-1].lines] == ["q_halt", "halt: step 3"]


def test_frontier_has_a_line_for_each_series(tmp_path: Path, drawn: list[Figure]) -> None:
    series = {
        "policy": [(3.0, 0.8), (2.0, 0.7)],
        "fixed depth": [(1.0, 0.5), (2.0, 0.6)],
        "oracle": [(2.5, 0.9)],
        "halting on |dx|": [(2.0, 0.65)],
    }
    plots.plot_frontier(series, tmp_path / "a.png", metric="Dice")
    plots.plot_frontier({}, tmp_path / "b.png")
    axes = drawn[0].axes[0]
    lines = {line.get_label(): np.column_stack(line.get_data()).tolist() for line in axes.lines}
    assert lines["policy"] == [[2, 0.7], [3, 0.8]]
    assert list(lines) == list(series)
    assert axes.get_ylabel() == "Dice"
    assert len({line.get_color() for line in axes.lines}) == 4


GROUP = {"low": 2, "high": 4, "count": 3, "mean_steps": 1.5, "mean_optimal_steps": 2.0}
OF_IMAGES = {
    "iou": 0.5,
    "steps_histogram": [3, 1],
    "optimal_steps_histogram": [1, 3],
    "by_difficulty": [GROUP, GROUP | {"low": 5, "high": 5}],
    "iou_by_step": [0.25, 0.5],
    "loss_by_step": [0.7, 0.4],
    "halting/mean_steps": 1.25,
    "halting/iou": 0.4,
}


def test_histograms_of_policy_and_best_steps(tmp_path: Path, drawn: list[Figure]) -> None:
    plots.plot_histograms(OF_IMAGES, tmp_path / "a.png")
    shares, by_difficulty = drawn[0].axes
    assert [bar.get_height() for bar in shares.patches] == [0.75, 0.25, 0.25, 0.75]
    assert [label.get_text() for label in by_difficulty.get_xticklabels()] == ["2-4", "5"]
    assert np.asarray(by_difficulty.lines[1].get_ydata()).tolist() == [2.0, 2.0]
    # An adaptive evaluation knows neither the best steps nor, of some data, the difficulty.
    plots.plot_histograms({"steps_histogram": [3, 1], "by_difficulty": None}, tmp_path / "b.png")
    assert [bar.get_height() for bar in drawn[1].axes[0].patches] == [0.75, 0.25]


def test_an_evaluation_of_images_has_plots_of_its_own(tmp_path: Path) -> None:
    files = plots.plot_evaluation(OF_IMAGES, tmp_path / "a")
    assert [f.name for f in files] == ["steps_at_halt.png", "iou_by_step.png"]
    assert sorted(files) == sorted((tmp_path / "a").iterdir())
    stopped = {k: v for k, v in OF_IMAGES.items() if "by_step" not in k}
    assert len(plots.plot_evaluation(stopped, tmp_path / "b")) == 1
