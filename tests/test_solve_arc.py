"""`hrm solve RUN TASK` and `hrm evaluate RUN --submission` with models of ARC, from end to end."""

import json
from pathlib import Path
from typing import Any

import matplotlib.image
import numpy as np
import pytest
import torch

from hrm.data.arc import Form
from hrm.data.base import load_split
from hrm.inference.evaluate import evaluate_split
from hrm.models import TRM
from hrm.models.etrm import ETRM
from hrm.models.pretrained import save_pretrained
from tests.conftest import Run
from tests.inference.test_voting import SIDE, TASKS, UNKNOWN, made

SMALL: dict[str, Any] = {
    "hidden_size": 16,
    "num_heads": 2,
    "expansion": 1,
    "ffn_multiple": 8,
    "H_cycles": 1,
    "L_cycles": 1,
    "L_layers": 1,
    "halt_max_steps": 3,
    "seq_len": SIDE**2,
    "vocab_size": 12,
    "batch_size": 2,
}

DOCUMENTED = {
    *("train/loss", "train/lm_loss", "train/accuracy", "train/exact_accuracy"),
    *("train/q_halt_accuracy", "train/steps"),
    *("eval/accuracy", "eval/exact_accuracy", "eval/pass@1", "eval/pass@2"),
}
"""What the document of the encoder experiments tells its readers to watch."""


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Data sets `encoder/data` and `embedding/data`, models `reads` and `embeds`, a task's file."""
    root = tmp_path_factory.mktemp("solve_arc")
    for protocol in ("encoder", "embedding"):
        made(root / protocol, protocol=protocol)
    metadata = load_split(root / "embedding" / "data", "test").metadata
    names = {"num_puzzle_identifiers": metadata.num_puzzle_identifiers}
    torch.manual_seed(0)
    reads = ETRM(SMALL | names | {"demonstrations": 2})
    torch.nn.init.normal_(reads.inner.q_head.weight)  # It starts at 0, and says the same of all.
    save_pretrained(reads, root / "reads")
    save_pretrained(TRM(SMALL | names | {"puzzle_emb_ndim": 16}), root / "embeds")
    (root / "two.json").write_text(json.dumps(TASKS["two"]))
    return root


def test_a_file_with_pictures(hrm: Run, folder: Path, tmp_path: Path) -> None:
    status, text, _ = hrm(
        "solve", folder / "reads", folder / "two.json", "--out", tmp_path / "new", "--json"
    )
    assert status == 0
    solved = json.loads(text)
    assert solved["task"] == "two"
    assert solved["files"] == [str(tmp_path / "new" / f"two_test_{i}.png") for i in (1, 2)]
    assert all(matplotlib.image.imread(file).std() > 0 for file in solved["files"])
    assert len(solved["tests"]) == 2
    for test in solved["tests"]:
        assert test.keys() == {
            "answer",
            "valid",
            "steps",
            "policy_steps",
            "q_halt",
            "q_continue",
        }
        assert test["valid"] is False
        assert 1 <= test["steps"] <= 3
        assert len(test["q_halt"]) == len(test["q_continue"]) == test["steps"]


def test_a_task_in_the_terminal(hrm: Run, folder: Path) -> None:
    model, data = folder / "reads", folder / "encoder" / "data"
    status, text, _ = hrm("solve", model, "one", "--data", data, "--halting", "max_steps")
    assert status == 0
    assert "task one" in text
    assert text.count("would ") == 3
    most = ("--halting", "max_steps", "--max-steps", "2")
    assert hrm("solve", model, "one", "--data", data, *most)[1].count("would ") == 2
    assert "query" in text
    assert "answer: " in text


def test_the_demonstrations_decide(hrm: Run, folder: Path, tmp_path: Path) -> None:
    """The model reads them: others give other values, and the same the same."""
    task = json.loads((folder / "two.json").read_text())
    told = []
    for train in (task["train"], task["train"][:1], task["train"]):
        file = tmp_path / "task.json"
        file.write_text(json.dumps({"train": train, "test": [{"input": [[1, 2]]}]}))
        status, text, _ = hrm("solve", folder / "reads", file, "--json")
        assert status == 0
        told.append(json.loads(text)["tests"][0])
    assert told[0] == told[2]
    assert told[0]["q_halt"] != told[1]["q_halt"]
    assert told[0]["valid"] is None


