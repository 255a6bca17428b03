"""What is known of a data set: its tasks by name, how it was made, what its rows are."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from hrm.data.arc.augment import parse_name
from hrm.data.base import PuzzleSplit, SplitName, has_split, load_split, looked_at
from hrm.errors import UserError
from hrm.inference.voting import read_identifiers
from hrm.training.checkpoint import read_json


def splits_of(settings: Mapping[str, Any]) -> dict[SplitName, PuzzleSplit]:
    """The splits that a run took of its data, as it was limited; empty where they are not here.

    Args:
        settings: of the run: `data.path`, `max_train_groups`, `max_eval_groups`, `eval_split`.
    """
    root = Path((settings.get("data") or {}).get("path") or "")
    if root == Path():
        return {}
    limits: dict[SplitName, Any] = {"train": settings.get("max_train_groups")}
    limits[looked_at(root, settings.get("eval_split") or "val")] = settings.get("max_eval_groups")
    names: tuple[SplitName, ...] = ("train", "val", "test")
    try:
        return {
            name: load_split(root, name).limit_groups(limits.get(name))
            for name in names
            if has_split(root, name)
        }
    except UserError:
        return {}


def tasks_of(split: PuzzleSplit) -> set[str] | None:
    """The names of a split's tasks, whatever their forms; None where they have none."""
    try:
        names = read_identifiers(split.path.parent)
        firsts = split.puzzle_identifiers[split.group_indices[:-1]]
        return {parse_name(names[first])[0] for first in firsts}
    except (UserError, IndexError):
        return None


def splits_told(settings: Mapping[str, Any]) -> str:
    """How many tasks and rows a run trained on, looked at and left for the test."""
    found = splits_of(settings)
    if not found:
        return "the data set is not here, so how many tasks it had is not known"
    seen = "looked at while training"
    words = {"train": "trained on", "val": f"{seen} (val)", "test": "never looked at (test)"}
    if "val" not in found:
        words["test"] = f"{seen} (test; there is no val)"
    counts = [f"{split.groups} {words[name]}, {len(split)} rows" for name, split in found.items()]
    return f"Tasks: {'; '.join(counts)}. {_overlap(found)}"


def _overlap(found: Mapping[SplitName, PuzzleSplit]) -> str:
    """Whether a task is held out and trained on at once."""
    tasks = {name: tasks_of(split) for name, split in found.items()}
    train = tasks.get("train")
    held = [tasks[name] for name in found if name != "train"]
    if train is None or None in held:
        return "Whether a held-out task is trained on in another form is not known."
    both = train & set().union(*(some or set() for some in held))
    if both:
        return f"{len(both)} of the held-out tasks are trained on too: those figures are void."
    return "No held-out task is trained on, in any of its forms."


def rows_told(settings: Mapping[str, Any]) -> str:
    """What training and evaluation rows are: as the tasks have them, or other forms of them."""
    data = settings.get("data") or {}
    made = prepared(Path(data.get("path") or "")).get("settings", {})
    stored, evaluated = made.get("augmentations"), made.get("eval_augmentations")
    if not made:
        told = "Whether the data set stores other forms of a task is not known"
    elif stored:
        told = f"The data set stores up to {stored} other forms of each training task"
    else:
        told = "The data set stores the training tasks as they are, without other forms"
    if made:
        others = evaluated if evaluated is not None else stored
        told += f", and up to {others} other forms of each val and test task, which vote"
    augment = data.get("augment", "none")
    if augment == "none":
        return f"{told}. Nothing is augmented while training (data.augment=none)."
    return (
        f"{told}. While training every row that is drawn gets a random form "
        f"(data.augment={augment}); evaluations take the rows as they are stored."
    )


def data_told(root: Path) -> str:
    """Where a data set lies and how it was made, from its `prepare.json`."""
    settings = prepared(root).get("settings", {})
    words = ", ".join(f"{key} {value}" for key, value in settings.items() if value is not None)
    return f"{root} ({words})" if words else str(root)


def prepared(root: Path) -> dict[str, Any]:
    """A data set's `prepare.json`; empty if it has none."""
    record = root / "prepare.json"
    return read_json(record) if root != Path() and record.is_file() else {}
