"""Every shipped configuration composes, every arch runs, and errors are one clear sentence."""

from pathlib import Path

import pytest
import torch
import yaml

from hrm.config import (
    MODELS,
    ExperimentConfig,
    build_model,
    compose,
    config_dir,
    validate,
)
from hrm.errors import UserError


def names(group: str) -> list[str]:
    return sorted(path.stem for path in (config_dir() / group).glob("*.yaml"))


TOKEN_ARCHS = [name for name in names("arch") if "unet" not in name]
PLAIN_ARCHS = [name for name in TOKEN_ARCHS if "etrm" not in name]
"""Those that need no demonstrations."""
TOKEN_EXPERIMENTS = [name for name in names("experiment") if "sudoku" in name]
"""Those whose data are tokens; images are `act_unet`'s."""


@pytest.mark.parametrize(
    ("experiment", "scale"),
    # Other scales change a token model's settings.
    [(e, s) for e in names("experiment") for s in names("scale") if s == "full" or "sudoku" in e],
)
def test_every_experiment_composes_at_every_scale(experiment: str, scale: str) -> None:
    config = compose([f"experiment={experiment}", f"scale={scale}", "+run_name=a"])
    assert config.experiment_name == experiment
    assert config.run_name == "a"


@pytest.mark.parametrize("arch", PLAIN_ARCHS)
@pytest.mark.parametrize("experiment", TOKEN_EXPERIMENTS)
def test_every_experiment_goes_with_every_architecture(experiment: str, arch: str) -> None:
    config = compose([f"experiment={experiment}", f"arch={arch}", "arch.L_cycles=1"])
    assert config.arch["L_cycles"] == 1
    assert config.arch["name"] == arch.partition("_")[0]


@pytest.mark.parametrize("arch", TOKEN_ARCHS)
def test_an_architecture_file_lists_every_setting(arch: str) -> None:
    listed = compose(["experiment=sudoku_4x4", f"arch={arch}"]).arch.keys() - {"name"}
    schema = MODELS[arch.partition("_")[0]].config_type
    assert listed == schema.model_fields.keys() - schema.from_data.keys()


def test_the_u_nets_file_lists_every_setting() -> None:
    listed = yaml.safe_load((config_dir() / "arch" / "act_unet.yaml").read_text()).keys()
    schema = MODELS["act_unet"].config_type
    assert listed - {"name"} == schema.model_fields.keys() - schema.from_data.keys()


def test_the_defaults_file_lists_every_setting() -> None:
    listed = yaml.safe_load((config_dir() / "train.yaml").read_text()).keys() - {"defaults"}
    assert listed | {"arch"} == ExperimentConfig.model_fields.keys()


@pytest.mark.parametrize("arch", ["hrm_small", "trm_small", "trm_mlp_small"])
@pytest.mark.parametrize("dtype", ["float32", "bfloat16", "float16"])
def test_every_architecture_takes_a_step(arch: str, dtype: str) -> None:
    config = compose(["experiment=sudoku_4x4", f"arch={arch}", f"arch.forward_dtype={dtype}"])
    model = build_model(config.arch, batch_size=2, seq_len=16, vocab_size=6)
    batch = {
        "inputs": torch.ones(2, 16, dtype=torch.int32),
        "puzzle_identifiers": torch.zeros(2, dtype=torch.int32),
    }
    _, outputs = model(model.initial_carry(batch), batch)
    assert outputs["logits"].shape == (2, 16, 6)
    assert outputs["q_halt_logits"].dtype == torch.float32
    assert torch.isfinite(outputs["logits"]).all()


