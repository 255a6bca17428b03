"""Runs of a comparison: several at once, each a process of its own, resumed where it stopped.

    OUT/runs/NAME/                  the run's folder, as `hrm train` makes it
    OUT/jobs/NAME.json              its settings, and how it went
    OUT/logs/NAME[.SPLIT].txt       what the commands said on standard error
    OUT/evaluations/NAME.SPLIT.json figures of its last weights on a split

A run that finished with the same settings is not repeated; any other one goes on from its newest
checkpoint. A run that fails stops no other one.
"""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any, Literal, TypeVar

import yaml

from hrm.compare.figures import RunFigures, Status, figures_of_run
from hrm.errors import UserError
from hrm.files import write_text
from hrm.training.checkpoint import checkpoints, read_json
from hrm.training.metrics import read_metrics

HRM = (sys.executable, "-m", "hrm")
EVALUATED_SPLITS = ("train", "test")
"""Of the last weights after a run; `val`, as a rule, is looked at while training."""
GRACE_S = 20.0
"""How long an interrupted process may take to end."""

T = TypeVar("T")
U = TypeVar("U")
Ended = Literal["finished", "failed", "unfinished"]
Tell = Callable[[str], object]
"""Called with a line for people."""


@dataclass(frozen=True)
class Job:
    """One run that is to be done."""

    name: str
    experiment: str
    seed: int
    settings: tuple[str, ...]
    """Of `hrm train`, without `out` and `resume`."""
    updates: int | None = None
    """How many it will take, for the progress; None: not known."""

    @property
    def command(self) -> str:
        """What a person would type."""
        return " ".join(["hrm train", *self.settings])


@dataclass(frozen=True)
class Outcome:
    """How a job went; `OUT/jobs/NAME.json`."""

    name: str
    experiment: str
    seed: int
    settings: list[str]
    status: Ended
    error: str | None
    """The last line of what failed, the training or an evaluation after it."""
    seconds: float
    """Of this call's work on it."""


