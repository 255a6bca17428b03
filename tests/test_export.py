"""`hrm export`, and the other commands on what it writes, on shipped names and published files."""

import json
import re
import shlex
import shutil
import sys
from pathlib import Path
from types import SimpleNamespace

import pytest
import torch
import yaml
from safetensors import SafetensorError

from hrm.cli import main
from hrm.config import compose
from hrm.models import load_pretrained, pretrained, weights
from hrm.models.weights import read_tensors
from hrm.training.checkpoint import find_checkpoint, load_run
from tests.conftest import Run
from tests.training.conftest import SMALL

PUZZLE = "1.....2..3.....4"
NAMES = {"model.safetensors", "config.json", "README.md", "metrics.json"}


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """4x4 puzzles in `four`, a run on them in `run`, its export in `six`."""
    root = tmp_path_factory.mktemp("export")
    small = ["--count", "12", "--val-count", "4", "--test-count", "5", "--quiet"]
    assert main(["prepare", "sudoku", "--size", "4", *small, "--out", str(root / "four")]) == 0
    data = [f"data.path={root / 'four'}", "seed=3"]
    assert main(["train", *SMALL, *data, f"out={root / 'run'}"]) == 0
    assert main(["export", str(root / "run"), "--out", str(root / "six")]) == 0
    return root


@pytest.fixture
def hub(monkeypatch: pytest.MonkeyPatch) -> SimpleNamespace:
    """In place of huggingface_hub: what was made and put there."""
    stub = SimpleNamespace(made=[], put={}, error=None)

    class HfApi:
        def create_repo(self, name: str, exist_ok: bool) -> str:
            assert exist_ok
            if stub.error:
                raise stub.error
            stub.made.append(name)
            return f"hub://{name}"

        def upload_folder(self, repo_id: str, folder_path: str, commit_message: str) -> None:
            assert repo_id == stub.made[-1]
            assert commit_message
            stub.put |= {p.name: p.read_bytes() for p in Path(folder_path).iterdir()}

    stub.HfApi = HfApi
    monkeypatch.setitem(sys.modules, "huggingface_hub", stub)  # type: ignore[arg-type]
    return stub


def contents(root: Path) -> dict[str, bytes]:
    return {str(p.relative_to(root)): p.read_bytes() for p in root.rglob("*") if p.is_file()}


def card(folder: Path) -> str:
    return (folder / "six" / "README.md").read_text()


def test_an_export_has_the_averaged_weights_and_no_path_of_this_machine(folder: Path) -> None:
    out, run = folder / "six", find_checkpoint(folder / "run")
    assert {p.name for p in out.iterdir()} == NAMES
    averaged, mine = read_tensors(run / "ema.safetensors"), load_pretrained(out).state_dict()
    assert all(torch.equal(mine[k], averaged[k]) for k in averaged)
    for file in out.iterdir():
        assert str(folder).encode() not in file.read_bytes(), file.name


def test_the_other_commands_say_the_same_of_an_export(hrm: Run, folder: Path) -> None:
    for rest in (["--json"], ["--halting", "adaptive"]):
        told = [
            hrm("evaluate", folder / n, "--data", folder / "four", *rest) for n in ("run", "six")
        ]
        assert told[0] == told[1]
        assert told[0][0] == 0
    for rest in ([], ["--json"], ["--halting", "max_steps"]):
        told = [hrm("solve", folder / n, PUZZLE, *rest) for n in ("run", "six")]
        assert told[0] == told[1]
        assert told[0][0] == 0


def test_metrics_are_those_of_an_evaluation(hrm: Run, folder: Path) -> None:
    figures = json.loads(hrm("evaluate", folder / "run", "--json")[1])
    record = json.loads((folder / "six" / "metrics.json").read_text())
    assert record["test"] == figures | {"data": "four"}
    assert record["training"]["updates"] == 20
    assert record["training"]["seed"] == 3
    assert record["training"]["seconds"] > 0
    state = load_pretrained(folder / "six").parameters()
    assert record["parameters"] == sum(p.numel() for p in state)