@pytest.mark.parametrize("name", ["one", "two", "train_1"])
def test_a_name_of_each_split(hrm: Run, folder: Path, name: str) -> None:
    for model, kind in (("reads", "encoder"), ("embeds", "embedding")):
        data = folder / kind / "data"
        status, text, _ = hrm("solve", folder / model, name, "--data", data, "--json")
        assert status == 0
        assert json.loads(text)["task"] == name


def test_a_form_of_a_task(hrm: Run, folder: Path) -> None:
    data = folder / "embedding" / "data"
    names = json.loads((data / "identifiers.json").read_text())
    form = next(name for name in names if name.startswith("one|||"))
    status, text, _ = hrm("solve", folder / "embeds", form, "--data", data, "--json")
    assert status == 0
    assert json.loads(text)["task"] == form


def test_what_cannot_be_solved(hrm: Run, folder: Path, tmp_path: Path) -> None:
    data = folder / "embedding" / "data"
    large = tmp_path / "large.json"
    large.write_text(json.dumps({"train": [{"input": [[1] * 6], "output": [[1]]}], "test": [{"input": [[1]]}]}))  # fmt: skip  # noqa: E501
    other = Form(3).name("one")
    for arguments, expected in (
        (("reads", "one"), "give --data DIR"),
        (("reads", "three", "--data", data), "three: there is no task of this name in"),
        (("embeds", folder / "two.json"), "the model knows tasks by an embedding of each"),
        (("embeds", other, "--data", data), "the model knows tasks by an embedding of each"),
        (("reads", large), "large: has a grid of 6, but the model reads up to 5"),
        (("reads", tmp_path / "none.json"), "none.json"),
        (("reads", "1234"), "give --data DIR"),
    ):
        status, _, error = hrm("solve", folder / arguments[0], *arguments[1:])
        assert status == 2
        assert expected in error
    status, _, error = hrm("solve", "sudoku_6x6", folder / "two.json")
    assert status == 2
    assert "this model reads no tasks of ARC" in error


def test_an_embedding_of_a_file_by_its_name(hrm: Run, folder: Path) -> None:
    data = folder / "embedding" / "data"
    status, text, _ = hrm("solve", folder / "embeds", folder / "two.json", "--data", data, "--json")
    assert status == 0
    assert len(json.loads(text)["tests"]) == 2


@pytest.mark.parametrize(("model", "kind"), [("reads", "encoder"), ("embeds", "embedding")])
def test_figures_and_a_submission(
    hrm: Run, folder: Path, tmp_path: Path, model: str, kind: str
) -> None:
    file, data = tmp_path / "new" / "submission.json", folder / kind / "data"
    status, text, _ = hrm(
        "evaluate", folder / model, "--data", data, "--passes", 1, 5, "--submission", file, "--json"
    )
    assert status == 0
    figures = json.loads(text)
    assert figures["tasks"] == 2
    assert {k for k in figures if k.startswith("pass@")} == {
        "pass@1",
        "pass@5",
        "pass@1_whole_task",
        "pass@5_whole_task",
    }
    written = json.loads(file.read_text())
    assert {name: len(tests) for name, tests in written.items()} == {"one": 1, "two": 2}
    for tests in written.values():
        for test in tests:
            assert test.keys() == {"attempt_1", "attempt_2"}
            assert all(np.array(grid).ndim == 2 for grid in test.values())


def test_figures_in_the_terminal(hrm: Run, folder: Path) -> None:
    data = folder / "encoder" / "data"
    status, text, _ = hrm("evaluate", folder / "reads", "--data", data)
    assert status == 0
    assert "pass@1 " in text
    assert "pass@2, every test input of a task" in text
    status, text, _ = hrm("evaluate", folder / "reads", "--data", data, "--count", 1, "--json")
    assert json.loads(text)["tasks"] == 1


