"""Runs as processes: several at once, resumed, and failures that are kept and told."""

import json
import signal
import sys
import threading
import time
from collections.abc import Iterator, Sequence
from pathlib import Path

import pytest

from hrm.compare import runs
from hrm.compare.folder import read_jobs, read_run
from hrm.compare.progress import last_error, last_row, progress_line
from hrm.compare.runs import Job, Runner
from hrm.errors import UserError

FAKE = (sys.executable, str(Path(__file__).with_name("fake_hrm.py")))


def job(experiment: str, seed: int = 0, *more: str) -> Job:
    settings = (f"experiment={experiment}", f"seed={seed}", *more)
    return Job(f"{experiment}_seed{seed}", experiment, seed, settings, 100)


def runner(out: Path, **told: object) -> Runner:
    return Runner(out, 2, hrm=FAKE, splits=("train",), **told)  # type: ignore[arg-type]


def calls(out: Path) -> list[str]:
    return sorted((out / "runs" / "calls.txt").read_text().splitlines())


def test_jobs_run_and_their_figures_are_read(tmp_path: Path) -> None:
    outcomes = runner(tmp_path).run([job("O1"), job("O1", 1), job("L1")])
    assert [o.status for o in outcomes] == ["finished"] * 3
    found = {run.name: run for run in read_jobs(tmp_path)}
    assert found["O1_seed1"].mode == "original"
    assert found["L1_seed0"].mode == "online"
    assert found["O1_seed0"].figures["updates"] == 100
    assert found["O1_seed0"].figures["train/exact_accuracy"] == 0.5
    assert found["O1_seed0"].histogram == (1, 2)
    assert found["O1_seed0"].command == "hrm train experiment=O1 seed=0"


def test_what_is_finished_is_not_repeated(tmp_path: Path) -> None:
    runner(tmp_path).run([job("O1")])
    before = calls(tmp_path)
    assert before == ["evaluate O1_seed0 train", "train O1_seed0"]
    runner(tmp_path).run([job("O1")])
    assert calls(tmp_path) == before


def test_a_longer_run_goes_on_and_is_evaluated_again(tmp_path: Path) -> None:
    runner(tmp_path).run([job("O1")])
    runner(tmp_path).run([job("O1", 0, "max_steps=200")])
    assert calls(tmp_path).count("train O1_seed0") == 2
    assert calls(tmp_path).count("evaluate O1_seed0 train") == 2
    (run,) = read_jobs(tmp_path)
    assert run.figures["updates"] == 200
    assert len(run.curves["updates"]) == 20


