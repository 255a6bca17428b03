"""`hrm calibrate`: the choice by hand, the file that it writes, and all that reads it."""

import json
import os
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from matplotlib.figure import Figure

from hrm import plots
from hrm.cli import main
from hrm.commands.calibrate import in_words
from hrm.data.base import IGNORE, PuzzleSplit, SplitArrays, load_split, write_dataset
from hrm.errors import UserError
from hrm.halting import (
    CalibratedHalting,
    Confirm,
    Convergence,
    Fixed,
    Halting,
    HaltOnly,
    QLearning,
)
from hrm.inference import solve
from hrm.inference.calibration import STOPPERS, calibrate, resolution, stoppers_for
from hrm.inference.evaluate import evaluate_split
from hrm.inference.trajectories import StepRecords
from hrm.models import from_pretrained, save_pretrained
from hrm.training.checkpoint import find_checkpoint, load_run
from hrm.training.metrics import read_metrics
from tests.conftest import Run
from tests.models.helpers import awaken, small_batch, small_hrm, small_trm
from tests.training.conftest import SMALL
from tests.training.test_trainer import without_time

STEPS, ROWS = 5, 60


def records_of(
    right: list[list[int]],
    q_halt: list[list[float]],
    *,
    q_continue: list[list[float]] | None = None,
    change: list[list[float]] | None = None,
    unchanged: list[list[int]] | None = None,
    wants: list[list[int]] | None = None,
) -> StepRecords:
    zeros = np.zeros((len(right), len(right[0])))
    given = (zeros if v is None else np.array(v) for v in (q_continue, change, unchanged, wants))
    go_on, moved, same, halts = given
    return StepRecords(
        right=np.array(right, dtype=bool),
        q_halt=np.array(q_halt, dtype=np.float32),
        q_continue=go_on.astype(np.float32),
        latent_change=moved.astype(np.float32),
        unchanged_steps=same.astype(np.int32),
        wants=halts.astype(bool),
    )


FOUR = records_of(
    # Four rows over three steps: right from step 1, 2, 3 and never.
    right=[[1, 0, 0, 0], [1, 1, 0, 0], [1, 1, 1, 0]],
    q_halt=[[2.0, 0.5, -3.0, -3.0], [4.0, 3.0, 1.0, -2.0], [4.0, 4.0, 3.0, -1.0]],
    wants=[[1, 1, 0, 0], [1, 1, 1, 0], [1, 1, 1, 1]],
)


def test_the_choice_by_hand() -> None:
    record = calibrate(FOUR, HaltOnly(3), "q", loss_points=0)
    # All three that can be right need a threshold that keeps row 1 (0.5) and row 2 (1.0) from
    # halting too early and lets row 0 (2.0) and row 1 (3.0) halt in time: 1.0 to 2.0.
    assert record["after"]["mean_steps"] == (1 + 2 + 3 + 3) / 4
    assert record["after"]["exact_accuracy"] == 0.75
    temperature = record["temperature"]
    assert record["threshold"] == pytest.approx(1 / (1 + np.exp(-1.5 / temperature)))
    assert record["last_step"] == {
        "mean_steps": 3.0,
        "exact_accuracy": 0.75,
        "standard_error": 0.25,
    }
    assert record["oracle"] == {"mean_steps": 9 / 4, "exact_accuracy": 0.75}
    assert record["before"]["mean_steps"] == (1 + 1 + 2 + 3) / 4
    assert record["before"]["exact_accuracy"] == 0.25
    assert record["fixed_depth"] == [[1, 1, 0.25], [2, 2, 0.5], [3, 3, 0.75]]
    assert record["after"]["loss_points"] == 0
    assert record["stoppers"]["q"]["chosen"] == [record["threshold"], 9 / 4, 0.75]


def test_a_greater_loss_buys_fewer_steps() -> None:
    record = calibrate(FOUR, HaltOnly(3), "q", loss_points=25)
    # 0.5 to 1.0 lets row 2 halt a step too early, at 1.0; nothing loses one row for less.
    assert record["after"]["mean_steps"] == (1 + 2 + 2 + 3) / 4
    assert record["after"]["loss_points"] == 25
    # One row of four is lost and the others are equal: the spread of 0, 0, 0, 1.
    assert record["after"]["loss_standard_error"] == pytest.approx(100 * np.sqrt(3 / 16) / 2)
    every = calibrate(FOUR, HaltOnly(3), "q", loss_points=100)
    assert every["after"]["mean_steps"] == 1
    assert 0 < every["threshold"] < 1


