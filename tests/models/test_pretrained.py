"""Trained models by name: a folder, a shipped model, the hub (a stub of its library)."""

import inspect
import json
import sys
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
import torch
import yaml

from hrm.data.sudoku import Solver, decode, encode, parse_puzzle, to_text
from hrm.errors import UserError
from hrm.hub import is_hub_id, upload
from hrm.inference import solve
from hrm.models import (
    ACTModel,
    HRMACTv1,
    from_pretrained,
    load_pretrained,
    pretrained,
    save_pretrained,
    shipped,
)
from hrm.models.pretrained import find, parameter_count, portable
from tests.models.helpers import SMALL, awaken, small_batch, small_hrm, small_trm

ANSWERS = {
    "sudoku_6x6": (
        "6...1...4.5.315426...1...6..43.23...",
        "652314134652315426246135561243423561",
    ),
    "sudoku_9x9": (
        "87..61.9.3.5.89.1.........7.983.2.46.346....8....5...91.....25..57.48.6..6952...1",
        "872461395345789612916235487798312546534697128621854739183976254257148963469523871",
    ),
}
"""For each shipped model a puzzle of the kind it was trained on, with its one solution."""


def outputs(model: ACTModel) -> list[torch.Tensor]:
    """Two steps on the same rows, in evaluation mode."""
    model.eval()
    batch = small_batch()
    carry = model.initial_carry(batch, seed=0)
    carry, first = model(carry, batch)
    _, second = model(carry, batch)
    return [*first.values(), *second.values()]