def test_a_failure_stops_nothing_else_and_is_told(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("O2_DIES", "always")
    lines: list[str] = []
    jobs = [job("O2", 0), job("O1"), job("L1")]
    outcomes = runner(tmp_path, tell=lines.append).run(jobs)
    assert [o.status for o in outcomes] == ["failed", "finished", "finished"]
    error = "update 50: gradients of x not finite (loss nan) (exit status 1)"
    assert outcomes[0].error == error
    failed = next(run for run in read_jobs(tmp_path) if run.experiment == "O2")
    assert failed.status == "failed"
    assert failed.error == error
    assert failed.figures["updates"] == 50
    assert any("O2_seed0: failed" in line for line in lines)
    assert "evaluate O2_seed0 train" not in calls(tmp_path)


def test_a_run_that_died_goes_on_where_it_stopped(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("O2_DIES", "once")
    assert runner(tmp_path).run([job("O2", 0)])[0].status == "failed"
    assert runner(tmp_path).run([job("O2", 0)])[0].status == "finished"
    (run,) = read_jobs(tmp_path)
    assert run.status == "finished"
    assert run.error is None
    assert list(run.curves["updates"]) == list(range(10, 110, 10))


def test_a_run_that_died_before_it_wrote_anything_is_still_there(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("O2_DIES", "early")
    runner(tmp_path).run([job("O2", 4)])
    (run,) = read_jobs(tmp_path)
    assert (run.experiment, run.seed, run.status) == ("O2", 4, "failed")
    assert run.error == "data.path: nothing is there (exit status 2)"
    assert run.figures["exact"] is None


def test_a_killed_process_is_told_by_its_signal(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("O2_DIES", "killed")
    outcome = runner(tmp_path).run([job("O2", 0)])[0]
    assert outcome.error == "ended by SIGKILL; last line: nothing was said"


def test_an_evaluation_that_fails_leaves_the_run_finished(tmp_path: Path) -> None:
    outcome = Runner(tmp_path, hrm=FAKE, splits=("train", "val")).run([job("O1")])[0]
    assert outcome.status == "finished"
    assert outcome.error == "evaluation on val: there is no val (exit status 2)"


def test_an_interrupted_evaluation_is_made_up_for(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("NO_EVALUATION", "train")
    assert "interrupted" in str(runner(tmp_path).run([job("O1")])[0].error)
    monkeypatch.delenv("NO_EVALUATION")
    assert runner(tmp_path).run([job("O1")])[0].error is None
    assert calls(tmp_path).count("train O1_seed0") == 1
    (run,) = read_jobs(tmp_path)
    assert run.error is None
    assert run.figures["train/exact_accuracy"] == 0.5


def test_an_interrupt_leaves_noted_what_was_over_before(tmp_path: Path) -> None:
    (before,) = runner(tmp_path).run([job("O1")])
    stopping = runner(tmp_path)
    stopping._stopping = True
    assert stopping.run([job("O1")]) == [before]
    assert read_jobs(tmp_path)[0].status == "finished"
    # A longer run that has not begun is none that is over.
    stopping.run([job("O1", 0, "max_steps=200")])
    runner(tmp_path).run([job("O1", 0, "max_steps=200")])
    assert read_jobs(tmp_path)[0].figures["updates"] == 200


def test_the_newest_weights_are_evaluated_whatever_a_run_stands_for(tmp_path: Path) -> None:
    words: list[Sequence[str]] = []

    class Listening(Runner):
        def _call(self, name: str, said_in: str, asked: Sequence[str]) -> tuple[str | None, bytes]:
            words.append(asked)
            return super()._call(name, said_in, asked)

    Listening(tmp_path, hrm=FAKE, splits=("test",)).run([job("O1")])
    newest = tmp_path / "runs" / "O1_seed0" / "checkpoints" / "step_00000100"
    assert words[1][:2] == ["evaluate", str(newest)]


def test_what_made_a_run_is_kept_when_it_is_skipped(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def at(commit: str) -> dict[str, str | None]:
        made: dict[str, str | None] = {"commit": commit, "date": "1 May", "machine": "a"}
        monkeypatch.setattr(runs, "stamp", lambda: made)
        return made

    one = at("one")
    (first,) = runner(tmp_path).run([job("O1")])
    assert first.made == [one]
    two = at("two")
    (again,) = runner(tmp_path).run([job("O1")])
    assert again == first
    assert read_jobs(tmp_path)[0].made == (one,)
    (longer,) = runner(tmp_path).run([job("O1", 0, "max_steps=200")])
    assert longer.made == [one, two]
    # Of a folder that older code made.
    path = tmp_path / "jobs" / "O1_seed0.json"
    old = {k: v for k, v in json.loads(path.read_text()).items() if k != "made"}
    path.write_text(json.dumps(old))
    assert read_jobs(tmp_path)[0].made == ()
    (third,) = runner(tmp_path).run([job("O1", 0, "max_steps=300")])
    assert third.made == [dict.fromkeys(two), two]


def test_a_stamp_tells_commit_date_and_machine() -> None:
    found = runs.stamp()
    assert found.keys() == {"commit", "date", "machine"}
    assert "PyTorch" in str(found["machine"])


@pytest.fixture
def interruptible() -> Iterator[None]:
    """A process that was started in the background ignores the signal."""
    before = signal.signal(signal.SIGINT, signal.default_int_handler)
    yield
    signal.signal(signal.SIGINT, before)


@pytest.mark.usefixtures("interruptible")
def test_an_interrupt_ends_the_processes_and_is_noted(tmp_path: Path) -> None:
    program = "import signal, time\nsignal.signal(signal.SIGINT, signal.SIG_DFL)\ntime.sleep(60)"
    slow = Runner(tmp_path, 1, hrm=(sys.executable, "-c", program), splits=())

    def interrupt() -> None:
        while not slow._running:
            time.sleep(0.01)
        main = threading.main_thread().ident
        assert main is not None
        signal.pthread_kill(main, signal.SIGINT)

    thread = threading.Thread(target=interrupt)
    thread.start()
    with pytest.raises(KeyboardInterrupt):
        slow.run([job("O1"), job("L1")])
    thread.join()
    assert {run.status for run in read_jobs(tmp_path)} == {"unfinished"}
    assert not slow._running


def test_runs_elsewhere_are_evaluated_once(tmp_path: Path) -> None:
    runner(tmp_path / "a").run([job("O1")])
    where = {"mine": tmp_path / "a" / "runs" / "O1_seed0"}
    for _ in range(2):
        assert runner(tmp_path / "b").evaluate(where) == {"mine": None}
    assert calls(tmp_path / "a").count("evaluate O1_seed0 train") == 2
    assert (tmp_path / "b" / "evaluations" / "mine.train.json").is_file()


def test_a_run_is_read_from_its_folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("O2_DIES", "always")
    runner(tmp_path).run([job("O1"), job("O2", 0)])
    assert read_run(tmp_path / "runs" / "O1_seed0").status == "finished"
    assert read_run(tmp_path / "runs" / "O2_seed0").status == "unfinished"
    with pytest.raises(UserError, match=r"is not a run's folder"):
        read_run(tmp_path / "nowhere")


def test_the_last_error_is_the_last_line_that_is_no_warning() -> None:
    said = "hrm: no such thing\nhrm: warning: odd\n\n"
    assert last_error(said, 2) == "no such thing (exit status 2)"
    assert last_error("", -signal.SIGTERM) == "ended by SIGTERM; last line: nothing was said"
    assert last_error("Traceback\nValueError: x\n", 1) == "ValueError: x (exit status 1)"


def test_progress_tells_what_matters(tmp_path: Path) -> None:
    log = tmp_path / "metrics.jsonl"
    assert last_row(log) is None
    log.write_text(
        '{"step": 10}\n{"step": 20, "train/exact_accuracy": 0.5, "time/train_s": 60}\n{"st'
    )
    row = last_row(log)
    assert row is not None
    line = progress_line("O1_seed0", 100, row)
    assert line == "O1_seed0: update 20 of 100, exact 0.500, about 4 min left"