def test_a_head_that_is_wrong_about_itself_never_halts_early() -> None:
    inverted = records_of([[0, 0], [0, 1], [1, 1]], [[9.0, 9.0], [8.0, 8.0], [1.0, 1.0]])
    record = calibrate(inverted, HaltOnly(3), "q", loss_points=0)
    assert record["threshold"] is None
    assert record["after"]["mean_steps"] == 3
    assert record["stoppers"]["q"]["chosen"] == [None, 3, 1]
    assert isinstance(CalibratedHalting(**record).make(3, 4), Fixed)
    assert any("runs to the last step" in s for s in in_words(record | {"split": "val"}))


def test_the_settings_of_the_other_stoppers_by_hand() -> None:
    steps = records_of(
        right=[[0, 0], [1, 0], [1, 1], [1, 1]],
        q_halt=[[0.0, 0.0]] * 4,
        q_continue=[[1.0, 2.0], [-1.0, 1.0], [-3.0, -1.0], [0.0, 0.0]],
        change=[[0.9, 0.8], [0.2, 0.5], [0.1, 0.2], [0.0, 0.0]],
        unchanged=[[0, 0], [0, 0], [1, 0], [2, 1]],
    )
    chosen = calibrate(steps, QLearning(4), "lead", loss_points=0)["stoppers"]
    # Right answers come at steps 2 and 3: changes of 0.2 and 0.2, leads of 1 and 1.
    assert chosen["convergence"]["chosen"] == [pytest.approx(0.35), 2.5, 1]
    assert chosen["lead"]["chosen"] == [0.0, 2.5, 1]
    # Differences are 0.7 and 0.3, then 0.1 and 0.3, then 0.1 and 0.2: below 0.7 row 1 halts at
    # step 2, wrong; between 0.1 and 0.2 row 0 halts at step 3 and row 1 not before the last.
    assert chosen["second_difference"]["chosen"] == [pytest.approx(0.2, abs=0.06), 3.5, 1]
    assert chosen["unchanged"]["chosen"] == [1, 3.5, 1]


def test_errors_of_calibration_are_over_all_steps() -> None:
    q, right = [[np.log(3.0)] * 4, [np.log(3.0)] * 4], [[1, 1, 1, 1], [1, 1, 1, 0]]
    record = calibrate(records_of(right, q), HaltOnly(2), "q", 0)
    # Told 3/4, right in 7 of 8; sigmoid(ln 3 / T) = 7/8 at T = ln 3 / ln 7.
    assert record["temperature"] == pytest.approx(np.log(3) / np.log(7), rel=1e-6)
    assert record["before"]["calibration_error"] == pytest.approx(1 / 8, abs=1e-6)
    assert record["after"]["calibration_error"] == pytest.approx(0, abs=1e-6)
    assert record["after"]["log_loss"] < record["before"]["log_loss"]


def test_what_has_learned_nothing_is_not_asked() -> None:
    assert stoppers_for(QLearning(4)) == list(STOPPERS)
    assert "lead" not in stoppers_for(HaltOnly(4))
    settled = ["convergence", "second_difference", "unchanged"]
    assert stoppers_for(Fixed(4)) == stoppers_for(Convergence(4)) == settled
    with pytest.raises(UserError, match="--stopper q: this model's q_halt has learned nothing"):
        calibrate(FOUR, Fixed(3), "q", 0)
    with pytest.raises(UserError, match="--stopper lead: this model's q_continue has learned no"):
        calibrate(FOUR, HaltOnly(3), "lead", 0)
    record = calibrate(FOUR, Fixed(3), "unchanged", 0)
    assert record["temperature"] == 1
    assert record["before"]["calibration_error"] is None
    with pytest.raises(UserError, match="halt_max_steps is 1: there is nothing to choose"):
        calibrate(records_of([[1]], [[0.0]]), HaltOnly(1), "q", 0)