class Runner:
    """Does jobs in folder `out`, `workers` at a time.

    Args:
        hrm: the command before `train` or `evaluate`.
        splits: evaluated after each run.
        tell: gets a line when a job starts, ends, and from time to time between.
    """

    def __init__(
        self,
        out: Path,
        workers: int = 1,
        *,
        hrm: Sequence[str] = HRM,
        splits: Sequence[str] = EVALUATED_SPLITS,
        tell: Tell = lambda line: None,
        every_s: float = 60.0,
    ) -> None:
        self.out, self.workers, self.hrm, self.splits = out, workers, tuple(hrm), tuple(splits)
        self.tell, self.every_s = tell, every_s
        self._running: dict[str, subprocess.Popen[bytes]] = {}
        self._jobs: dict[str, Job] = {}
        self._lock = threading.Lock()
        self._stopping = False

    def run(self, jobs: Sequence[Job]) -> list[Outcome]:
        """All jobs, whatever becomes of the others; in their order.

        An interrupt ends the processes, notes the jobs as unfinished and is raised again.
        """
        return self._all(self._do, jobs)

    def evaluate(self, folders: Mapping[str, Path]) -> dict[str, str | None]:
        """Evaluate runs that lie elsewhere, by name; the errors (None: all went well)."""

        def one(item: tuple[str, Path]) -> str | None:
            errors = [e for split in self.splits if (e := self._evaluate(*item, split))]
            self.tell(f"{item[0]}: evaluated" + (f", but {errors[0]}" if errors else ""))
            return "; ".join(errors) or None

        return dict(zip(folders, self._all(one, list(folders.items())), strict=True))

    def _all(self, work: Callable[[T], U], items: Sequence[T]) -> list[U]:
        for folder in ("runs", "jobs", "logs", "evaluations"):
            (self.out / folder).mkdir(parents=True, exist_ok=True)
        with ThreadPoolExecutor(self.workers) as pool:
            futures = [pool.submit(work, item) for item in items]
            try:
                told = time.monotonic()
                while not all(future.done() for future in futures):
                    time.sleep(0.05)
                    if time.monotonic() - told >= self.every_s:
                        told = time.monotonic()
                        self._tell_progress()
            except BaseException:
                self._stop()
                raise
        return [future.result() for future in futures]

    def _do(self, job: Job) -> Outcome:
        started = time.monotonic()
        if self._stopping:
            return self._note(job, "unfinished", "interrupted", started)
        with self._lock:
            self._jobs[job.name] = job
        try:
            if not self._is_done(job):
                self.tell(f"{job.name}: {job.command}")
                error = self._train(job)
                if error is not None:
                    status: Ended = "unfinished" if self._stopping else "failed"
                    self.tell(f"{job.name}: {status}: {error}")
                    return self._note(job, status, error, started)
            folder = self.out / "runs" / job.name
            errors = [e for s in self.splits if (e := self._evaluate(job.name, folder, s))]
        finally:
            with self._lock:
                del self._jobs[job.name]
        outcome = self._note(job, "finished", "; ".join(errors) or None, started)
        self.tell(f"{job.name}: finished" + (f", but {outcome.error}" if errors else ""))
        return outcome

    def _is_done(self, job: Job) -> bool:
        record = self.out / "jobs" / f"{job.name}.json"
        if not record.is_file() or read_json(record).get("settings") != list(job.settings):
            return False
        return is_finished(self.out / "runs" / job.name)

    def _train(self, job: Job) -> str | None:
        folder = self.out / "runs" / job.name
        # A folder of which nothing was written yet is begun anew by the same words.
        words = [*job.settings, f"out={folder}", "resume=true", "progress=false"]
        return self._call(job.name, f"{job.name}.txt", ["train", *words])[0]

    def _evaluate(self, name: str, folder: Path, split: str) -> str | None:
        """Evaluate a run's last weights, unless they have been; the error if it failed.

        A split that its data do not have is none.
        """
        settings = read_settings(folder)
        root = Path((settings.get("data") or {}).get("path", ""))
        if root != Path() and root.is_dir() and not (root / split).is_dir():
            return None
        kept = self.out / "evaluations" / f"{name}.{split}.json"
        found = checkpoints(folder)
        newest = found[-1].name if found else None
        if kept.is_file() and read_json(kept).get("checkpoint") == newest:
            return None
        words = ["evaluate", str(folder), "--split", split, "--by-group", "--json"]
        if split == "train" and (limit := settings.get("max_train_groups")):
            words += ["--groups", str(limit)]
        error, printed = self._call(name, f"{name}.{split}.txt", words)
        try:
            figures = json.loads(printed) if error is None else {}
        except ValueError:
            error = "printed no JSON object"
        if error is not None:
            return f"evaluation on {split}: {error}"
        write_text(kept, json.dumps(figures | {"checkpoint": newest}))
        return None

    def _call(self, name: str, said_in: str, words: Sequence[str]) -> tuple[str | None, bytes]:
        """Run `hrm` with these words; its error (None: it went well) and standard output."""
        if self._stopping:
            return "interrupted", b""
        log = self.out / "logs" / said_in
        threads = str(max(1, (os.cpu_count() or 1) // self.workers))
        environment = {"OMP_NUM_THREADS": threads, **os.environ}
        with log.open("wb") as said:
            process = subprocess.Popen(
                [*self.hrm, *words],
                stdin=subprocess.DEVNULL,
                stdout=subprocess.PIPE,
                stderr=said,
                env=environment,
            )
            with self._lock:
                self._running[name] = process
            printed, _ = process.communicate()
        with self._lock:
            del self._running[name]
        if process.returncode == 0:
            return None, printed
        return last_error(log.read_text(errors="replace"), process.returncode), printed

    def _note(
        self,
        job: Job,
        status: Ended,
        error: str | None,
        started: float,
    ) -> Outcome:
        seconds = round(time.monotonic() - started, 1)
        outcome = Outcome(
            job.name, job.experiment, job.seed, list(job.settings), status, error, seconds
        )
        write_text(self.out / "jobs" / f"{job.name}.json", json.dumps(asdict(outcome), indent=2))
        return outcome

    def _tell_progress(self) -> None:
        with self._lock:
            jobs = list(self._jobs.values())
        for job in jobs:
            row = last_row(self.out / "runs" / job.name / "metrics.jsonl")
            if row is not None:
                self.tell(progress_line(job, row))

    def _stop(self) -> None:
        """End what runs; a terminal's interrupt has reached it already, other ones have not."""
        self._stopping = True
        deadline = time.monotonic() + GRACE_S
        with self._lock:
            processes = list(self._running.values())
        for process in processes:
            if process.poll() is None:
                process.send_signal(signal.SIGINT)
        for process in processes:
            try:
                process.wait(max(0.1, deadline - time.monotonic()))
            except subprocess.TimeoutExpired:
                process.kill()


def progress_line(job: Job, row: Mapping[str, Any]) -> str:
    """A running job in words, from the last row of its log."""
    of = f" of {job.updates}" if job.updates else ""
    words = [f"{job.name}: update {row['step']}{of}"]
    for key, gloss in (
        ("train/exact_accuracy", "exact"),
        ("train/steps", "steps"),
        ("train/q_halt_accuracy", "q_halt"),
        ("eval/exact_accuracy", "held out"),
    ):
        if row.get(key) is not None:
            words.append(f"{gloss} {row[key]:.3f}")
    seconds = row.get("time/train_s") or 0.0
    if job.updates and row["step"]:
        left = seconds * (job.updates / row["step"] - 1)
        words.append(f"about {left / 60:.0f} min left")
    return ", ".join(words)


def last_row(path: Path) -> dict[str, Any] | None:
    """The last whole row of a log that may be growing."""
    try:
        with path.open("rb") as file:
            file.seek(0, os.SEEK_END)
            file.seek(max(0, file.tell() - (1 << 18)))
            lines = file.read().split(b"\n")[:-1]
        row = json.loads(lines[-1])
    except (OSError, IndexError, ValueError):
        return None
    return row if isinstance(row, dict) and "step" in row else None


def last_error(said: str, status: int) -> str:
    """The line that tells why a command failed; by which signal it ended, if by one."""
    lines = [line.strip() for line in said.splitlines()]
    lines = [line for line in lines if line and not line.startswith("hrm: warning:")]
    last = lines[-1].removeprefix("hrm: ") if lines else "nothing was said"
    if status >= 0:
        return f"{last} (exit status {status})"
    try:
        name = signal.Signals(-status).name
    except ValueError:
        name = f"signal {-status}"
    return f"ended by {name}; last line: {last}"


def is_finished(folder: Path) -> bool:
    """Whether a run's newest checkpoint says that it is over."""
    found = checkpoints(folder)
    state = found[-1] / "state.json" if found else None
    return state is not None and state.is_file() and bool(read_json(state).get("finished"))


def read_jobs(out: Path) -> list[RunFigures]:
    """The figures of all runs in a comparison's folder, as they stand."""
    outcomes = [Outcome(**read_json(path)) for path in sorted((out / "jobs").glob("*.json"))]
    return [
        read_run(
            out / "runs" / outcome.name,
            name=outcome.name,
            experiment=outcome.experiment,
            seed=outcome.seed,
            status=outcome.status,
            error=outcome.error,
            command=" ".join(["hrm train", *outcome.settings]),
            evaluations=read_evaluations(out, outcome.name),
        )
        for outcome in outcomes
    ]


def read_evaluations(out: Path, name: str) -> dict[str, dict[str, Any]]:
    """What was kept of a run's evaluations, by split."""
    paths = {s: out / "evaluations" / f"{name}.{s}.json" for s in ("train", "val", "test")}
    return {split: read_json(path) for split, path in paths.items() if path.is_file()}


def read_settings(folder: Path) -> dict[str, Any]:
    """A run's settings; empty if it wrote none."""
    path = folder / "config.yaml"
    return (yaml.safe_load(path.read_text()) or {}) if path.is_file() else {}


def read_run(
    folder: Path,
    *,
    name: str | None = None,
    experiment: str | None = None,
    seed: int | None = None,
    status: Status | None = None,
    error: str | None = None,
    command: str | None = None,
    evaluations: Mapping[str, Mapping[str, Any]] | None = None,
) -> RunFigures:
    """The figures of a run's folder.

    Args:
        status: None: finished if the newest checkpoint says so.
        experiment, seed: for a run that failed before it wrote its settings.

    Raises:
        UserError: there is neither a run in it nor a status given.
    """
    config = read_settings(folder)
    if not config and status is None:
        raise UserError(f"{folder}: is not a run's folder; it holds no config.yaml")
    if experiment is not None:
        config["experiment_name"] = experiment
    if seed is not None:
        config["seed"] = seed
    if status is None:
        status = "finished" if is_finished(folder) else "unfinished"
    return figures_of_run(
        name or folder.name,
        config,
        read_metrics(folder / "metrics.jsonl"),
        status=status,
        error=error,
        command=command,
        folder=folder,
        evaluations=evaluations,
    )
