"""What is told of data and decoder: which tasks were trained on, held out, and known before."""

import json
from pathlib import Path
from typing import Any, cast

import numpy as np

from hrm.compare.data import rows_told, splits_told
from hrm.compare.decoder import RECORD, decoder_told
from hrm.data.base import SplitArrays, SplitName, write_dataset


def data_set(root: Path, **splits: list[str]) -> dict[str, Any]:
    """A set whose splits hold these tasks, each as it is and in another form; a run's settings."""
    names, arrays = ["<blank>"], {}
    for split, tasks in splits.items():
        first, count = len(names), 2 * len(tasks)
        names += [f"{task}{form}" for task in tasks for form in ("", "|||t1|||0213456789")]
        arrays[cast(SplitName, split)] = SplitArrays(
            inputs=np.ones((count, 4), dtype=np.uint8),
            labels=np.ones((count, 4), dtype=np.uint8),
            puzzle_identifiers=np.arange(first, first + count, dtype=np.int32),
            puzzle_indices=np.arange(count + 1, dtype=np.int32),
            group_indices=np.arange(0, count + 1, 2, dtype=np.int32),
        )
    write_dataset(root, arrays, vocab_size=12, identifiers=names, grid=2)
    return {"data": {"path": str(root), "augment": "none"}}


def test_a_decoder_that_knows_tasks_is_told_of(tmp_path: Path) -> None:
    mine = data_set(tmp_path / "mine", train=["a", "b", "c"], val=["d"], test=["e", "f"])
    data_set(tmp_path / "theirs", train=["b", "a", "x", "e"])
    mine["load_pretrained_decoder"] = "decoders/one"
    run = tmp_path / "run"
    run.mkdir()

    def told(**theirs: Any) -> str:
        (run / RECORD).write_text(json.dumps({"settings": theirs or None}))
        return decoder_told(run, mine)

    theirs = {"experiment_name": "arc_decoder", "data": {"path": str(tmp_path / "theirs")}}
    text = told(**theirs)
    assert "2 of 3 training tasks, 0 of 1 val tasks, 1 of 2 test tasks" in text
    assert "training accuracy is on tasks that the decoder was trained on before (2 of 3)" in text
    assert "test figures are void" in text
    # As it was limited, and as this run is.
    limited = told(**theirs, max_train_groups=3)
    assert "1 val tasks, 0 of 2 test tasks" in limited
    assert limited.endswith("It has seen no held-out task.")
    mine["max_train_groups"] = 2
    assert "2 of 2 training tasks" in told(**theirs)
    assert "before (all of them)" in told(**theirs)
    # Published settings name their folders otherwise.
    assert "2 of 2 training" in told(data_paths=[str(tmp_path / "theirs")])
    assert "is not known" in told(data_paths=["data/elsewhere"])
    assert "is not known" in told()
    assert decoder_told(run, {**mine, "load_pretrained_decoder": None}) == "not pretrained"


def test_what_was_trained_on_and_held_out_is_told(tmp_path: Path) -> None:
    settings = data_set(tmp_path / "a", train=["a", "b", "c"], val=["d"], test=["e", "f"])
    told = splits_told({**settings, "max_train_groups": 2})
    assert told.startswith("Tasks: 2 trained on, 4 rows; 1 looked at while training (val), 2 rows;")
    assert told.endswith("No held-out task is trained on, in any of its forms.")
    mixed = data_set(tmp_path / "b", train=["a", "b"], test=["b"])
    assert "1 of the held-out tasks are trained on too" in splits_told(mixed)
    assert "looked at while training (test; there is no val)" in splits_told(mixed)
    assert "is not here" in splits_told({"data": {"path": str(tmp_path / "c")}})


def test_training_rows_are_told_as_they_are(tmp_path: Path) -> None:
    def told(augment: str, **made: Any) -> str:
        (tmp_path / "prepare.json").write_text(json.dumps({"settings": made}))
        return rows_told({"data": {"path": str(tmp_path), "augment": augment}})

    plain = told("none", augmentations=0, eval_augmentations=4)
    assert "the training tasks as they are" in plain
    assert "up to 4 other forms of each val and test task" in plain
    assert "Nothing is augmented while training" in plain
    assert "up to 8 other forms of each training task" in told("none", augmentations=8)
    assert "gets a random form (data.augment=arc)" in told("arc", augmentations=0)