def test_too_few_rows_for_the_loss_are_told() -> None:
    def of(rows: int, share: float, points: float) -> dict[str, Any]:
        error = max(np.sqrt(share * (1 - share) / rows), 1 / rows)
        last = {"exact_accuracy": share, "standard_error": error}
        return {"count": rows, "loss_points": points, "last_step": last}

    assert resolution(of(2500, 0.96, 0.5)) is None
    sentence = resolution(of(250, 0.96, 0.5))
    assert sentence is not None
    assert "250 rows cannot tell a loss of 0.5 points from chance" in sentence
    assert "1.2 points" in sentence
    assert "some 1,500 rows" in sentence  # 0.96 * 0.04 / 0.005 ** 2 = 1536
    assert "some 1,000 rows" in str(resolution(of(250, 1.0, 0.1)))  # one row is 0.1 points
    assert "needed" not in str(resolution(of(250, 1.0, 0)))


@pytest.mark.parametrize(
    ("settings", "kind"),
    [
        ({"stopper": "q", "threshold": 0.9, "temperature": 2.0}, HaltOnly),
        ({"stopper": "confirm", "threshold": 0.9}, Confirm),
        ({"stopper": "lead", "threshold": -0.5}, QLearning),
        ({"stopper": "convergence", "threshold": 0.2}, Convergence),
        ({"stopper": "second_difference", "threshold": 0.2}, Convergence),
        ({"stopper": "unchanged", "threshold": 2.0}, Convergence),
        ({"stopper": "lead", "threshold": None}, Fixed),
    ],
)
def test_a_stored_choice_becomes_its_policy(settings: dict[str, Any], kind: type[Halting]) -> None:
    policy = CalibratedHalting(**settings, count=3).make(7, 4)
    assert type(policy) is kind
    assert (policy.max_steps, policy.exploration_prob) == (7, 0)
    if isinstance(policy, QLearning):
        assert policy.lead == -0.5
    if isinstance(policy, HaltOnly):
        assert policy.cut == pytest.approx(2 * np.log(9))
    if isinstance(policy, Convergence):
        given = policy.tolerance, policy.second_tolerance, policy.unchanged_steps
        assert sum(v is not None for v in given) == 1


# -- with models and files


