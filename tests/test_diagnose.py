"""`hrm diagnose` from end to end, and its plots."""

import json
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from matplotlib.figure import Figure

from hrm import plots
from hrm.cli import main
from hrm.commands.diagnose import in_float32, in_words, steps_shown
from hrm.data.base import load_split
from hrm.inference.loop import on_device
from hrm.inference.residuals import Convergence, measure_convergence, summarise_convergence
from hrm.models.pretrained import save_pretrained
from hrm.training.checkpoint import load_run
from tests.conftest import Run
from tests.training.conftest import SMALL

PLOTS = ["gradient_truncation.png", "prediction_changes.png", "residuals.png"]


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A data set in `4`, an HRM in `run` (4 steps of L, L, H, L, L, H) and a TRM in `trm`."""
    root = tmp_path_factory.mktemp("diagnose")
    counts = ["--count", "20", "--val-count", "4", "--test-count", "9"]
    where = ["--size", "4", "--out", str(root / "4")]
    assert main(["prepare", "sudoku", *where, *counts, "--quiet"]) == 0
    for name, experiment in (("run", "sudoku_4x4_hrm"), ("trm", "sudoku_4x4")):
        small = [f"experiment={experiment}", *SMALL[1:], "max_steps=5", f"data.path={root / '4'}"]
        assert main(["train", *small, f"out={root / name}"]) == 0
    return root


def test_prints_one_object(hrm: Run, folder: Path) -> None:
    command = ("diagnose", folder / "run", "--steps", "6", "--gradient-count", "3", "--json")
    status, out, err = hrm(*command, "--no-plots")
    assert (status, err) == (0, "")
    figures = json.loads(out)
    assert (figures["count"], figures["steps"], figures["halt_max_steps"]) == (9, 6, 4)
    assert figures["cycles"] == ["L", "L", "H", "L", "L", "H"]
    assert np.shape(figures["residuals"]["L"]) == (6, 4)
    assert np.shape(figures["residuals"]["H"]) == (6, 2)
    assert len(figures["changed_tokens"]) == len(figures["changed_sequences"]) == 6
    gradient = figures["gradient"]
    assert (gradient["count"], gradient["cycles"], gradient["grad_cycles"]) == (3, 6, 2)
    # Beyond the limit of 4 steps at those of the table alone.
    assert gradient["steps"] == [1, 2, 3, 4, 6]
    for reference in ("to_all_cycles", "to_all_steps"):
        cosine = gradient[reference]["cosine"]
        assert sorted(cosine) == ["H_level", "L_level", "all", "embeddings"]
        assert np.shape(cosine["all"]) == (5, 6)
        assert cosine["L_level"][0][0] is None


def test_accuracy_is_that_of_evaluate(hrm: Run, folder: Path) -> None:
    for name in ("run", "trm"):
        command = ("diagnose", folder / name, "--json", "--no-plots", "--gradient-count", "0")
        diagnosed = json.loads(hrm(*command)[1])
        evaluated = json.loads(hrm("evaluate", folder / name, "--json")[1])
        assert diagnosed["accuracy_by_step"] == evaluated["accuracy_by_step"]


def test_batches_make_no_difference_and_runs_repeat(hrm: Run, folder: Path) -> None:
    command = ("diagnose", folder / "trm", "--json", "--no-plots", "--gradient-count", "2")
    first, again = hrm(*command), hrm(*command)
    assert first == again
    figures = json.loads(first[1])
    small = json.loads(hrm(*command, "--batch-size", "2")[1])
    for level in ("H", "L"):
        np.testing.assert_allclose(
            small["residuals"][level], figures["residuals"][level], rtol=1e-3
        )
    assert small["changed_tokens"] == figures["changed_tokens"]
    assert small["gradient"] == figures["gradient"]


def test_a_run_in_bfloat16_is_diagnosed_in_float32(hrm: Run, folder: Path, tmp_path: Path) -> None:
    small = [*SMALL, "arch.forward_dtype=bfloat16", "max_steps=2", f"data.path={folder / '4'}"]
    assert hrm("train", *small, f"out={tmp_path / 'run'}")[0] == 0
    loaded = load_run(tmp_path / "run")
    model = in_float32(loaded, slots=7)
    assert (loaded.model.inner.dtype, model.inner.dtype) == (torch.bfloat16, torch.float32)
    assert model.config.batch_size == 7
    theirs = loaded.model.state_dict()
    assert all(torch.equal(value, theirs[name]) for name, value in model.state_dict().items())


@pytest.mark.parametrize(("step", "limit"), [(599, 2), (600, 4)])
def test_targets_are_those_of_the_curriculum_at_that_update(
    folder: Path, step: int, limit: int
) -> None:
    loaded = replace(load_run(folder / "run"), step=step)
    assert in_float32(loaded, slots=1).halting.train_max_steps == limit


def test_an_exported_model_needs_no_run(hrm: Run, folder: Path, tmp_path: Path) -> None:
    save_pretrained(load_run(folder / "trm").model, tmp_path / "model")
    status, _, err = hrm("diagnose", tmp_path / "model")
    assert status == 2
    assert "give --data DIR" in err
    command = ("--data", folder / "4", "--gradient-count", "2", "--count", "2", "--json")
    exported = json.loads(hrm("diagnose", tmp_path / "model", *command)[1])
    own = json.loads(hrm("diagnose", folder / "trm", *command, "--no-plots")[1])
    assert exported["residuals"] == own["residuals"]
    # Without a run there is the published loss, not the run's.
    assert exported["gradient"]["to_all_steps"] != own["gradient"]["to_all_steps"]


def test_tells_people_in_words(hrm: Run, folder: Path) -> None:
    command = ("diagnose", folder / "run", "--no-plots", "--steps", "2")
    status, out, _ = hrm(*command, "--gradient-count", "2")
    text = " ".join(out.split())
    assert status == 0
    for part in ("L residual at the last cycle", "H residual", "falls for", "last 2 of 6 cycles"):
        assert part in text
    status, out, _ = hrm(*command, "--gradient-count", "0")
    assert status == 0
    assert "radient" not in out


def test_words_by_hand() -> None:
    figures: dict[str, Any] = {
        "steps": 8,
        "halt_max_steps": 2,
        "settled": True,
        "tolerance": 0.01,
        "residuals": {"L": [[0.5, 0.3125], *[[0.1, 0.1]] * 6, [0.08, 0.04]]},
        "falls_over_steps": {"L": 0.97},
        "falls_within_step": {"L": [1.0] * 7 + [0.5]},
        "converged": {"L": 0.25},
        "gradient": {
            "steps": [1, 2, 8],
            "cycles": 6,
            "grad_cycles": 2,
            "to_all_cycles": {
                "cosine": {
                    "all": [[0.1, 0.5, 1.0], [0.1, 0.75, 1.0], [0.1, 0.9, 1.0]],
                    "L_level": [[None, None, 1.0]] * 3,
                }
            },
            "to_all_steps": {"cosine": {"all": [[0.1, 0.25, 1.0]] * 2 + [[0.1, 0.9, 0.5]]}},
        },
    }
    level, gradient, settled = in_words(figures)
    assert level == (
        "L residual at the last cycle: 0.312 at step 1, 0.04 at step 8: falls for 97% of "
        "sequences; from first to last L cycle of step 8 for 50%. At a fixed point (below 0.01) "
        "are 25% of sequences."
    )
    assert gradient == (
        "Gradient as trained, through the last 2 of 6 cycles: cosine 0.62 to the gradient through "
        "all cycles of the step (L level none), 0.25 to that through all steps; means over steps 1 "
        "to 2."
    )

    assert "alone that end at a fixed point" in settled
    assert "no gradients" in in_words(figures | {"gradient": None})[1]
    assert len(in_words(figures | {"gradient": None, "settled": False})) == 1


def test_gradients_of_settled_rows_alone(hrm: Run, folder: Path) -> None:
    command = ("diagnose", folder / "trm", "--json", "--no-plots", "--settled", "--steps", "2")
    every = json.loads(hrm(*command, "--tolerance", "100")[1])
    assert every["gradient"]["count"] == 9
    # All but one row: the tolerance is the last residual of the row that moves most.
    loaded = load_run(folder / "trm")
    batch = on_device(loaded.model, load_split(folder / "4", "test").take(np.arange(9)))
    measured = measure_convergence(loaded.model, batch, 2)
    largest = np.max([measured.of(level)[-1, -1] for level in "HL"], axis=0)
    some = json.loads(hrm(*command, "--tolerance", str(largest.max()))[1])
    assert some["gradient"]["count"] == 8
    few = str(largest.min() / 2)
    assert json.loads(hrm(*command, "--tolerance", few)[1])["gradient"] is None


def test_steps_shown() -> None:
    assert steps_shown(1, 4) == [1]
    assert steps_shown(4, 4) == [1, 2, 4]
    assert steps_shown(7, 3) == [1, 2, 3, 4, 7]
    assert steps_shown(20, 16) == [1, 2, 4, 8, 16, 20]


def test_plots_go_to_the_run_or_to_out(hrm: Run, folder: Path, tmp_path: Path) -> None:
    checkpoint = folder / "trm" / "checkpoints" / "step_00000005"
    status, out, err = hrm("diagnose", folder / "trm", "--json", "--gradient-count", "2")
    assert status == 0
    assert json.loads(out)
    assert str(folder / "trm" / "plots") in err
    assert sorted(p.name for p in (folder / "trm" / "plots").iterdir()) == PLOTS
    before = sorted(checkpoint.iterdir())
    assert hrm("diagnose", checkpoint, "--json", "--gradient-count", "0")[2] == ""
    assert sorted(checkpoint.iterdir()) == before
    command = ("diagnose", checkpoint, "--json", "--gradient-count", "0", "--out", tmp_path / "p")
    assert hrm(*command)[0] == 0
    assert sorted(p.name for p in (tmp_path / "p").iterdir()) == PLOTS[1:]


BAD = {
    "no steps": (["{root}/run", "--steps", "0"], "--steps: got 0, but it is at least 1"),
    "no count": (["{root}/run", "--count", "0"], "--count: got 0"),
    "negative": (["{root}/run", "--gradient-count", "-1"], "--gradient-count: got -1"),
    "no batch": (["{root}/run", "--batch-size", "0"], "--batch-size: got 0"),
    "no tolerance": (["{root}/run", "--tolerance", "0"], "--tolerance: got 0"),
    "nan": (["{root}/run", "--tolerance", "nan"], "--tolerance: got nan"),
    "no data": (["{root}/run", "--data", "{root}/x"], "{root}/x"),
    "no run": (["{root}/x"], "no such folder"),
    "no number": (["{root}/run", "--steps", "many"], "--steps"),
}


@pytest.mark.parametrize("name", BAD)
def test_bad_input_is_one_sentence_and_status_2(hrm: Run, folder: Path, name: str) -> None:
    arguments, expected = BAD[name]
    before = sorted(folder.rglob("*"))
    status, out, err = hrm("diagnose", *[a.replace("{root}", str(folder)) for a in arguments])
    assert (status, out) == (2, "")
    assert expected.replace("{root}", str(folder)) in err
    assert err.startswith("hrm: ")
    assert err.count("\n") == 1
    assert sorted(folder.rglob("*")) == before


def test_other_data_is_refused(hrm: Run, folder: Path, tmp_path: Path) -> None:
    counts = ("--count", "4", "--val-count", "2", "--test-count", "2", "--quiet")
    assert hrm("prepare", "sudoku", "--size", "6", *counts, "--out", tmp_path / "6")[0] == 0
    status, _, err = hrm("diagnose", folder / "run", "--data", tmp_path / "6")
    assert status == 2
    assert "seq_len is 36" in err


@pytest.fixture
def drawn(monkeypatch: pytest.MonkeyPatch) -> list[Figure]:
    """The figures that would be saved."""
    figures: list[Figure] = []
    monkeypatch.setattr(plots.drawing, "save", lambda figure, path: figures.append(figure))
    return figures


def summary(steps: int = 2) -> dict[str, Any]:
    """Residual 1 / (3 step + cycle) in each of three rows, but 0 at the last high cycle."""
    residuals = 1 / (3 * np.arange(steps)[:, None, None] + np.arange(1, 4)[None, :, None])
    residuals = np.repeat(residuals, 3, axis=2)
    residuals[-1, -1] = 0
    predictions = np.ones((steps, 3, 4), dtype=np.int32)
    predictions[-1, 0, :2] = 2
    return summarise_convergence(
        Convergence(["L", "L", "H"], residuals, predictions), np.ones((3, 4), np.int64), 0.01
    )


def curves(axes: Any) -> dict[str, list[list[float]]]:
    return {
        line.get_label(): np.column_stack(line.get_data()).tolist() for line in axes.get_lines()
    }


def test_residuals_stand_where_their_cycle_ends(drawn: list[Figure], tmp_path: Path) -> None:
    plots.plot_residuals(summary(), tmp_path / "a.png", trained_steps=1)
    axes = drawn[0].axes[0]
    assert axes.get_yscale() == "log"
    found = curves(axes)
    expected = [[1 / 3, 1], [2 / 3, 1 / 2], [4 / 3, 1 / 4], [5 / 3, 1 / 5]]
    np.testing.assert_allclose(found["L level, median"], expected)
    np.testing.assert_allclose(found["H level, median"], [[1, 1 / 3], [2, np.nan]])
    assert found["step limit: 1"][0][0] == 1
    plots.plot_residuals(summary(), tmp_path / "a.png", trained_steps=2)
    assert not any("limit" in label for label in curves(drawn[1].axes[0]))


def test_changes_are_shares(drawn: list[Figure], tmp_path: Path) -> None:
    plots.plot_prediction_changes(summary(), tmp_path / "a.png", trained_steps=2)
    found = curves(drawn[0].axes[0])
    np.testing.assert_allclose(found["tokens changed"], [[1, np.nan], [2, 2 / 12]])
    np.testing.assert_allclose(found["sequences changed"], [[1, np.nan], [2, 1 / 3]])
    np.testing.assert_allclose(found["exactly right"], [[1, 1], [2, 2 / 3]])


def gradient_figures() -> dict[str, Any]:
    """Two steps within the limit and the eighth beyond it."""
    cosine = {
        "all": [[0.2, 0.6, 1.0], [0.4, 0.8, 1.0], [0.9, 0.9, 1.0]],
        "L_level": [[None, 0.5, 1.0], [None, 0.7, 1.0], [None, None, 1.0]],
    }
    sizes = {"cycles": 3, "grad_cycles": 2, "steps": [1, 2, 8]}
    names = ("to_all_cycles", "to_all_steps")
    return sizes | {name: {"cosine": cosine} for name in names}


def test_cosines_over_cycles_and_over_steps(drawn: list[Figure], tmp_path: Path) -> None:
    plots.plot_gradient_truncation(gradient_figures(), tmp_path / "a.png", trained_steps=2)
    over_cycles, within, through = drawn[0].axes
    everything, level, mark = (np.column_stack(line.get_data()) for line in over_cycles.get_lines())
    np.testing.assert_allclose(everything, [[1, 0.3], [2, 0.7], [3, 1.0]])
    np.testing.assert_allclose(level, [[1, np.nan], [2, 0.6], [3, 1.0]])
    assert mark[0, 0] == 2
    found = curves(within)
    np.testing.assert_allclose(found["all parameters"], [[1, 0.6], [2, 0.8], [8, 0.9]])
    np.testing.assert_allclose(found["L level"], [[1, 0.5], [2, 0.7], [8, np.nan]])
    assert found["step limit: 2"][0][0] == 2
    assert len(through.get_lines()) == 3


def test_the_files_are_pictures_without_a_warning(tmp_path: Path) -> None:
    figures = {**summary(), "halt_max_steps": 1, "gradient": gradient_figures()}
    files = plots.plot_diagnosis(figures, tmp_path / "p")
    assert sorted(files) == sorted((tmp_path / "p").iterdir())
    assert sorted(p.name for p in files) == PLOTS
    assert all(p.read_bytes().startswith(b"\x89PNG") for p in files)
    one = {**summary(1), "halt_max_steps": 1, "gradient": None}
    assert sorted(p.name for p in plots.plot_diagnosis(one, tmp_path / "q")) == PLOTS[1:]
