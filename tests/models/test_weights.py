"""Folders of weights: whole or not there; other architectures' weights are refused by tensor."""

import json
from pathlib import Path

import pytest
import torch
from safetensors import SafetensorError
from torch import nn

from hrm.errors import UserError
from hrm.models import weights
from hrm.models.weights import FORMAT, load_weights, read_config, read_json, read_tensors, save

CONFIG = {"format": FORMAT, "step": 3, "sizes": {}, "data_root": "", "experiment": {}}


def test_what_is_saved_comes_back(tmp_path: Path) -> None:
    tensors = {"a": torch.arange(6.0).reshape(2, 3).T, "b": torch.tensor(True)}
    save(tmp_path / "new", {"model": tensors}, {"config": CONFIG}, {"README.md": "größer\n"})
    read = read_tensors(tmp_path / "new" / "model.safetensors")
    assert read.keys() == tensors.keys()
    assert all(torch.equal(read[k], tensors[k]) for k in tensors)
    assert read_config(tmp_path / "new") == CONFIG
    assert (tmp_path / "new" / "README.md").read_text(encoding="utf-8") == "größer\n"
    assert [p.name for p in tmp_path.iterdir()] == ["new"]
    modes = {p.stat().st_mode for p in (tmp_path / "new").iterdir()}
    (tmp_path / "plain").write_text("")
    assert modes == {(tmp_path / "plain").stat().st_mode}


def test_shared_memory_is_saved_twice(tmp_path: Path) -> None:
    shared = torch.arange(3.0)
    save(tmp_path / "new", {"model": {"a": shared, "b": shared}}, {})
    read = read_tensors(tmp_path / "new" / "model.safetensors")
    assert torch.equal(read["a"], shared)
    assert torch.equal(read["b"], shared)


def test_a_write_that_fails_leaves_what_was_there(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    save(tmp_path / "run", {"model": {"a": torch.zeros(1)}}, {"config": CONFIG})

    def full(*_: object) -> None:
        raise SafetensorError("no space")

    monkeypatch.setattr(weights, "save_file", full)
    with pytest.raises(UserError, match=r"run: cannot be written \(no space\)"):
        save(tmp_path / "run", {"model": {"a": torch.ones(1)}}, {})
    assert [p.name for p in tmp_path.iterdir()] == ["run"]
    assert read_config(tmp_path / "run") == CONFIG


@pytest.mark.parametrize("key", CONFIG)
def test_a_configuration_without_a_key_is_none(tmp_path: Path, key: str) -> None:
    rest = {k: v for k, v in CONFIG.items() if k != key}
    (tmp_path / "config.json").write_text(json.dumps(rest))
    with pytest.raises(UserError, match=r"config\.json: is not the configuration of a checkpoint"):
        read_config(tmp_path)


@pytest.mark.parametrize("text", ["{", b"\xff\xfe"])
def test_what_is_no_json_is_named(tmp_path: Path, text: str | bytes) -> None:
    file = tmp_path / "state.json"
    file.write_bytes(text if isinstance(text, bytes) else text.encode())
    with pytest.raises(UserError, match=r"state\.json: is not JSON"):
        read_json(file)


def test_missing_files_are_named(tmp_path: Path) -> None:
    with pytest.raises(UserError, match=r"config\.json: missing"):
        read_config(tmp_path)
    with pytest.raises(UserError, match=r"model\.safetensors: missing"):
        read_tensors(tmp_path / "model.safetensors")


def test_half_a_file_of_tensors_is_refused(tmp_path: Path) -> None:
    save(tmp_path / "new", {"model": {"a": torch.zeros(99)}}, {})
    file = tmp_path / "new" / "model.safetensors"
    file.write_bytes(file.read_bytes()[:-8])
    with pytest.raises(UserError, match=r"model\.safetensors: is not a safetensors file"):
        read_tensors(file)


@pytest.mark.parametrize(
    ("change", "told"),
    [
        ({"bias": None}, "tensor bias is missing"),
        ({"scale": torch.ones(1)}, "tensor scale is unknown"),
        ({"weight": torch.ones(3, 2)}, "tensor weight has another shape"),
    ],
)
def test_other_weights_are_refused_and_change_nothing(
    change: dict[str, torch.Tensor | None], told: str
) -> None:
    layer = nn.Linear(3, 2)
    before = {k: v.clone() for k, v in layer.state_dict().items()}
    given = {k: torch.zeros_like(v) for k, v in before.items()} | change
    with pytest.raises(UserError, match=f"^x: belongs to another architecture: {told}$"):
        load_weights(layer, {k: v for k, v in given.items() if v is not None}, Path("x"))
    assert all(torch.equal(v, before[k]) for k, v in layer.state_dict().items())
