"""The document's own commands: they parse, they start, and what is wrong is one sentence."""

import runpy
import shlex
import sys
from collections.abc import Callable
from pathlib import Path

import pytest
import yaml

from hrm.commands import pretrain
from hrm.commands.pretrain import ONLINE, ORIGINAL, config_name, overrides, run_online, run_original
from hrm.config import compose
from hrm.errors import UserError

ROOT = Path(__file__).parents[1]
O1 = """
pretrain_encoder_original.py
    --config-name cfg_pretrain_encoder_original_arc_agi_1
    load_pretrained_decoder=checkpoints/pretrain_att_arc1concept_4/step_518071
    max_train_groups=32 max_eval_groups=32 epochs=20000 eval_interval=5000
    +project_name="mmi-714-act-mode" +run_name="O1_original_baseline"
"""
L1 = """
pretrain_encoder.py
    --config-name cfg_pretrain_encoder_arc_agi_1
    load_pretrained_decoder=checkpoints/pretrain_att_arc1concept_4/step_518071
    arch.num_act_steps=4 max_train_groups=32 max_eval_groups=32 epochs=20000 eval_interval=5000
    +project_name="mmi-714-act-mode" +run_name="L1_online_4steps"
"""


def settings_of(command: str, capsys: pytest.CaptureFixture[str]) -> dict[str, object]:
    script, *words = shlex.split(command)
    run = {"pretrain_encoder.py": run_online}.get(script, run_original)
    assert run([*words, "--cfg"]) == 0
    found = yaml.safe_load(capsys.readouterr().out)
    assert isinstance(found, dict)
    return found


def test_the_documents_commands_are_understood(capsys: pytest.CaptureFixture[str]) -> None:
    original, online = settings_of(O1, capsys), settings_of(L1, capsys)
    for found in (original, online):
        assert found["max_train_groups"] == found["max_eval_groups"] == 32
        assert (found["epochs"], found["eval_interval"]) == (20000, 5000)
        assert found["project_name"] == "mmi-714-act-mode"
        assert str(found["load_pretrained_decoder"]).endswith("step_518071")
        assert found["grad_clip_norm"] == 1.0
    assert original["run_name"] == "O1_original_baseline"
    assert (original["dynamics"], original["num_act_steps"]) == ("persistent", None)
    assert (online["dynamics"], online["num_act_steps"]) == ("online", 4)


SETTINGS = (
    "grad_clip_norm=0.5",
    "global_batch_size=64",
    "arch.encoder_num_layers=3",
    "arch.encoder_norm_style=pre",
    "arch.encoder_set_layers=1",
    "arch.halt_exploration_prob=0.3",
    "arch.encoder_type=hybrid_variational",
    "experiment=E1",
    "scale=cpu",
    "arch=etrm_small",
    "out=runs/a",
    "resume=true",
    "seed=3",
    "max_steps=7",
)


@pytest.mark.parametrize("name", [ONLINE, ORIGINAL])
def test_the_documents_settings_are_known(name: str) -> None:
    config = compose(overrides(SETTINGS), name)
    told = dict(setting.split("=") for setting in SETTINGS)
    for key in ("encoder_num_layers", "encoder_set_layers", "encoder_type"):
        assert str(config.arch[key]) == told[f"arch.{key}"]
    for key in ("global_batch_size", "grad_clip_norm", "out", "seed", "max_steps"):
        assert str(getattr(config, key)) == told[key]


@pytest.mark.parametrize(
    ("name", "scale"), [("E1", "full"), ("E3", "cpu"), ("L1", "full"), ("L1", "cpu")]
)
def test_each_script_has_its_mode_whatever_the_experiment(name: str, scale: str) -> None:
    chosen = [f"experiment={name}", f"scale={scale}"]
    online, original = compose(chosen, ONLINE), compose(chosen, ORIGINAL)
    assert (online.dynamics, online.arch["context"]) == ("online", "reencode")
    assert (original.dynamics, original.arch["context"]) == ("persistent", "cache")