@pytest.mark.parametrize(
    ("overrides", "sentence"),
    [
        (["experiment=sudoku_4x5"], r"experiment=sudoku_4x5: unknown; did you mean 'sudoku_4x4'"),
        (["arch=hrmm"], r"arch=hrmm: unknown; did you mean 'hrm'"),
        (["lrr=3"], r"^lrr: unknown key; did you mean 'lr'"),
        (["+lrr=3"], r"^lrr: unknown key; did you mean 'lr'"),
        (["arch.L_cycle=3"], r"^arch\.L_cycle: unknown key; did you mean 'arch\.L_cycles'"),
        (["+arch.L_cycle=3"], r"^arch\.L_cycle: unknown key; did you mean 'arch\.L_cycles'"),
        (["arch.context=cache"], r"^arch\.context: unknown key; it is a setting of etrm$"),
        (["+arch.context=cache"], r"^arch\.context: unknown key; it is a setting of etrm$"),
        (["arch.seq_len=3"], r"^arch\.seq_len: unknown key; it is read from the data$"),
        (["arch.num_act_steps=3"], r"^arch\.num_act_steps: .*; did you mean 'num_act_steps'"),
        (["halt_max_steps=3"], r"^halt_max_steps: .*; did you mean 'arch\.halt_max_steps'"),
        (["data.prepare.sed=3"], r"^data\.prepare\.sed: unknown key$"),
        (["sizes=O1_cpu"], r"^sizes: unknown key(?!.*'sizes')"),
        (["data.pth=x"], r"^data\.pth: unknown key; did you mean 'data\.path'"),
        (["arch.num_heads=5"], r"^arch\.num_heads: 5 heads do not divide hidden_size 64"),
        (
            ["arch=trm", "arch.num_heads=64"],
            r"^arch\.num_heads: .* odd head dimension 1; rotary positions",
        ),
        (["arch.train_max_steps=99"], r"^arch\.train_max_steps: 99 is above halt_max_steps 4"),
        (["+arch.seq_len=3"], r"^arch\.seq_len: is read from the data"),
        (["arch.halting=never"], r"^arch\.halting: got 'never', but .*'q_learning'"),
        (["lr=fast"], r"^lr: got 'fast', but input should be a valid number"),
        (["lr=-1"], r"^lr: got -1, but input should be greater than 0"),
        (["max_steps=null"], r"^epochs, max_steps: both are null"),
        (["grad_accumulation=3"], r"^grad_accumulation: 3 does not divide global_batch_size 32"),
        (["step_curriculum=[[0,9]]"], r"^step_curriculum: \[0, 9\] is wrong; .* 1 to .* \(4\)"),
        (["lr=["], r"lr=\["),
    ],
)
def test_a_wrong_setting_is_named_in_one_sentence(overrides: list[str], sentence: str) -> None:
    with pytest.raises(UserError, match=sentence) as caught:
        compose(["experiment=sudoku_4x4", *overrides])
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize("sign", ["", "+", "++"])
def test_a_known_key_is_set_with_and_without_a_sign(sign: str) -> None:
    words = ["project_name=x", "run_name=y", "lr=0.5", "arch.L_cycles=1", "data.path=z"]
    config = compose(["experiment=sudoku_4x4", *(f"{sign}{word}" for word in words)])
    assert (config.project_name, config.run_name, config.lr) == ("x", "y", 0.5)
    assert (config.arch["L_cycles"], config.data.path) == (1, "z")


def test_a_choice_of_a_file_may_have_a_sign() -> None:
    words = ["experiment=sudoku_4x4", "arch=hrm_small", "scale=cpu"]
    assert compose([f"+{word}" for word in words]) == compose(words)


def test_without_an_experiment_the_missing_key_is_named() -> None:
    with pytest.raises(UserError, match=r"^data\.path: missing"):
        compose([])


def test_a_composed_experiment_survives_a_round_trip() -> None:
    config = compose(["experiment=sudoku_9x9"])
    assert validate(yaml.safe_load(yaml.safe_dump(config.model_dump()))) == config


def test_the_defaults_of_file_and_schema_agree() -> None:
    listed = yaml.safe_load((config_dir() / "train.yaml").read_text())
    for name, field in ExperimentConfig.model_fields.items():
        if name in listed and name not in ("data", "global_batch_size"):
            assert listed[name] == field.get_default(call_default_factory=True), name


def test_an_installed_package_has_its_configurations_inside(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    import hrm.config

    (tmp_path / "hrm" / "configs").mkdir(parents=True)
    monkeypatch.setattr(hrm.config, "__file__", str(tmp_path / "hrm" / "config.py"))
    assert config_dir() == tmp_path / "hrm" / "configs"
