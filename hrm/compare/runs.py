"""Runs of a comparison: several at once, each a process of its own, resumed where it stopped.

    OUT/runs/NAME/                  the run's folder, as `hrm train` makes it
    OUT/jobs/NAME.json              its settings, and how it went
    OUT/logs/NAME[.SPLIT].txt       what the commands said on standard error
    OUT/evaluations/NAME.SPLIT.json figures of its last weights on a split
    OUT/series.json                 what ran them, and why these (`hrm.compare.series`)

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
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import TypeVar

from hrm.compare.folder import (
    EVALUATED_SPLITS,
    Ended,
    Outcome,
    evaluation_due,
    evaluation_path,
    is_finished,
    newest_checkpoint,
    outcome_of,
    whose,
)
from hrm.compare.progress import last_error, last_row, progress_line
from hrm.compare.stamp import stamp
from hrm.files import write_text
from hrm.training.metrics import LOG_NAME

HRM = (sys.executable, "-m", "hrm")
GRACE_S = 20.0
"""How long an interrupted process may take to end."""

T = TypeVar("T")
U = TypeVar("U")
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
        folder = self.out / "runs" / job.name
        before = outcome_of(self.out, job.name)
        done = (
            before is not None
            and before.status == "finished"
            and before.settings == list(job.settings)
            and is_finished(folder)
        )
        if self._stopping:
            if before and done:
                return before  # What was over before is over still.
            return self._note(job, "unfinished", "interrupted", before.made if before else ())
        with self._lock:
            self._jobs[job.name] = job
        try:
            if before is None or not done:
                self.tell(f"{job.name}: {job.command}")
                before, error = self._train(job, before)
                if error is not None:
                    status: Ended = "unfinished" if self._stopping else "failed"
                    self.tell(f"{job.name}: {status}: {error}")
                    return self._keep(replace(before, status=status, error=error))
            errors = [e for s in self.splits if (e := self._evaluate(job.name, folder, s))]
        finally:
            with self._lock:
                del self._jobs[job.name]
        error = "; ".join(errors) or None
        self.tell(f"{job.name}: finished" + (f", but {error}" if errors else ""))
        return self._keep(replace(before, status="finished", error=error))

    def _train(self, job: Job, before: Outcome | None) -> tuple[Outcome, str | None]:
        """Train, or go on; what is noted of it, and the error if it failed.

        It is noted before it starts, so that what made it is known even if this process is killed.
        """
        folder, started = self.out / "runs" / job.name, time.monotonic()
        from_step = newest_checkpoint(folder)
        made, now = before.made if before else [], stamp()
        # Without a checkpoint the run begins anew, whatever made what lies there; with one, older
        # code may have made it, which noted nothing.
        earlier = [] if from_step is None else made or [dict.fromkeys(now)]
        noted = self._note(
            job, "unfinished", "has not ended", earlier if now in earlier[-1:] else [*earlier, now]
        )
        # A folder of which nothing was written yet is begun anew by the same words.
        words = [*job.settings, f"out={folder}", "resume=true", "progress=false"]
        error = self._call(job.name, f"{job.name}.txt", ["train", *words])[0]
        idle = from_step is not None and newest_checkpoint(folder) == from_step
        seconds = round(time.monotonic() - started, 1)
        return replace(noted, made=made if idle else noted.made, seconds=seconds), error

    def _evaluate(self, name: str, folder: Path, split: str) -> str | None:
        """Evaluate a run's last weights, unless they have been; the error if it failed.

        A split that its data do not have is none.
        """
        if not evaluation_due(self.out, name, folder, split):
            return None
        # By its path: a run's folder may stand for its best checkpoint, which is no last one.
        newest = newest_checkpoint(folder)
        words = ["evaluate", str(newest or folder), "--split", split, "--by-group", "--json"]
        error, printed = self._call(name, f"{name}.{split}.txt", words)
        try:
            figures = json.loads(printed) if error is None else {}
        except ValueError:
            error = "printed no JSON object"
        if error is not None:
            return f"evaluation on {split}: {error}"
        kept = figures | {"checkpoint": newest and newest.name, "run": whose(self.out, folder)}
        write_text(evaluation_path(self.out, name, split), json.dumps(kept))
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
        self, job: Job, status: Ended, error: str, made: Sequence[dict[str, str | None]] = ()
    ) -> Outcome:
        settings = list(job.settings)
        return self._keep(
            Outcome(job.name, job.experiment, job.seed, settings, status, error, 0.0, list(made))
        )

    def _keep(self, outcome: Outcome) -> Outcome:
        path = self.out / "jobs" / f"{outcome.name}.json"
        write_text(path, json.dumps(asdict(outcome), indent=2))
        return outcome

    def _tell_progress(self) -> None:
        with self._lock:
            jobs = list(self._jobs.values())
        for job in jobs:
            row = last_row(self.out / "runs" / job.name / LOG_NAME)
            if row is not None:
                self.tell(progress_line(job.name, job.updates, row))

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