def test_the_commands_of_the_card_make_the_run_again(folder: Path) -> None:
    prepare, train = re.findall(r"^(hrm (?:prepare|train) .*)$", card(folder), re.MULTILINE)
    assert "--count 12" in prepare
    assert prepare.endswith("--out four")
    told, config = compose(shlex.split(train)[2:]), load_run(folder / "run").config
    assert config is not None
    was = config.model_dump() | {"out": None, "plots": True, "progress": True}
    assert told.model_dump() == was | {"data": was["data"] | {"path": "four"}}
    assert load_run(folder / "six").config == told.model_copy(
        update={"plots": False, "progress": False}
    )


def test_the_card_starts_with_what_the_hub_reads_and_tells_the_figures(folder: Path) -> None:
    _, front, text = card(folder).split("---\n", 2)
    values = yaml.safe_load(front)
    assert (values["library_name"], values["license"]) == ("hrm", "mit")
    assert {"trm", "sudoku"} <= set(values["tags"])
    test = json.loads((folder / "six" / "metrics.json").read_text())["test"]
    for part in (
        "# six",
        "4x4 Sudoku",
        "TRM-MLP",
        "5 rows of the `test` split of `four`",
        f"the last step (4) | {test['exact_accuracy']:.4f}",
        f"the policy halts | {test['policy_exact_accuracy']:.4f}",
        f"{test['policy_mean_steps']:.2f} of 4",
        "12 for training (4 to 10 clues)",
        "4x4 boards only",
    ):
        assert part in text


