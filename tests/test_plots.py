"""Plots: readable PNG files, whole or absent, from whatever a metrics file holds."""

import importlib
import sys
from collections.abc import Callable
from pathlib import Path

import matplotlib.image
import numpy as np
import pytest
from matplotlib.figure import Figure

from hrm import plots
from hrm.errors import UserError
from hrm.evaluation import calibration_bins, summarise


@pytest.fixture
def drawn(monkeypatch: pytest.MonkeyPatch) -> list[Figure]:
    """The figures that would be saved."""
    figures: list[Figure] = []
    monkeypatch.setattr(plots, "_save", lambda figure, path: figures.append(figure))
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
    importlib.reload(plots).plot_steps_histogram([1], tmp_path / "a.png")
