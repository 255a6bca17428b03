"""What a comparison's folder and a run's folder hold, read."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Literal

import yaml

from hrm.compare.figures import RunFigures, Status
from hrm.compare.reading import figures_of_run
from hrm.compare.work import work_of
from hrm.errors import UserError
from hrm.training.checkpoint import checkpoints, read_json
from hrm.training.metrics import LOG_NAME, read_metrics

Ended = Literal["finished", "failed", "unfinished"]
EVALUATED_SPLITS = ("train", "test")
"""Of the last weights after a run; `val`, as a rule, is looked at while training."""


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
    """Of the work on it: of the last call that trained or evaluated it."""
    made: list[dict[str, str | None]] = field(default_factory=list)
    """`commit`, `date` and `machine` of each stretch of its training; a run that was resumed under
    other ones has several, and one that was made before they were noted has none."""


def newest_checkpoint(run: Path) -> Path | None:
    """Of a run's folder; None: it has none yet."""
    found = checkpoints(run)
    return found[-1] if found else None


def is_finished(run: Path) -> bool:
    """Whether a run's newest checkpoint says that it is over."""
    newest = newest_checkpoint(run)
    state = newest / "state.json" if newest else None
    return state is not None and state.is_file() and bool(read_json(state).get("finished"))


def is_comparison(folder: Path) -> bool:
    """Whether `hrm compare` made the folder."""
    return (folder / "jobs").is_dir()


def outcome_of(out: Path, name: str) -> Outcome | None:
    """How a job went; None: it was never begun."""
    path = out / "jobs" / f"{name}.json"
    return Outcome(**read_json(path)) if path.is_file() else None


def outcomes_of(out: Path) -> list[Outcome]:
    """How all jobs of a comparison's folder went, by their names."""
    found = [outcome_of(out, path.stem) for path in sorted((out / "jobs").glob("*.json"))]
    return [outcome for outcome in found if outcome is not None]


def read_jobs(
    out: Path, evaluated_in: Path | None = None, errors: Mapping[str, str | None] | None = None
) -> list[RunFigures]:
    """The figures of all runs in a comparison's folder, as they stand.

    Args:
        evaluated_in: another comparison's folder with evaluations of them, which come first.
        errors: by name, in place of what was noted.
    """
    found, errors = [], errors or {}
    for outcome in outcomes_of(out):
        name, evaluations = outcome.name, read_evaluations(out, outcome.name)
        if evaluated_in is not None:
            evaluations |= read_evaluations(
                evaluated_in, name, whose(evaluated_in, out / "runs" / name)
            )
        found.append(
            read_run(
                out / "runs" / name,
                name=name,
                experiment=outcome.experiment,
                seed=outcome.seed,
                status=outcome.status,
                error=errors.get(name, outcome.error),
                command=" ".join(["hrm train", *outcome.settings]),
                evaluations=evaluations,
                made=outcome.made,
            )
        )
    return found


def evaluation_path(out: Path, name: str, split: str) -> Path:
    """Where a comparison keeps the evaluation of a run's last weights."""
    return out / "evaluations" / f"{name}.{split}.json"


def whose(out: Path, run: Path) -> str | None:
    """What is kept with an evaluation of a run that lies elsewhere, as another one may come with
    the same name; None: it is the comparison's own."""
    return None if run.parent.resolve() == (out / "runs").resolve() else str(run.resolve())


def evaluation_due(out: Path, name: str, run: Path, split: str) -> bool:
    """Whether the last weights of a run have not been evaluated on a split that its data have."""
    root = Path((read_settings(run).get("data") or {}).get("path", ""))
    if root != Path() and root.is_dir() and not (root / split).is_dir():
        return False
    path, newest = evaluation_path(out, name, split), newest_checkpoint(run)
    kept = read_json(path) if path.is_file() else {}
    same_weights = bool(kept) and kept.get("checkpoint") == (newest.name if newest else None)
    return not (same_weights and kept.get("run") == whose(out, run))


def read_evaluations(out: Path, name: str, run: str | None = None) -> dict[str, dict[str, Any]]:
    """What was kept of a run's evaluations, by split; `run` as `whose` says."""
    paths = {split: evaluation_path(out, name, split) for split in ("train", "val", "test")}
    found = {split: read_json(path) for split, path in paths.items() if path.is_file()}
    return {split: kept for split, kept in found.items() if kept.get("run") == run}


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
    made: Sequence[Mapping[str, Any]] = (),
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
        read_metrics(folder / LOG_NAME),
        status=status,
        error=error,
        command=command,
        folder=folder,
        evaluations=evaluations,
        made=made,
        work=work_of(config) if config.get("arch") else None,
    )