def test_votes_where_the_policy_halts(hrm: Run, folder: Path) -> None:
    data = folder / "encoder" / "data"
    status, text, _ = hrm(
        "evaluate", folder / "reads", "--data", data, "--halting", "adaptive", "--json"
    )
    assert status == 0
    assert json.loads(text)["tasks"] == 2


def test_settings_of_voting_that_are_wrong(hrm: Run, folder: Path, tmp_path: Path) -> None:
    data = folder / "encoder" / "data"
    for arguments, expected in (
        (("--passes", 0), "--passes: got 0, but it is at least 1"),
        (("--submission", tmp_path), "is a folder; give a file"),
        (("--submission", folder / "two.json" / "a.json"), "cannot be written"),
    ):
        status, _, error = hrm("evaluate", folder / "reads", "--data", data, *arguments)
        assert status == 2
        assert expected in error


def test_tasks_whose_answers_nobody_knows(hrm: Run, folder: Path, tmp_path: Path) -> None:
    data = made(tmp_path, evaluation={"unknown": UNKNOWN})
    file = tmp_path / "submission.json"
    status, text, _ = hrm(
        "evaluate", folder / "reads", "--data", data, "--submission", file, "--json"
    )
    assert status == 0
    figures = json.loads(text)
    assert figures["count"] == figures["tasks"] == 0
    assert figures["mean_steps"] == 3
    assert len(json.loads(file.read_text())["unknown"]) == 1
    status, text, _ = hrm("evaluate", folder / "reads", "--data", data, "--submission", file)
    assert status == 0
    status, _, error = hrm("evaluate", folder / "reads", "--data", data)
    assert status == 2
    assert "has a label" in error


def test_votes_of_a_model_that_is_always_right(
    folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Answers that are put in place of the model's come out as solved tasks."""
    from hrm.inference import evaluate

    split = load_split(folder / "encoder" / "data", "test")

    def right(model: Any, split: Any, batch_size: int, answers: Any) -> Any:
        labels, steps = split.take_labels(answers.rows), np.full(len(answers.rows), 2)
        told = np.maximum(np.stack([labels] * SMALL["halt_max_steps"]), 0)
        answers.put(slice(None), labels, told, np.zeros(told.shape[:2]), steps, steps)
        yield len(labels)

    monkeypatch.setattr(evaluate, "_to_the_end", right)
    metadata = split.metadata
    names = {"num_puzzle_identifiers": metadata.num_puzzle_identifiers}
    model = ETRM(SMALL | names | {"demonstrations": 2})
    figures = evaluate_split(model, split)
    assert figures["exact_accuracy"] == 1
    assert figures["pass@1"] == figures["pass@2_whole_task"] == 1
    assert figures["tasks"] == 2


def test_a_run_votes_while_it_trains(hrm: Run, folder: Path, tmp_path: Path) -> None:
    settings = SMALL.keys() - {"seq_len", "vocab_size", "batch_size"}
    arch = [f"arch.{key}={SMALL[key]}" for key in sorted(settings)]
    data, run = folder / "encoder" / "data", tmp_path / "run"
    status, _, error = hrm(
        "train",
        "arch=etrm",
        *arch,
        "arch.forward_dtype=float32",
        f"data.path={data}",
        "eval_split=test",
        "global_batch_size=2",
        "max_steps=2",
        "eval_every_steps=1",
        "compile=false",
        "plots=false",
        "progress=false",
        "device=cpu",
        f"out={run}",
    )
    assert status == 0, error
    rows = [json.loads(line) for line in (run / "metrics.jsonl").read_text().splitlines()]
    assert rows[-1].keys() >= DOCUMENTED
    assert [row["eval/tasks"] for row in rows] == [2, 2]
    assert all(0 <= row["eval/pass@1"] <= row["eval/pass@2"] <= 1 for row in rows)
    # The run knows its data, and so the names of its tasks.
    status, text, _ = hrm("solve", run, "two", "--json")
    assert status == 0
    assert len(json.loads(text)["tests"]) == 2