@pytest.mark.parametrize(
    ("words", "steps"),
    [
        (["experiment=O1"], 4),
        (["experiment=E2"], 4),
        (["experiment=O1", "scale=cpu"], 2),
        (["experiment=L1"], 4),
        (["experiment=L2"], 8),
        (["experiment=L2", "scale=cpu"], 4),
        (["experiment=O1", "arch.num_act_steps=5"], 5),
        (["experiment=O1", "+arch.num_act_steps=5"], 5),
        (["experiment=L3", "+arch.num_act_steps=5"], 5),
        (["experiment=L3", "num_act_steps=null"], None),
        (["experiment=O1", "arch.halt_max_steps=2"], 1),
    ],
)
def test_online_any_experiment_has_a_number_of_steps(
    words: list[str], steps: int | None, capsys: pytest.CaptureFixture[str]
) -> None:
    found = settings_of(shlex.join(["pretrain_encoder.py", *words]), capsys)
    assert (found["dynamics"], found["num_act_steps"]) == ("online", steps)


def test_in_original_mode_an_experiment_of_the_other_keeps_contexts(
    capsys: pytest.CaptureFixture[str],
) -> None:
    script = "pretrain_encoder_original.py experiment=L1"
    for more, context in (("", "cache"), (" arch.context=reencode", "reencode")):
        found = settings_of(script + more, capsys)
        assert (found["dynamics"], found["num_act_steps"]) == ("persistent", None)
        assert found["arch"]["context"] == context  # type: ignore[index]


@pytest.mark.parametrize("run", [run_online, run_original])
def test_a_model_without_an_encoder_is_refused(run: Callable[[list[str]], int]) -> None:
    for word in ("experiment=sudoku_4x4", "arch=trm"):
        with pytest.raises(UserError, match=r"^arch: trm has no encoder .*\(etrm\), or use hrm tr"):
            run([word, "--cfg"])


def test_the_documents_names_are_replaced_with_their_signs() -> None:
    words = ["+arch.num_act_steps=4", "arch.num_act_steps=8", "lr=1e-3", "+run_name=a=b"]
    assert overrides(words) == ["+num_act_steps=4", "num_act_steps=8", "lr=1e-3", "+run_name=a=b"]


def test_a_config_name_comes_in_each_spelling() -> None:
    for words in (["--config-name", ORIGINAL], [f"--config-name={ORIGINAL}"], ["-cn", ORIGINAL]):
        assert config_name([*words, "seed=1"], ONLINE) == (ORIGINAL, ["seed=1"])
    assert config_name([f"--config-name={ORIGINAL}.yaml"], ONLINE)[0] == ORIGINAL
    assert config_name([], ONLINE) == (ONLINE, [])


@pytest.mark.parametrize(
    ("words", "sentence"),
    [
        (["--config-name", "cfg_pretrain"], r"^--config-name cfg_pretrain: unknown"),
        (["--config-name", "train"], r"^--config-name train: unknown"),
        (["--config-name"], r"^--config-name: give a name"),
        (["--verbose=1"], r"^--verbose=1: settings are given as key=value"),
        (["seed"], r"^seed: settings are given as key=value"),
        (["+no_such=1"], r"^no_such: unknown key"),
        (["arch.num_act_steps=4"], r"^num_act_steps: dynamics=persistent does not read it"),
        (["eval_interval=0"], r"^eval_interval: got 0"),
    ],
)
def test_what_is_wrong_is_one_sentence(words: list[str], sentence: str) -> None:
    with pytest.raises(UserError, match=sentence) as caught:
        run_original([*words, "--cfg"])
    assert "\n" not in str(caught.value)


def test_online_too_what_is_no_number_is_named() -> None:
    with pytest.raises(UserError, match=r"^arch\.halt_max_steps: got 'many'"):
        run_online(["experiment=O1", "arch.halt_max_steps=many", "--cfg"])


@pytest.mark.parametrize("script", ["pretrain_encoder.py", "pretrain_encoder_original.py"])
def test_a_script_ends_with_the_status_of_its_command(
    script: str, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    for words, status in ((["--help"], 0), (["seed"], 2)):
        monkeypatch.setattr(sys, "argv", [script, *words])
        with pytest.raises(SystemExit) as ended:
            runpy.run_path(str(ROOT / script), run_name="__main__")
        assert ended.value.code == status
    captured = capsys.readouterr()
    assert f"example: torchrun --nproc-per-node 4 {script}" in captured.out
    assert captured.err == "hrm: seed: settings are given as key=value\n"


def test_help_names_configurations_that_there_are() -> None:
    for name in (ONLINE, ORIGINAL):
        assert (ROOT / "configs" / f"{name}.yaml").is_file()
    assert "{default}" in pretrain.HELP
