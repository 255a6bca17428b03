"""The commands told in a model card give back the settings that they are told for."""

import json
import shlex
from pathlib import Path

import pytest

from hrm.cli import main
from hrm.config import compose
from hrm.provenance import prepare_command, train_command

RUNS = [
    ["experiment=sudoku_4x4"],
    ["experiment=sudoku_6x6", "seed=3", "max_steps=2400"],
    ["experiment=sudoku_extreme", "scale=cpu", "max_steps=20"],
    ["experiment=sudoku_4x4", "arch=hrm_small", "arch.L_cycles=3"],
    ["experiment=sudoku_9x9", "data.path=data/nine", "data.prepare=null", "lr=1e-05"],
    ["experiment=sudoku_4x4", "+data.prepare.val_count=9", "step_curriculum=[[0,2],[9,4]]"],
    ["experiment=sudoku_extreme", "+data.prepare={size:9,clues:30}", "ema=false"],
    ["experiment=sudoku_6x6", "~data.prepare.blanks"],
    ["experiment=sudoku_6x6", r"data.path='a b/c=d,e\'s'", "device=cuda:1"],
]


@pytest.mark.parametrize("words", RUNS, ids=" ".join)
def test_the_command_gives_the_settings_in_no_more_words(words: list[str]) -> None:
    config = compose(words)
    command = train_command(config)
    assert command is not None
    hrm, train, *told = shlex.split(command)
    assert (hrm, train) == ("hrm", "train")
    assert compose(told) == config
    assert len(told) <= len(words)


def test_where_a_run_went_is_not_told() -> None:
    plain = ["experiment=sudoku_4x4", "seed=1"]
    config = compose([*plain, "out=runs/x", "resume=true", "plots=false", "+run_name=me"])
    assert train_command(config) == "hrm train experiment=sudoku_4x4 seed=1"


def test_an_experiment_of_ones_own_has_no_command() -> None:
    assert train_command(compose(["experiment=sudoku_4x4", "experiment_name=mine"])) is None


@pytest.mark.parametrize("blanks", ["6-8", "7"])
def test_the_command_of_a_data_set_makes_it_again(blanks: str, tmp_path: Path) -> None:
    small = ["--count", "6", "--val-count", "2", "--test-count", "2", "--quiet"]
    first, second = tmp_path / "first", tmp_path / "it's the second"
    made = ["prepare", "sudoku", "--size", "4", "--blanks", blanks, "--seed", "5", *small]
    assert main([*made, "--out", str(first)]) == 0
    settings = json.loads((first / "prepare.json").read_text())["settings"]
    assert f"--blanks {blanks} " in prepare_command(settings, "x")
    hrm, *words = shlex.split(prepare_command(settings, str(second)))
    assert hrm == "hrm"
    assert main([*words, "--quiet"]) == 0
    files = [p.relative_to(first) for p in first.rglob("*") if p.is_file()]
    assert len(files) > 15
    assert all((first / f).read_bytes() == (second / f).read_bytes() for f in files)
