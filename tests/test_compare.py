"""`hrm compare` from end to end, with runs that train nothing."""

import json
import sys
from functools import cache, partial
from pathlib import Path
from typing import Any

import pytest

import hrm.commands.compare as command
import hrm.compare.report as report
from hrm.compare.folder import read_run
from hrm.compare.runs import Runner
from hrm.config import ExperimentConfig, compose
from hrm.errors import UserError
from hrm.training.checkpoint import read_json
from tests.compare.fake_hrm import __file__ as fake
from tests.conftest import Run

SMALL = ("scale=cpu", "--seeds", "0", "--jobs", "2")


@cache
def _composed(*settings: str) -> ExperimentConfig:
    return compose(["experiment=arc_encoder", *settings])


def composed(words: list[str]) -> ExperimentConfig:
    """Composing takes longer than all else here, so all experiments have the same settings."""
    return _composed(*words[1:])


@pytest.fixture(autouse=True)
def _fake(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(command, "Runner", partial(Runner, hrm=(sys.executable, fake)))
    monkeypatch.setattr(command, "prepare", lambda configs: None)
    monkeypatch.setattr(command, "compose", composed)
    monkeypatch.setattr(report, "draw", lambda experiments, folder: [])


def trained(out: Path) -> list[str]:
    calls = (out / "runs" / "calls.txt").read_text().splitlines()
    return [call.removeprefix("train ") for call in calls if call.startswith("train ")]


def test_the_tree_is_followed_and_nothing_is_done_twice(hrm: Run, tmp_path: Path) -> None:
    status, out, err = hrm("compare", "--out", tmp_path, *SMALL, "--json")
    assert status == 0
    found = json.loads(out)
    # O ends at 0.95 and L at 0.5 in these runs, and all O are equal.
    assert list(found["experiments"]) == ["O1", "O2", "O3", "L1", "E1", "E2", "E3"]
    names = {run["name"] for run in found["runs"]}
    assert "E1_as_O1_seed0" in names
    assert set(trained(tmp_path)) == names
    assert "Which of O1 and L1 leads? O1" in err
    assert "hrm compare --out" in (tmp_path / "report.md").read_text()
    again = json.loads(hrm("compare", "--out", tmp_path, *SMALL, "--json")[1])
    assert len(trained(tmp_path)) == len(names)
    assert again["verdicts"] == found["verdicts"]
    # One more seed runs alone.
    hrm("compare", "--out", tmp_path, "scale=cpu", "--seeds", "0", "1")
    more = {name.replace("seed0", "seed1") for name in names}
    assert set(trained(tmp_path)[len(names) :]) == more


def test_a_run_that_fails_is_in_the_report(
    hrm: Run, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("O2_DIES", "always")
    words = ("--series", "O", "--no-evaluation")
    status, out, err = hrm("compare", "--out", tmp_path, "scale=cpu", *words)
    assert status == 1
    assert "O2_seed0: failed: update 50" in out
    assert err.endswith("hrm: failed: O2_seed0\n")
    text = (tmp_path / "report.md").read_text()
    assert "O2_seed0: failed: update 50: gradients of x not finite" in text
    assert "| O2 | original | 0 of 1 |" in text
    # It goes on when it is asked for again.
    monkeypatch.setenv("O2_DIES", "once")
    hrm("compare", "--out", tmp_path, "scale=cpu", *words)
    assert "failed" not in (tmp_path / "report.md").read_text().split("## How to read")[0]


def test_all_runs_both_branches(hrm: Run, tmp_path: Path) -> None:
    words = ("--all", "--no-evaluation", "--max-steps", "50", "--json", "--series", "O", "L")
    found = json.loads(hrm("compare", "--out", tmp_path, *words, "scale=cpu")[1])
    assert "scale=cpu" in found["runs"][0]["command"]
    assert set(found["experiments"]) == {"O1", "O2", "O3", "L1", "L2", "L3"}
    assert all(run["figures"]["updates"] == 50 for run in found["runs"])
    assert "max_steps=50" in found["runs"][0]["command"]


def test_finished_runs_are_read(hrm: Run, tmp_path: Path) -> None:
    words = ("scale=cpu", "--series", "O", "--no-evaluation")
    hrm("compare", "--out", tmp_path / "a", *words)
    runs = [tmp_path / "a" / "runs" / f"O{i}_seed0" for i in (1, 2)]
    found = json.loads(hrm("compare", *runs, "--out", tmp_path / "b", "--json")[1])
    assert [run["name"] for run in found["runs"]] == ["O1_seed0", "O2_seed0"]
    assert found["runs"][0]["figures"]["train/exact_accuracy"] == 0.5
    assert found["choices"] == []
    clash = (runs[0], tmp_path / "a", "--out", tmp_path / "d")
    assert "is O1 with seed 0, and so is O1_seed0" in hrm("compare", *clash)[2]
    whole = json.loads(hrm("compare", tmp_path / "a", "--out", tmp_path / "c", "--json")[1])
    assert len(whole["runs"]) == 3


def test_a_whole_folder_comes_with_its_choices_and_the_commands_that_ran_it(
    hrm: Run, tmp_path: Path
) -> None:
    a = tmp_path / "a"
    made = json.loads(hrm("compare", "--out", a, *SMALL, "--no-evaluation", "--json")[1])
    assert [choice["answer"] for choice in made["choices"]] == ["O1", "O1"]
    hrm("compare", "--out", a, "scale=cpu", "--seeds", "0", "1", "--no-evaluation")
    later = read_json(a / "series.json")["choices"]
    assert later != made["choices"]  # Of two seeds.

    def read(out: str) -> tuple[dict[str, Any], str]:
        words = ("compare", a, "--out", tmp_path / out, "--no-evaluation", "--json")
        return json.loads(hrm(*words)[1]), (tmp_path / out / "report.md").read_text()

    found, text = read("b")
    assert found["choices"] == later
    assert "Which of O1 and L1 leads? | O1 |" in text
    ran = [line for line in text.splitlines() if line.endswith("# which ran:")]
    assert [line.split(" --seeds ")[1].split(" --")[0] for line in ran] == ["0", "0 1"]
    (reading,) = [line for line in text.splitlines() if line.endswith("# which read:")]
    assert str(tmp_path / "b") in reading
    # A folder that older code made has them in its report, and one without a report nowhere.
    (a / "series.json").unlink()
    old = read_json(a / "comparison.json")
    assert len(old["about"].pop("ran")) == 2
    (a / "comparison.json").write_text(json.dumps(old))
    found, text = read("c")
    assert found["choices"] == later
    assert text.count("# which ran:") == 1
    (a / "comparison.json").unlink()
    found, text = read("d")
    assert found["choices"] == []
    assert f"What chose the experiments of {a} was not recorded." in text
    assert "# which ran:" not in text


@pytest.mark.parametrize(
    ("words", "sentence"),
    [
        (["--series", "X"], "--series X: unknown"),
        (["--jobs", "0"], "--jobs: got 0"),
        (["--seeds", "-1"], "--seeds: got -1"),
        (["nowhere"], "nowhere: is not a run's folder"),
        (["nowhere", "lr=1"], "nowhere: settings are for new runs"),
        (["lrr=1"], "lrr: unknown key"),
        (["seed=3"], "seed: is for --seeds"),
        (["experiment=O1"], "experiment: is for --series"),
        (["load_pretrained_decoder=nowhere"], "nowhere"),
    ],
)
def test_what_is_wrong_is_one_sentence(
    hrm: Run, tmp_path: Path, words: list[str], sentence: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    if "decoder" in words[0]:
        monkeypatch.undo()
        monkeypatch.setattr(command, "load_data", lambda config: None)
    status, out, err = hrm("compare", *words, "--out", tmp_path)
    assert status == 2
    assert out == ""
    assert sentence in err
    assert err.count("\n") == 1


def test_seeds_must_have_the_same_settings(hrm: Run, tmp_path: Path) -> None:
    words = ("scale=cpu", "--series", "O", "--no-evaluation")
    hrm("compare", "--out", tmp_path / "a", *words, "--seeds", "0", "1")
    other = tmp_path / "a" / "runs" / "O1_seed1" / "config.yaml"
    other.write_text(other.read_text().replace('"global_batch_size": 8', '"global_batch_size": 9'))
    status, _, err = hrm("compare", tmp_path / "a", "--out", tmp_path / "b")
    assert status == 2
    assert "O1_seed1: is O1 as O1_seed0 is, but differs in global_batch_size" in err


@pytest.mark.parametrize(("value", "alike"), [(0.0, True), (0.5, False)])
def test_a_run_older_than_a_setting_had_its_default(
    tmp_path: Path, value: float, alike: bool
) -> None:
    runs = []
    for seed, more in ((0, {}), (1, {"easy_first": value})):
        run = tmp_path / f"O1_seed{seed}"
        (run / "checkpoints").mkdir(parents=True)
        data = {"path": "data/a", **more}
        settings = {"experiment_name": "O1", "seed": seed, "data": data}
        (run / "config.yaml").write_text(json.dumps(settings))
        runs.append(read_run(run))
    if alike:
        command.refuse_mixed(runs)
    else:
        with pytest.raises(UserError, match="differs in data"):
            command.refuse_mixed(runs)


@pytest.mark.parametrize("key", ["max_steps", "load_pretrained_decoder", "data"])
def test_seeds_must_have_the_same_length_decoder_and_data(
    hrm: Run, tmp_path: Path, key: str
) -> None:
    for seed in (0, 1):
        run = tmp_path / f"O1_seed{seed}"
        (run / "checkpoints").mkdir(parents=True)
        settings: dict[str, Any] = {
            "experiment_name": "O1",
            "seed": seed,
            "data": {"path": "data/a"},
        }
        settings |= {"max_steps": 10, "load_pretrained_decoder": None}
        if seed:
            settings[key] = {"max_steps": 20, "data": {"path": "data/b"}}.get(key, "decoders/a")
        (run / "config.yaml").write_text(json.dumps(settings))
    status, _, err = hrm(
        "compare", tmp_path / "O1_seed0", tmp_path / "O1_seed1", "--out", tmp_path / "b"
    )
    assert status == 2
    assert f"O1_seed1: is O1 as O1_seed0 is, but differs in {key};" in err


def test_a_decoder_cannot_be_changed_in_a_folder_in_use(hrm: Run, tmp_path: Path) -> None:
    words = ("scale=cpu", "--series", "L", "--no-evaluation")
    for name in ("a", "b"):
        (tmp_path / name).mkdir()
    first = (*words, f"load_pretrained_decoder={tmp_path / 'a'}")
    assert hrm("compare", "--out", tmp_path / "c", *first)[0] == 0
    assert hrm("compare", "--out", tmp_path / "c", *first)[0] == 0
    other = (*words, f"load_pretrained_decoder={tmp_path / 'b'}")
    status, _, err = hrm("compare", "--out", tmp_path / "c", *other)
    assert status == 2
    assert f"began with {tmp_path / 'a'}, and now it is {tmp_path / 'b'}" in err
    assert "and now it is none; give the same" in hrm("compare", "--out", tmp_path / "c", *words)[2]


def test_what_a_comparison_could_not_evaluate_is_evaluated_when_it_is_read(
    hrm: Run, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("NO_EVALUATION", "train test")
    hrm("compare", "--out", tmp_path / "a", "scale=cpu", "--series", "L")
    assert "interrupted" in (tmp_path / "a" / "report.md").read_text()
    monkeypatch.delenv("NO_EVALUATION")
    out = hrm("compare", tmp_path / "a", "--out", tmp_path / "b", "--json")[1]
    runs = json.loads(out)["runs"]
    assert {run["error"] for run in runs} == {None}
    assert {run["figures"]["test/exact_accuracy"] for run in runs} == {0.5}


def test_encoders_of_a_folder_that_is_read_are_judged_in_their_own_mode(
    hrm: Run, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    online = {"dynamics": "online", "num_act_steps": 4}
    monkeypatch.setattr(command, "compose", lambda w: composed(w).model_copy(update=online))
    words = ("scale=cpu", "--series", "L", "E", "--no-evaluation")
    made = json.loads(hrm("compare", "--out", tmp_path / "a", *words, "--json")[1])
    read = json.loads(
        hrm("compare", tmp_path / "a", "--out", tmp_path / "b", "--no-evaluation", "--json")[1]
    )
    for found in (made, read):
        e1 = next(v for v in found["verdicts"] if v["key"] == "E1")
        assert "E1 0.5" in e1["figure"]
        assert ", L1 0.5" in e1["figure"]


def test_other_settings_need_another_folder(hrm: Run, tmp_path: Path) -> None:
    words = ("--series", "L", "--no-evaluation")
    assert hrm("compare", "--out", tmp_path, "scale=cpu", *words)[0] == 0
    status, _, err = hrm("compare", "--out", tmp_path, *words)
    assert status == 2
    assert "were made with other settings (scale=cpu)" in err
    # A longer run is no other setting.
    assert hrm("compare", "--out", tmp_path, "scale=cpu", *words, "--max-steps", "120")[0] == 0
