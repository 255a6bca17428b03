"""The commands from end to end, in this process; bad input is one sentence and exit status 2."""

import json
import shutil
from pathlib import Path

import numpy as np
import pytest

from hrm.cli import COMMANDS, main
from tests.conftest import Run
from tests.training.conftest import SMALL

PUZZLE = "1.....2..3.....4"
SOLUTION = "1243342143122134"


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A data set of each size in `4`, `6`, `9`, and a run on 4x4 in `run`."""
    root = tmp_path_factory.mktemp("cli")
    for size in (4, 6, 9):
        counts = ["--count", "12", "--val-count", "4", "--test-count", "5"]
        where = ["--size", str(size), "--out", str(root / str(size))]
        assert main(["prepare", "sudoku", *where, *counts, "--quiet"]) == 0
    assert main(["train", *SMALL, f"data.path={root / '4'}", f"out={root / 'run'}"]) == 0
    return root


def snapshot(root: Path) -> dict[str, int]:
    return {str(p): p.stat().st_mtime_ns for p in sorted(root.rglob("*"))}


@pytest.mark.parametrize("name", COMMANDS)
def test_help_shows_an_example(hrm: Run, name: str) -> None:
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("COLUMNS", "100")
        try:
            status, out, _ = hrm(name, "--help")
        except SystemExit as exit_:
            pytest.fail(f"help left with {exit_.code} past main")
    assert status == 0
    assert f"example: hrm {name}" in out


def test_evaluate_prints_one_object(hrm: Run, folder: Path) -> None:
    status, out, _ = hrm("evaluate", folder / "run", "--json")
    figures = json.loads(out)
    assert status == 0
    assert figures["count"] == 5
    assert figures["mean_steps"] == 4
    assert len(figures["accuracy_by_step"]) == len(figures["steps_histogram"]) == 4
    for name in ("accuracy", "exact_accuracy", "q_halt_accuracy", "q_halt_base_rate"):
        assert 0 <= figures[name] <= 1
    assert "q_halt_auroc" in figures


@pytest.mark.parametrize("halting", ["max_steps", "adaptive"])
def test_evaluate_may_take_other_steps_than_training(hrm: Run, folder: Path, halting: str) -> None:
    """Weights do not depend on the number of steps: 2 are the first 2 of 4, and 6 go beyond."""
    words = ("--halting", halting, "--json")
    told = {
        n: json.loads(hrm("evaluate", folder / "run", "--max-steps", str(n), *words)[1])
        for n in (2, 6)
    }
    trained = json.loads(hrm("evaluate", folder / "run", *words)[1])
    assert trained["max_steps"] == 4
    assert [told[n]["max_steps"] for n in (2, 6)] == [2, 6]
    if halting == "max_steps":
        assert told[2]["accuracy_by_step"] == trained["accuracy_by_step"][:2]
        assert told[6]["accuracy_by_step"][:4] == trained["accuracy_by_step"]
    status, _, err = hrm("evaluate", folder / "run", "--max-steps", "0")
    assert (status, err) == (2, "hrm: --max-steps: got 0, but it is at least 1\n")


def test_evaluate_tells_of_each_group(hrm: Run, folder: Path) -> None:
    words = ("--by-group", "--groups", "3", "--json")
    figures = json.loads(hrm("evaluate", folder / "run", *words)[1])
    assert figures["count"] == 3
    groups = figures["by_group"]
    assert [group["group"] for group in groups] == [0, 1, 2]
    for name in ("accuracy", "exact_accuracy", "policy_mean_steps"):
        assert sum(group[name] for group in groups) / 3 == pytest.approx(figures[name])
    assert "by_group" not in json.loads(hrm("evaluate", folder / "run", "--json")[1])


def test_evaluate_takes_the_groups_that_the_run_was_limited_to(
    hrm: Run, folder: Path, tmp_path: Path
) -> None:
    limits = ("max_train_groups=2", "max_eval_groups=3", "max_steps=1")
    data = folder / "4"
    for name, looked_at in (("a", "val"), ("b", "test")):
        words = (*limits, f"eval_split={looked_at}", f"data.path={data}", f"out={tmp_path / name}")
        assert hrm("train", *SMALL, *words)[0] == 0

    def count(name: str, *words: str | Path) -> int:
        status, out, err = hrm("evaluate", tmp_path / name, *words, "--json")
        assert status == 0
        found = json.loads(out)["count"]
        assert (f"the first {found} groups of {words[1]}" in err) == (len(words) == 2 and found < 4)
        return found

    assert count("a", "--split", "val") == 3
    assert count("a", "--split", "train") == 2
    assert count("a", "--split", "test") == 5  # It was not looked at.
    assert count("b", "--split", "test") == 3
    assert count("b", "--split", "val") == 4
    assert count("a", "--split", "val", "--all-groups") == 4
    assert count("a", "--split", "train", "--all-groups") == 12
    assert count("a", "--split", "val", "--groups", "1") == 1
    assert count("a", "--split", "val", "--data", data) == 4
    status, _, err = hrm("evaluate", tmp_path / "a", "--groups", "1", "--all-groups")
    assert status == 2
    assert "--groups, --all-groups: give one of them" in err


def test_adaptive_evaluation_agrees_with_the_policy_of_the_full_one(hrm: Run, folder: Path) -> None:
    full = json.loads(hrm("evaluate", folder / "run", "--json")[1])
    adaptive = json.loads(hrm("evaluate", folder / "run", "--halting", "adaptive", "--json")[1])
    assert adaptive["mean_steps"] == full["policy_mean_steps"]
    assert adaptive["exact_accuracy"] == full["policy_exact_accuracy"]


def test_a_checkpoint_is_a_run_too(hrm: Run, folder: Path) -> None:
    checkpoint = folder / "run" / "checkpoints" / "step_00000020"
    whole, one = hrm("evaluate", folder / "run", "--json"), hrm("evaluate", checkpoint, "--json")
    assert whole == one


def test_solve_gives_an_answer_with_its_steps(hrm: Run, folder: Path) -> None:
    status, out, _ = hrm("solve", folder / "run", PUZZLE, "--json")
    solved = json.loads(out)
    assert status == 0
    assert len(solved["answer"]) == 16
    assert solved["valid"] == (solved["answer"] == SOLUTION)
    assert len(solved["q_halt"]) == len(solved["q_continue"]) == solved["steps"]


@pytest.mark.parametrize("most", [1, 6])
def test_solve_takes_as_many_steps_as_are_given(hrm: Run, folder: Path, most: int) -> None:
    given = ("solve", folder / "run", PUZZLE, "--max-steps", most, "--json")
    assert json.loads(hrm(*given, "--halting", "max_steps")[1])["steps"] == most
    assert json.loads(hrm(*given)[1])["steps"] <= most


def test_solve_reads_any_blank_and_shows_boards(hrm: Run, folder: Path) -> None:
    texts = (PUZZLE, PUZZLE.replace(".", "0"), PUZZLE.replace(".", "_"), "1... ..2. .3.. ...4")
    answers = {json.loads(hrm("solve", folder / "run", t, "--json")[1])["answer"] for t in texts}
    assert len(answers) == 1
    status, out, _ = hrm("solve", folder / "run", PUZZLE)
    assert status == 0
    assert "step 1" in out
    assert "halt" in out


def test_solve_reads_a_file(hrm: Run, folder: Path, tmp_path: Path) -> None:
    file = tmp_path / "puzzles"
    file.write_text(f"{PUZZLE}\n\n{PUZZLE}\n")
    solved = json.loads(hrm("solve", folder / "run", file, "--json")[1])["puzzles"]
    assert len(solved) == 2
    assert solved[0] == solved[1]


def test_a_training_run_prepares_what_is_missing(hrm: Run, tmp_path: Path) -> None:
    missing = tmp_path / "made"
    small = ("data.prepare.count=10", "+data.prepare.val_count=4", "+data.prepare.test_count=4")
    plain = [setting for setting in SMALL if setting != "data.prepare=null"]
    command = ("train", *plain, *small, f"data.path={missing}", f"out={tmp_path / 'run'}")
    status, _, err = hrm(*command, "max_steps=2", "plots=true")
    assert status == 0
    assert "preparing" in err
    assert (missing / "train" / "dataset.json").is_file()
    assert (tmp_path / "run" / "plots" / "training.png").is_file()


BAD = {
    "no such command": (["trian"], r"trian: no such command; did you mean 'train'"),
    "unknown experiment": (["train", "experiment=sudoku_4x5"], "sudoku_4x4"),
    "unknown key": (["train", "experiment=sudoku_4x4", "lrr=1"], "lrr: unknown key"),
    "no key=value": (["train", "sudoku"], "key=value"),
    "out exists": (["train", *SMALL, "data.path={root}/4", "out={root}/run"], "resume=true"),
    "missing data": (
        ["train", *SMALL, "data.path={root}/x"],
        "does not exist",
    ),
    "bad prepare": (
        ["train", "experiment=sudoku_4x4", "data.path={root}/x", "data.prepare.size=5"],
        "size",
    ),
    "no device": (["train", *SMALL, "data.path={root}/4", "device=cuda:99"], "device: cuda:99"),
    "no run": (["evaluate", "{root}/x"], "no such folder"),
    "no checkpoint": (["evaluate", "{root}/4"], "holds no checkpoint"),
    "other length": (["evaluate", "{root}/run", "--data", "{root}/6"], "seq_len is 36"),
    "no data": (["evaluate", "{root}/run", "--data", "{root}/x"], "{root}/x"),
    "bad count": (["evaluate", "{root}/run", "--count", "0"], "--count: got 0"),
    "short puzzle": (["solve", "{root}/run", "12"], "2 characters"),
    "other size": (["solve", "{root}/run", "." * 36], "4x4"),
    "bad character": (["solve", "{root}/run", "1x.............."], "'x' at row 1, column 2"),
    "clash": (["solve", "{root}/run", "11.............."], "row 1"),
    "bad size": (["prepare", "sudoku", "--size", "5", "--out", "{root}/x"], "4, 6 or 9"),
    "no csv": (["prepare", "sudoku", "--csv", "{root}/x.csv", "--out", "{root}/x"], "x.csv"),
    "out taken": (["prepare", "sudoku", "--size", "4", "--out", "{root}/4"], "not empty"),
    "bad kind": (["prepare", "sudko", "--out", "{root}/x"], "did you mean 'sudoku'"),
}


@pytest.mark.parametrize("name", BAD)
def test_bad_input_is_one_sentence_status_2_and_touches_nothing(
    hrm: Run, folder: Path, name: str
) -> None:
    arguments, expected = BAD[name]
    before = snapshot(folder)
    status, out, err = hrm(*[a.replace("{root}", str(folder)) for a in arguments])
    assert status == 2
    assert out == ""
    assert expected.replace("{root}", str(folder)) in err
    assert err.startswith("hrm: ")
    assert err.count("\n") == 1
    assert snapshot(folder) == before


def test_a_damaged_data_set_is_named(hrm: Run, folder: Path, tmp_path: Path) -> None:
    for name, damage in (("labels", 9), ("inputs", 77)):
        copy = tmp_path / name
        shutil.copytree(folder / "4", copy)
        file = copy / "test" / f"all__{name}.npy"
        values = np.load(file)
        values[0, 0] = damage
        np.save(file, values)
        status, _, err = hrm("evaluate", folder / "run", "--data", copy)
        assert status == 2
        assert f"all__{name}.npy" in err
    (copy / "test" / "all__labels.npy").write_bytes(b"\x93NUMPY")
    status, _, err = hrm("evaluate", folder / "run", "--data", copy)
    assert (status, err.count("\n")) == (2, 1)


def test_a_full_disk_is_one_sentence(
    hrm: Run, folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    import errno

    from hrm.training import metrics

    def full(*_: object) -> int:
        raise OSError(errno.ENOSPC, "No space left on device", "metrics.jsonl")

    monkeypatch.setattr(metrics.os, "write", full)
    out = tmp_path / "run"
    status, _, err = hrm("train", *SMALL, f"data.path={folder / '4'}", f"out={out}")
    assert status == 2
    assert "metrics.jsonl: no room left on the disk" in err


@pytest.mark.slow
def test_a_checkpoint_that_finds_no_room_leaves_nothing_half(folder: Path, tmp_path: Path) -> None:
    """The real thing: a process that may not write files of more than 20 kB."""
    import resource
    import signal
    import subprocess
    import sys

    def little_room() -> None:
        signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
        resource.setrlimit(resource.RLIMIT_FSIZE, (20_000, 20_000))

    out = tmp_path / "run"
    command = [sys.executable, "-m", "hrm", "train", *SMALL, "arch.hidden_size=64"]
    done = subprocess.run(
        [*command, f"data.path={folder / '4'}", f"out={out}"],
        preexec_fn=little_room,
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 2
    assert done.stderr.startswith("hrm: ")
    assert done.stderr.count("\n") == 1
    assert "cannot be written" in done.stderr
    assert [p.name for p in (out / "checkpoints").iterdir()] == [".lock"]


@pytest.mark.parametrize("experiment", ["sudoku_extreme", "sudoku_extreme_hrm"])
def test_the_published_recipe_starts_and_its_loss_falls(
    hrm: Run, tmp_path: Path, experiment: str
) -> None:
    from hrm.data.sudoku import SHAPES, generate, to_text

    puzzles, _ = generate(SHAPES[9], np.arange(20), seed=1, blanks=(40, 45))
    csv = tmp_path / "puzzles.csv"
    csv.write_text("question\n" + "".join(f"{to_text(p)}\n" for p in puzzles))
    data, out = tmp_path / "data", tmp_path / "run"
    recipe = ("--subsample", "12", "--augmentations", "9", "--test-count", "4", "--quiet")
    assert hrm("prepare", "sudoku", "--csv", csv, *recipe, "--out", data)[0] == 0
    assert len(np.load(data / "train" / "all__inputs.npy")) == 120
    small = ("arch.H_cycles=1", "arch.L_cycles=1", "global_batch_size=16", "lr_warmup_steps=0")
    command = (f"experiment={experiment}", "scale=cpu", *small, "log_every_steps=1", "lr=1e-3")
    limits = ("max_steps=20", "eval_every_steps=null", "eval_count=4", "plots=false")
    assert hrm("train", *command, *limits, f"data.path={data}", f"out={out}")[0] == 0
    rows = [json.loads(line) for line in (out / "metrics.jsonl").read_text().splitlines()]
    losses = [row["train/lm_loss"] for row in rows]
    assert sum(losses[-5:]) < 0.9 * sum(losses[:5])