def test_the_card_s_examples_run(
    hrm: Run, folder: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.chdir(folder)
    [solve] = re.findall(r"^hrm (solve .*)$", card(folder), re.MULTILINE)
    status, out, _ = hrm(*shlex.split(solve), "--json")
    assert status == 0
    solved = json.loads(out)
    [code] = re.findall(r"```python\n(.*?)```", card(folder), re.DOTALL)
    exec(compile(code, "card", "exec"), {})
    assert capsys.readouterr().out == f"{solved['answer']} after {solved['steps']} steps\n"


def test_the_folder_is_named_after_the_run(
    hrm: Run, folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    status, out, _ = hrm("export", find_checkpoint(folder / "run"), "--json")
    told = json.loads(out)
    assert status == 0
    assert told["out"] == "exports/run"
    assert told["pushed"] is None
    assert told["test"]["count"] == 5
    assert {p.name for p in (tmp_path / "exports" / "run").iterdir()} == NAMES


def test_a_shipped_name_is_a_run(
    hrm: Run, folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(pretrained, "SHIPPED", folder)
    monkeypatch.chdir(tmp_path)
    by_name, by_path = hrm("solve", "six", PUZZLE), hrm("solve", folder / "six", PUZZLE)
    assert by_name == by_path
    assert by_name[0] == 0


def test_push_puts_the_folder_on_the_hub(
    hrm: Run, folder: Path, tmp_path: Path, hub: SimpleNamespace
) -> None:
    out = tmp_path / "x"
    status, text, _ = hrm("export", folder / "run", "--out", out, "--push", "me/six", "--json")
    assert status == 0
    assert json.loads(text)["pushed"] == "hub://me/six"
    assert hub.put == contents(out)
    assert hub.put.keys() == NAMES
    assert "hrm solve me/six" in (out / "README.md").read_text()
    hub.put.clear()
    status, text, _ = hrm("export", folder / "six", "--push", "me/other")
    assert (status, hub.made) == (0, ["me/six", "me/other"])
    assert hub.put == contents(folder / "six")
    assert "hub://me/other" in text


def test_a_hub_that_refuses_is_one_sentence_and_the_folder_stays(
    hrm: Run, folder: Path, tmp_path: Path, hub: SimpleNamespace
) -> None:
    hub.error = PermissionError("401 Client Error\n\nInvalid token")
    status, out, err = hrm("export", folder / "run", "--out", tmp_path / "x", "--push", "me/six")
    assert (status, out) == (2, "")
    assert err.startswith("hrm: me/six: the Hugging Face hub does not take")
    assert "401 Client Error" in err
    assert err.count("\n") == 1
    assert {p.name for p in (tmp_path / "x").iterdir()} == NAMES


BAD = {
    "no run": (["{root}/x"], "{root}/x: no such folder or file"),
    "no checkpoint": (["{root}/four"], "holds no checkpoint"),
    "taken": (["{root}/run", "--out", "{root}/six"], "is taken; give a new or empty folder"),
    "a file": (["{root}/run", "--out", "{root}/six/README.md"], "is taken"),
    "bad id": (["{root}/run", "--push", "six", "--out", "{root}/new"], "--push: got 'six'"),
    "no library": (["{root}/run", "--push", "me/x", "--out", "{root}/new"], "hrm[hub]"),
    "an export": (["{root}/six", "--out", "{root}/new"], "is an export already"),
    "other data": (["{root}/run", "--data", "{root}/x", "--out", "{root}/new"], "{root}/x"),
    "no device": (["{root}/run", "--out", "{root}/new", "--device", "x"], "device: x"),
}


@pytest.mark.parametrize("name", BAD)
def test_bad_input_is_one_sentence_status_2_and_touches_nothing(
    hrm: Run, folder: Path, name: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setitem(sys.modules, "huggingface_hub", None)
    arguments, expected = BAD[name]
    before = contents(folder)
    status, out, err = hrm("export", *[a.replace("{root}", str(folder)) for a in arguments])
    assert (status, out) == (2, "")
    assert expected.replace("{root}", str(folder)) in err
    assert err.startswith("hrm: ")
    assert err.count("\n") == 1
    assert contents(folder) == before


def test_a_full_disk_leaves_no_folder(
    hrm: Run, folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def full(*_: object) -> None:
        raise SafetensorError("no space")

    monkeypatch.setattr(weights, "save_file", full)
    status, _, err = hrm("export", folder / "run", "--out", tmp_path / "x")
    assert status == 2
    assert "x: cannot be written (no space)" in err
    assert list(tmp_path.iterdir()) == []


def test_a_model_without_its_data_says_how_to_make_them(
    hrm: Run, folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    status, _, err = hrm("evaluate", folder / "six")
    assert status == 2
    assert "four: the data set of this model is not here; give --data DIR" in err
    command = shlex.split(err.partition("or make it: hrm ")[2])
    assert hrm(*command, "--quiet")[0] == 0
    made = hrm("evaluate", folder / "six", "--json")
    assert made == hrm("evaluate", folder / "run", "--json")


def test_without_metrics_the_experiment_says_how_to_make_the_data(
    hrm: Run, folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    copy = tmp_path / "six"
    shutil.copytree(folder / "six", copy)
    saved = json.loads((copy / "config.json").read_text())
    saved["experiment"]["data"]["prepare"] = {"size": 4, "count": 8, "seed": 7}
    (copy / "config.json").write_text(json.dumps(saved))
    for metrics in ("{}", "[]", None):
        (copy / "metrics.json").unlink(missing_ok=True)
        if metrics:
            (copy / "metrics.json").write_text(metrics)
        _, _, err = hrm("evaluate", copy)
        assert err.endswith("make it: hrm prepare sudoku --size 4 --count 8 --seed 7 --out four\n")


@pytest.fixture
def published(folder: Path, tmp_path: Path) -> Path:
    """The run's weights as published code saves them, with its settings beside them."""
    model = load_pretrained(folder / "six")
    state = {f"_orig_mod.model.{k}": v for k, v in model.state_dict().items()}
    (tmp_path / "theirs").mkdir()
    torch.save(state, tmp_path / "theirs" / "step_20")
    exclude = {"batch_size", "seq_len", "vocab_size", "num_puzzle_identifiers", "puzzle_emb_ndim"}
    arch = {"name": "recursive_reasoning.trm@X", **model.config.model_dump(exclude=exclude)}
    settings = {"arch": arch, "data_paths": [str(folder / "four")]}
    (tmp_path / "theirs" / "all_config.yaml").write_text(yaml.safe_dump(settings))
    return tmp_path / "theirs" / "step_20"


def test_a_published_file_is_a_run(hrm: Run, folder: Path, published: Path, tmp_path: Path) -> None:
    mine = hrm("evaluate", folder / "run", "--json")
    assert hrm("evaluate", published, "--json") == mine
    assert hrm("evaluate", published, "--json", "--data", folder / "four") == mine
    assert hrm("solve", published, PUZZLE) == hrm("solve", folder / "run", PUZZLE)
    status, out, _ = hrm("export", published, "--out", tmp_path / "new", "--json")
    assert status == 0
    assert json.loads(out)["training"] == {}
    text = (tmp_path / "new" / "README.md").read_text()
    assert "license" not in text
    assert "Not by this project: read from `step_20`" in text
    assert hrm("evaluate", tmp_path / "new", "--data", folder / "four", "--json") == mine


@pytest.mark.parametrize("settings", ["{}", "[1", "data_paths: 3\narch: {}"])
def test_a_published_file_with_bad_settings_is_one_sentence(
    hrm: Run, published: Path, settings: str
) -> None:
    published.with_name("all_config.yaml").write_text(settings)
    status, _, err = hrm("solve", published, PUZZLE)
    assert (status, err.count("\n")) == (2, 1)
    assert "all_config.yaml" in err


def test_a_puzzle_of_another_size_is_one_sentence(hrm: Run, folder: Path, tmp_path: Path) -> None:
    status, _, err = hrm("solve", folder / "six", "." * 36)
    assert status == 2
    assert "PUZZLE: 36 cells, but the model solves 4x4, 16 cells" in err
    file = tmp_path / "puzzles"
    file.write_text(f"{PUZZLE}\n{'.' * 36}\n")
    status, _, err = hrm("solve", folder / "six", file)
    assert status == 2
    assert "puzzles, line 2: 36 cells, but the puzzles above have 16" in err
    file.write_text("." * 81)
    status, _, err = hrm("solve", folder / "six", file)
    assert status == 2
    assert "puzzles: 81 cells, but the model solves 4x4" in err


def test_an_image_model_travels_too(hrm: Run, tmp_path: Path) -> None:
    scenes = ("--task", "flood_fill", "--size", "8", "--count", "40", "--val-count", "5")
    data, run, out = tmp_path / "mazes", tmp_path / "run", tmp_path / "out"
    assert hrm("prepare", "scenes", *scenes, "--test-count", "5", "--out", data, "--quiet")[0] == 0
    small = ("arch.base_channels=4", "arch.hidden_size=16", "arch.num_heads=2", "max_steps=2")
    quick = ("step_curriculum=[]", "lr_warmup_steps=0", "plots=false", "progress=false")
    given = ("experiment=flood_fill", f"data.path={data}", "data.prepare=null", f"out={run}")
    assert hrm("train", *given, *small, *quick)[0] == 0
    assert hrm("export", run, "--out", out)[0] == 0
    card = (out / "README.md").read_text()
    assert "hrm prepare scenes --task flood_fill --size 8" in card
    assert "images of 8x8 pixels, 2 classes" in card
    first, second = (
        json.loads(hrm("evaluate", folder, "--data", data, "--json")[1]) for folder in (run, out)
    )
    assert first["iou"] == second["iou"]
    assert first["halting/mean_steps"] == second["halting/mean_steps"]
    status, _, err = hrm("solve", out, PUZZLE)
    assert status == 2
    assert err.count("\n") == 1
