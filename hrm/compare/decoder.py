"""What a pretrained decoder has been trained on, and which tasks of a run are among it.

A score on a task that the decoder knows tells of the decoder too; on a held-out task it is void.
"""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from hrm.compare.data import data_told, splits_of, tasks_of
from hrm.compare.folder import read_settings
from hrm.training.checkpoint import read_json

RECORD = "pretrained_decoder.json"
"""In a run's folder: `hrm.models.pretrained_decoder.LoadedDecoder.record`."""
GLOSSES = {"train": "training", "val": "val", "test": "test"}


def decoder_told(run: Path, settings: Mapping[str, Any]) -> str:
    """Where the decoder of a run comes from, and how many of the run's tasks it was trained on.

    Args:
        run: its folder.
        settings: of the run.
    """
    path = settings.get("load_pretrained_decoder")
    if path is None:
        start = settings.get("init_from")
        return "not pretrained" if start is None else f"with the whole model, from {start}"
    theirs = _settings_of(run, Path(path))
    if theirs is None:
        return f"{path}: trained elsewhere; what it was trained on is not known"
    roots = _roots(theirs)
    told = f"{path}: experiment {theirs.get('experiment_name', 'unknown')}"
    if roots:
        told += f", trained on {'; '.join(data_told(root) for root in roots)}"
    seen = _trained_on(theirs, roots)
    mine = {name: tasks_of(split) for name, split in splits_of(settings).items()}
    if not seen or not mine or any(tasks is None for tasks in mine.values()):
        return f"{told}. Which of the tasks here it was trained on is not known"
    shares: dict[str, tuple[int, int]] = {
        name: (len(tasks & seen), len(tasks)) for name, tasks in mine.items() if tasks
    }
    counts = ", ".join(f"{a} of {b} {GLOSSES[name]} tasks" for name, (a, b) in shares.items())
    return f"{told}. Its training set holds {counts}. {_meaning(shares)}"


def _meaning(shares: Mapping[str, tuple[int, int]]) -> str:
    known, count = shares.get("train", (0, 0))
    some = "all of them" if known == count else f"{known} of {count}"
    told = (
        f"So training accuracy is on tasks that the decoder was trained on before ({some}): it "
        "does not show that such tasks can be learned from nothing."
        if known
        else "So what is right on training tasks was learned here."
    )
    void = [f"{GLOSSES[name]} figures" for name in ("val", "test") if shares.get(name, (0, 0))[0]]
    if void:
        return f"{told} It has seen held-out tasks too: {' and '.join(void)} are void."
    return f"{told} It has seen no held-out task."


def _settings_of(run: Path, path: Path) -> dict[str, Any] | None:
    """The settings of the decoder's training, as they were when it was loaded."""
    record = run / RECORD
    if record.is_file():
        found = read_json(record).get("settings")
        return dict(found) if isinstance(found, Mapping) else None
    folder = next((p for p in (path, *path.parents) if (p / "config.yaml").is_file()), None)
    return read_settings(folder) if folder else None


def _roots(settings: Mapping[str, Any]) -> list[Path]:
    """The data sets of a training: this project's `data.path`, TRM's `data_paths`, HRM's
    `data_path`."""
    data = settings.get("data")
    own = data.get("path") if isinstance(data, Mapping) else None
    several = [own] if own else settings.get("data_paths") or [settings.get("data_path")]
    return [Path(path) for path in several if isinstance(path, str) and path]


def _trained_on(settings: Mapping[str, Any], roots: list[Path]) -> set[str] | None:
    """The tasks of a training; None where one of its sets is not here or has no names."""
    seen: set[str] = set()
    for root in roots:
        split = splits_of({**settings, "data": {"path": str(root)}}).get("train")
        tasks = None if split is None else tasks_of(split)
        if tasks is None:
            return None
        seen |= tasks
    return seen