@pytest.fixture
def hub(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> SimpleNamespace:
    """A hub in place of huggingface_hub: its repositories are folders of `root`."""
    root = tmp_path / "hub"
    asked: list[tuple[str, Any]] = []

    def snapshot_download(name: str, allow_patterns: list[str]) -> str:
        asked.append((name, allow_patterns))
        if not (root / name).is_dir():
            raise LookupError(f"no repository {name}\n\nmore about it")
        return str(root / name)

    stub = SimpleNamespace(snapshot_download=snapshot_download, root=root, asked=asked)
    monkeypatch.setitem(sys.modules, "huggingface_hub", stub)  # type: ignore[arg-type]
    return stub


@pytest.mark.parametrize(
    "model",
    [
        small_hrm(puzzle_emb_ndim=20, num_puzzle_identifiers=7),
        small_trm(),
        small_trm(mlp_t=True, pos_encodings="none", halting="q_learning"),
    ],
    ids=["hrm with puzzles", "trm", "trm_mlp"],
)
def test_a_saved_model_comes_back_and_thinks_the_same(model: ACTModel, tmp_path: Path) -> None:
    awaken(model)
    folder = save_pretrained(model, tmp_path / "mine")
    for again in (from_pretrained(folder), load_pretrained(str(folder))):
        assert type(again) is type(model)
        assert again.config == model.config
        assert not again.training
        pairs = zip(outputs(again), outputs(model), strict=True)
        assert all(torch.equal(mine, theirs) for mine, theirs in pairs)


def test_the_folder_is_complete_and_appears_at_once(tmp_path: Path) -> None:
    save_pretrained(small_hrm(), tmp_path / "a" / "mine", metrics={"accuracy": 0.5})
    names = {"model.safetensors", "config.json", "README.md", "metrics.json"}
    assert {p.name for p in (tmp_path / "a" / "mine").iterdir()} == names
    assert [p.name for p in (tmp_path / "a").iterdir()] == ["mine"]
    assert "mine" in (tmp_path / "a" / "mine" / "README.md").read_text()


def test_a_taken_folder_is_refused_and_an_empty_one_is_not(tmp_path: Path) -> None:
    model, folder = small_hrm(), tmp_path / "mine"
    folder.mkdir()
    save_pretrained(model, folder)
    before = {p.name: p.read_bytes() for p in folder.iterdir()}
    (tmp_path / "file").write_text("mine")
    for taken in (folder, tmp_path / "file"):
        with pytest.raises(UserError, match="is taken; give a new or empty folder"):
            save_pretrained(small_hrm(), taken)
    assert {p.name: p.read_bytes() for p in folder.iterdir()} == before
    assert (tmp_path / "file").read_text() == "mine"


def test_no_folder_of_this_machine_is_written(tmp_path: Path) -> None:
    experiment = {"data": {"path": "/home/me/six", "files": ["C:\\me\\a.csv", "b/c.csv"]}, "lr": 1}
    folder = save_pretrained(
        small_hrm(), tmp_path / "x", experiment=experiment, data_root="/home/me/six", step=7
    )
    saved = json.loads((folder / "config.json").read_text())
    assert saved["experiment"]["data"] == {"path": "six", "files": ["a.csv", "b/c.csv"]}
    assert (saved["data_root"], saved["step"], saved["experiment"]["lr"]) == ("six", 7, 1)


@pytest.mark.parametrize("value", ["data/six", "../six", "six", "1/2", "", None, 3, True])
def test_what_is_no_absolute_path_stays(value: object) -> None:
    assert portable(value) == value


def test_parameters_are_those_of_the_puzzles_too() -> None:
    plain, puzzles = small_hrm(), small_hrm(puzzle_emb_ndim=16, num_puzzle_identifiers=7)
    assert parameter_count(puzzles) - parameter_count(plain) == 7 * 16


def test_a_folder_here_goes_before_a_shipped_name_and_that_before_the_hub(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, hub: SimpleNamespace
) -> None:
    monkeypatch.setattr(pretrained, "SHIPPED", tmp_path / "shipped")
    monkeypatch.chdir(tmp_path)
    name = "me/six"
    in_hub = save_pretrained(small_hrm(halt_max_steps=5), hub.root / name)
    assert find(name) == in_hub
    in_package = save_pretrained(small_hrm(halt_max_steps=6), tmp_path / "shipped" / "six")
    assert find("six") == in_package
    assert from_pretrained("six").config.halt_max_steps == 6
    here = save_pretrained(small_hrm(halt_max_steps=7), tmp_path / "six")
    assert from_pretrained("six").config.halt_max_steps == 7
    assert from_pretrained(here).config.halt_max_steps == 7
    assert from_pretrained(name).config.halt_max_steps == 5
    save_pretrained(small_hrm(halt_max_steps=8), tmp_path / name)
    assert from_pretrained(name).config.halt_max_steps == 8


def test_only_a_models_own_files_come_from_the_hub(tmp_path: Path, hub: SimpleNamespace) -> None:
    model = small_hrm()
    model.calibration = {"stopper": "lead", "threshold": 0.5}
    save_pretrained(model, hub.root / "me" / "six", metrics={})
    assert from_pretrained("me/six").halting.lead == 0.5
    [(name, patterns)] = hub.asked
    assert name == "me/six"
    assert set(patterns) == {p.name for p in (hub.root / "me" / "six").iterdir()}


def test_an_unknown_name_is_one_sentence_with_the_nearest(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(pretrained, "SHIPPED", tmp_path)
    with pytest.raises(UserError, match=r"no shipped model \(there are none\)$"):
        from_pretrained("sudoku_6x7")
    for name in ("sudoku_6x6", "maze"):
        save_pretrained(small_hrm(), tmp_path / name)
    with pytest.raises(UserError, match=r"maze, sudoku_6x6\); did you mean 'sudoku_6x6'\?$"):
        from_pretrained("sudoku_6x7")


def test_the_hub_that_has_no_such_model_is_one_sentence(hub: SimpleNamespace) -> None:
    with pytest.raises(UserError, match=r"^me/x: no such folder, .*no repository me/x\)$"):
        from_pretrained("me/x")


def test_a_name_in_a_folder_here_does_not_ask_the_hub(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, hub: SimpleNamespace
) -> None:
    (tmp_path / "runs").mkdir()
    monkeypatch.chdir(tmp_path)
    for name in ("runs/x", "./x", "a/b/c", "../x", str(tmp_path / "x")):
        with pytest.raises(UserError, match="no such folder or file"):
            from_pretrained(name)
    assert hub.asked == []


def test_without_the_extra_the_sentence_says_how_to_get_it(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "huggingface_hub", None)
    with pytest.raises(UserError, match=r"^me/x: no such folder; .*pip install 'hrm\[hub\]'$"):
        from_pretrained("me/x")


@pytest.mark.parametrize("name", ["x", "a/b/c", "/a", "a/", "a b/c", "../a", "", "a/b\n", "ä/b"])
def test_what_is_no_hub_id(name: str) -> None:
    assert not is_hub_id(name)
    assert is_hub_id("me/sudoku_6x6-v1.0")


def test_the_real_library_has_what_is_called(monkeypatch: pytest.MonkeyPatch) -> None:
    """Where it is installed: the stubs' signatures are its own, and offline is one sentence."""
    real = pytest.importorskip("huggingface_hub")
    inspect.signature(real.snapshot_download).bind("me/x", allow_patterns=["config.json"])
    inspect.signature(real.HfApi.create_repo).bind(None, "me/x", exist_ok=True)
    inspect.signature(real.HfApi.upload_folder).bind(
        None, repo_id="me/x", folder_path="x", commit_message="x"
    )
    monkeypatch.setattr(real.constants, "HF_HUB_OFFLINE", True)
    with pytest.raises(UserError, match=r"^me/x: no such folder, and the Hugging Face hub"):
        from_pretrained("me/x")
    with pytest.raises(UserError, match=r"^me/x: the Hugging Face hub does not take"):
        upload(Path("x"), "me/x")


def published(model: HRMACTv1, folder: Path) -> Path:
    """The model as published code saves it."""
    folder.mkdir()
    state = {f"_orig_mod.model.{k}": v for k, v in model.state_dict().items()}
    torch.save(state, folder / "step_40")
    keys = ("H_cycles", "L_cycles", "H_layers", "L_layers", "hidden_size", "num_heads")
    keys += ("ffn_multiple", "halt_max_steps", "forward_dtype")
    arch = {key: getattr(model.config, key) for key in keys}
    settings = {"arch": {"name": "hrm.hrm_act_v1@HierarchicalReasoningModel_ACTV1", **arch}}
    (folder / "all_config.yaml").write_text(yaml.safe_dump(settings))
    return folder / "step_40"


def test_a_published_file_loads_too(tmp_path: Path) -> None:
    model = small_hrm()
    awaken(model)
    file = published(model, tmp_path / "theirs")
    again = load_pretrained(file, seq_len=SMALL["seq_len"])
    pairs = zip(outputs(again), outputs(model), strict=True)
    assert all(torch.equal(mine, theirs) for mine, theirs in pairs)
    with pytest.raises(UserError, match="seq_len"):
        from_pretrained(file)


def test_a_folder_takes_no_settings(tmp_path: Path) -> None:
    folder = save_pretrained(small_hrm(), tmp_path / "x")
    for given in ({"seq_len": 6}, {"config": {}}):
        with pytest.raises(UserError, match=r"has its own config\.json"):
            load_pretrained(folder, **given)


def test_a_folder_without_weights_is_no_model(tmp_path: Path) -> None:
    with pytest.raises(UserError, match=r"holds no config\.json with model\.safetensors"):
        from_pretrained(tmp_path)


@pytest.mark.parametrize(
    ("change", "told"),
    [
        ({"name": "hrn"}, r"arch\.name: got 'hrn', may be one of .*did you mean 'hrm'\?"),
        ({"H_cycles": 0}, r"arch\.H_cycles: "),
        ({"L_cycle": 1}, r"arch\.L_cycle: "),
    ],
)
def test_a_configuration_that_is_wrong_is_named(
    tmp_path: Path, change: dict[str, Any], told: str
) -> None:
    file = save_pretrained(small_hrm(), tmp_path / "x") / "config.json"
    saved = json.loads(file.read_text())
    saved["experiment"]["arch"] |= change
    file.write_text(json.dumps(saved))
    with pytest.raises(UserError, match=rf"config\.json: {told}"):
        from_pretrained(file.parent)


@pytest.mark.parametrize("name", ANSWERS)
def test_each_of_the_puzzles_has_that_one_answer(name: str) -> None:
    puzzle, answer = ANSWERS[name]
    shape, digits = parse_puzzle(puzzle)
    found = Solver(shape, compiled=False).solve(digits)
    assert found.count == 1
    assert found.solution is not None
    assert to_text(found.solution) == answer


def test_the_shipped_models_solve_a_puzzle() -> None:
    assert shipped(), "no model is shipped: hrm export RUN --out hrm/pretrained/NAME"
    assert set(shipped()) <= ANSWERS.keys()
    for name in shipped():
        puzzle, answer = ANSWERS[name]
        _, digits = parse_puzzle(puzzle)
        batch = {
            "inputs": torch.from_numpy(encode(digits)).int()[None],
            "puzzle_identifiers": torch.zeros(1, dtype=torch.int32),
        }
        done = solve(from_pretrained(name), batch, "adaptive")
        assert to_text(decode(done.predictions[-1, 0].numpy())) == answer, name