@pytest.fixture(scope="module")
def root(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """`data` with `val`, `train` and `test`, and models `trm`, `hrm`, `fixed` of 5 steps.

    A row's label is what `trm` says after some step, the last for half of them, so that answers
    get right and wrong again.
    """
    root = tmp_path_factory.mktemp("calibrate")
    torch.manual_seed(0)
    models = {
        "trm": small_trm(halt_max_steps=STEPS),
        "hrm": small_hrm(halt_max_steps=STEPS),
        "fixed": small_trm(halt_max_steps=STEPS, halting="fixed"),
    }
    for name, model in models.items():
        awaken(model)
        save_pretrained(model, root / name)
    inputs = small_batch(slots=ROWS)
    answers = solve(models["trm"], inputs).predictions.numpy()
    labels = answers[np.minimum(np.arange(ROWS) % 8, STEPS - 1), np.arange(ROWS)]
    rows = SplitArrays.from_rows(inputs["inputs"].numpy(), labels)
    write_dataset(root / "data", dict.fromkeys(("train", "val", "test"), rows), vocab_size=11)
    write_dataset(root / "published", {"train": rows, "test": rows}, vocab_size=11)
    return root


@pytest.fixture
def model(root: Path, tmp_path: Path) -> Callable[[str], Path]:
    """A copy of a model's folder, to be written to."""

    def copy(name: str) -> Path:
        return save_pretrained(load_run(root / name).model, tmp_path / name)

    return copy


def val(root: Path) -> PuzzleSplit:
    return load_split(root / "data", "val")


def test_one_object_is_printed_and_stored(
    hrm: Run, root: Path, model: Callable[[str], Path]
) -> None:
    folder = model("trm")
    status, out, err = hrm("calibrate", folder, "--data", root / "data", "--json")
    assert (status, err) == (0, "")
    record = json.loads(out)
    assert json.loads((folder / "calibration.json").read_text()) == record
    assert (record["max_steps"], record["split"]) == (STEPS, "val")
    assert record["count"] == (val(root).take(np.arange(ROWS))["labels"] != IGNORE).any(1).sum()
    assert (record["data"], record["trained_halting"]) == ("data", "halt_only")
    assert set(record["stoppers"]) == {
        "q",
        "confirm",
        "convergence",
        "second_difference",
        "unchanged",
    }
    for stopper in record["stoppers"].values():
        assert stopper["chosen"] in stopper["frontier"]
        assert stopper["frontier"][-1] == [None, STEPS, record["last_step"]["exact_accuracy"]]
    # As trained, the figures are those of an evaluation.
    figures = evaluate_split(load_run(folder, calibrated=False).model, val(root))
    assert record["fixed_depth"] == [
        [n, n, a] for n, a in enumerate(figures["accuracy_by_step"], start=1)
    ]
    assert record["before"]["mean_steps"] == figures["policy_mean_steps"]
    assert record["before"]["exact_accuracy"] == figures["policy_exact_accuracy"]


@pytest.mark.parametrize("stopper", list(STOPPERS))
def test_the_stored_policy_does_what_was_measured(
    hrm: Run, root: Path, model: Callable[[str], Path], stopper: str
) -> None:
    folder = model("hrm" if stopper == "lead" else "trm")
    command = ("--data", root / "data", "--stopper", stopper, "--loss-points", "12", "--json")
    record = json.loads(hrm("calibrate", folder, *command)[1])
    served = json.loads(
        hrm("evaluate", folder, "--data", root / "data", "--halting", "adaptive", "--json")[1]
    )
    assert served["mean_steps"] == pytest.approx(record["after"]["mean_steps"])
    assert served["exact_accuracy"] == pytest.approx(record["after"]["exact_accuracy"])
    assert served["calibrated_policy"]["stopper"] == stopper
    if stopper != "lead":  # No answer of `hrm` is right: it halts at once.
        assert 1 < served["mean_steps"] < STEPS
    to_the_end = evaluate_split(load_run(folder).model, val(root))
    assert to_the_end["policy_mean_steps"] == pytest.approx(record["after"]["mean_steps"])


def test_exports_carry_it_along_and_training_policies_stay(
    hrm: Run, root: Path, model: Callable[[str], Path], tmp_path: Path
) -> None:
    folder = model("hrm")
    assert isinstance(from_pretrained(folder).halting, QLearning)
    command = ("--data", root / "data", "--stopper", "convergence")
    assert hrm("calibrate", folder, *command)[0] == 0
    assert isinstance(from_pretrained(folder).halting, Convergence)
    assert isinstance(from_pretrained(folder, calibrated=False).halting, QLearning)
    status, _, err = hrm("export", folder, "--out", tmp_path / "x")
    assert status == 2, err  # An export is carried as it is.
    again = save_pretrained(load_run(folder).model, tmp_path / "again")
    mine, theirs = (from_pretrained(path).halting for path in (again, folder))
    assert isinstance(mine, Convergence)
    assert isinstance(theirs, Convergence)
    assert mine.tolerance == theirs.tolerance
    plain = save_pretrained(load_run(folder, calibrated=False).model, tmp_path / "plain")
    assert not (plain / "calibration.json").exists()
    (folder / "calibration.json").unlink()
    assert isinstance(load_run(folder).model.halting, QLearning)


def test_a_second_calibration_starts_from_the_trained_policy(
    hrm: Run, root: Path, model: Callable[[str], Path]
) -> None:
    folder, data = model("trm"), ("--data", root / "data", "--json")
    first = json.loads(hrm("calibrate", folder, *data, "--stopper", "convergence")[1])
    second = json.loads(hrm("calibrate", folder, *data)[1])
    assert first["before"] == second["before"]
    assert second["stopper"] == "q"
    assert isinstance(load_run(folder).model.halting, HaltOnly | Fixed)


def test_a_dry_run_stores_nothing(hrm: Run, root: Path) -> None:
    before = sorted(path.name for path in (root / "trm").iterdir())
    command = ("calibrate", root / "trm", "--data", root / "data", "--dry-run")
    status, out, _ = hrm(*command)
    assert status == 0
    for part in ("as trained (halt_only)", "-> q", "Temperature", "rows cannot tell"):
        assert part in " ".join(out.split())
    assert "Stored" not in out
    assert sorted(path.name for path in (root / "trm").iterdir()) == before


def test_a_killed_write_leaves_the_old_calibration_and_is_cleared_away(
    hrm: Run, root: Path, model: Callable[[str], Path], monkeypatch: pytest.MonkeyPatch
) -> None:
    folder, data = model("trm"), ("--data", root / "data")
    assert hrm("calibrate", folder, *data)[0] == 0
    file = folder / "calibration.json"
    old, names = file.read_bytes(), {path.name for path in folder.iterdir()}

    def killed(_: int) -> None:
        raise KeyboardInterrupt

    with monkeypatch.context() as patch:
        patch.setattr(os, "fsync", killed)
        assert hrm("calibrate", folder, *data, "--stopper", "convergence")[0] == 130
    assert file.read_bytes() == old
    assert {path.name for path in folder.iterdir()} == names
    # A real kill removes nothing; the next calibration does.
    (folder / ".calibration.json.123").write_text("{")
    assert load_run(folder).model.calibration is not None
    assert hrm("calibrate", folder, *data, "--stopper", "convergence")[0] == 0
    assert {path.name for path in folder.iterdir()} == names
    assert json.loads(file.read_text())["stopper"] == "convergence"


def test_training_rows_are_taken_with_a_warning(hrm: Run, root: Path) -> None:
    command = ("calibrate", root / "trm", "--data", root / "published", "--dry-run")
    status, _, err = hrm(*command)
    assert status == 2
    assert "published: has no val split, and test is not for choosing" in err
    status, _, err = hrm(*command, "--split", "train")
    assert status == 0
    assert err.startswith("hrm: warning: --split train: the model has learned these rows")


BAD = {
    "no run": (["{root}/x"], "{root}/x: no such folder"),
    "no data": (["{root}/trm"], "the data set of this model is not here; give --data DIR"),
    "test": (["{root}/trm", "--split", "test"], "--split test: a threshold chosen on the test"),
    "count": (["{root}/trm", "--count", "0"], "--count: got 0, but it is at least 1"),
    "loss": (["{root}/trm", "--loss-points", "-1"], "--loss-points: got -1.0, but it is 0 to 100"),
    "nan": (["{root}/trm", "--loss-points", "nan"], "--loss-points: got nan"),
    "stopper": (["{root}/trm", "--stopper", "x"], "--stopper"),
    "untrained": (["{root}/fixed", "--data", "{root}/data"], "q_halt has learned nothing; there"),
    "other data": (["{root}/trm", "--data", "{root}/x"], "{root}/x"),
    "a name": (["four", "--data", "{root}/data"], "four: lies in "),
}


@pytest.mark.parametrize("name", BAD)
def test_bad_input_is_one_sentence_and_status_2(
    hrm: Run, root: Path, name: str, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    shelf = tmp_path / "shelf"
    save_pretrained(load_run(root / "trm").model, shelf / "four")
    monkeypatch.setattr("hrm.models.pretrained.SHIPPED", shelf)
    arguments, expected = BAD[name]
    status, out, err = hrm("calibrate", *[a.replace("{root}", str(root)) for a in arguments])
    assert (status, out) == (2, "")
    assert expected.replace("{root}", str(root)) in err
    assert err.startswith("hrm: ")
    assert err.count("\n") == 1
    assert not list(root.glob("*/calibration.json"))


@pytest.mark.parametrize(
    "text",
    [
        "{",
        "[]",
        '{"stopper": "q"}',
        '{"stopper": "q", "threshold": 1.5}',
        '{"stopper": "unchanged", "threshold": -1}',
        '{"stopper": "x", "threshold": null}',
    ],
)
def test_a_broken_calibration_is_one_sentence(
    hrm: Run, root: Path, model: Callable[[str], Path], text: str
) -> None:
    folder = model("trm")
    (folder / "calibration.json").write_text(text)
    status, _, err = hrm("evaluate", folder, "--data", root / "data")
    assert (status, err.count("\n")) == (2, 1)
    assert "calibration.json: is not" in err


# -- with a run


@pytest.fixture(scope="module")
def run_folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """4x4 puzzles in `4`, a run of 10 updates in `run` and one of 20 in `whole`."""
    folder = tmp_path_factory.mktemp("run")
    counts = ["--count", "20", "--val-count", "6", "--test-count", "4", "--quiet"]
    assert main(["prepare", "sudoku", "--size", "4", *counts, "--out", str(folder / "4")]) == 0
    for name, steps in (("run", 10), ("whole", 20)):
        where = [f"data.path={folder / '4'}", f"out={folder / name}", "lr_schedule=constant"]
        assert main(["train", *SMALL, f"max_steps={steps}", *where]) == 0
    return folder


def test_a_run_s_newest_checkpoint_is_calibrated_and_resuming_does_not_mind(
    hrm: Run, run_folder: Path, tmp_path: Path
) -> None:
    run = run_folder / "run"
    checkpoint = find_checkpoint(run)
    command = ("--stopper", "convergence", "--loss-points", "100")
    assert hrm("calibrate", run, *command)[0] == 0
    assert (checkpoint / "calibration.json").is_file()
    puzzle = "1.....2..3.....4"
    assert json.loads(hrm("solve", run, puzzle, "--json")[1])["steps"] == 1
    assert hrm("export", run, "--out", tmp_path / "exported")[0] == 0
    assert json.loads(hrm("solve", tmp_path / "exported", puzzle, "--json")[1])["steps"] == 1
    card = (tmp_path / "exported" / "README.md").read_text()
    assert "chosen by `hrm calibrate`: stopper `convergence`, threshold" in card
    where = [f"data.path={run_folder / '4'}", f"out={run}", "lr_schedule=constant"]
    assert hrm("train", *SMALL, *where, "resume=true")[0] == 0
    ours, theirs = (load_run(run_folder / name) for name in ("run", "whole"))
    assert ours.step == theirs.step == 20
    assert ours.model.calibration is None
    mine, other = ours.model.state_dict(), theirs.model.state_dict()
    assert all(torch.equal(mine[name], other[name]) for name in other)
    rows = [read_metrics(run_folder / name / "metrics.jsonl") for name in ("run", "whole")]
    late = [[row for row in without_time(part) if row["step"] > 10] for part in rows]
    assert late[0] == late[1]


# -- the plot


@pytest.fixture
def drawn(monkeypatch: pytest.MonkeyPatch) -> list[Figure]:
    figures: list[Figure] = []
    monkeypatch.setattr(plots.drawing, "save", lambda figure, path: figures.append(figure))
    return figures


@pytest.mark.parametrize("loss_points", [0, 25, 100])
def test_the_plot_shows_each_stopper_and_what_was_chosen(
    drawn: list[Figure], tmp_path: Path, loss_points: float
) -> None:
    record = calibrate(FOUR, HaltOnly(3), "q", loss_points)
    plots.plot_frontiers(record, tmp_path / "a.png")
    for axes in drawn[0].axes:
        lines = {str(line.get_label()): line for line in axes.lines}
        assert set(record["stoppers"]) <= set(lines)
        for name, point in (("chosen: q", "after"), ("oracle", "oracle"), ("as trained", "before")):
            at = record[point]["mean_steps"], record[point]["exact_accuracy"]
            assert np.column_stack(lines[name].get_data()).tolist() == [list(at)]
            low, high = axes.get_xlim()
            assert low < at[0] < high
            low, high = axes.get_ylim()
            assert low < at[1] < high
        frontier = [point[1:] for point in record["stoppers"]["q"]["frontier"]]
        assert np.column_stack(lines["q"].get_data()).tolist() == frontier


def test_the_command_draws_it(hrm: Run, root: Path, tmp_path: Path) -> None:
    command = ("calibrate", root / "trm", "--data", root / "data", "--dry-run", "--plots")
    assert hrm(*command, tmp_path / "plots")[0] == 0
    assert [path.name for path in (tmp_path / "plots").iterdir()] == ["halting.png"]
