"""Agreement with published HRM and TRM code, recorded by `benchmarks/golden.py`, and loading."""

import json
from pathlib import Path
from typing import Any

import pytest
import torch
import yaml
from safetensors.torch import load_file, save_file
from torch import Tensor

from hrm.carry import Carry
from hrm.config import OptimizerConfig
from hrm.errors import UserError
from hrm.models import (
    TRM,
    ACTModel,
    CastedSparseEmbedding,
    CastedSparseEmbeddingSignSGD_Distributed,
    HRMACTv1,
)
from hrm.models.published import load_published
from hrm.training.losses import step_loss
from hrm.training.optim import make_optimizers
from tests.golden.cases import (
    ADAM,
    ADAM_BETAS,
    ADAM_UPDATES,
    CASES,
    RECORD,
    SEQ_LEN,
    TENSORS,
    adam_gradient,
    adam_start,
    fill,
    sign_sgd,
    trajectory,
)

PUBLISHED = load_file(TENSORS)
RECORDED = json.loads(RECORD.read_text())
EXACT = ("carry.steps", "carry.halted", "part.count", "part.exact_accuracy", "part.steps")
BOUND = 1e-5


def under(prefix: str) -> dict[str, Tensor]:
    start = prefix + "."
    return {k.removeprefix(start): v for k, v in PUBLISHED.items() if k.startswith(start)}


def assert_agrees(got: Tensor, expected: Tensor, name: str) -> None:
    """At each step within `BOUND` of the largest absolute value there."""
    assert got.shape == expected.shape, name
    for step, (mine, theirs) in enumerate(zip(got, expected, strict=True), start=1):
        deviation, largest = (mine - theirs).abs().max(), theirs.abs().max()
        assert deviation <= BOUND * largest, f"{name}, step {step}: {deviation} of {largest}"


def saved(folder: Path, name: str, prefix: str = "_orig_mod.model.") -> Path:
    """A case as published code saves it: names of a compiled loss head, settings beside it."""
    state = {key: torch.empty(shape) for key, shape in RECORDED["state_dict"][name].items()}
    fill(state, CASES[name].seed)
    path = folder / "step_100"
    torch.save({prefix + key: tensor for key, tensor in state.items()}, path)
    arch = {"arch": CASES[name].arch, "global_batch_size": 768, "data_path": "data/any", "lr": 1e-4}
    (folder / "all_config.yaml").write_text(yaml.dump(arch))
    return path


def load(path: Path, name: str) -> ACTModel:
    # Rotary positions need no weights, so the length is not to be seen.
    return load_published(path, seq_len=SEQ_LEN, batch_size=CASES[name].sizes["batch_size"])


@pytest.mark.parametrize("name", CASES)
def test_names_and_shapes_are_the_published_ones(name: str, tmp_path: Path) -> None:
    model = load(saved(tmp_path, name), name)
    shapes = {key: list(tensor.shape) for key, tensor in model.state_dict().items()}
    assert shapes == RECORDED["state_dict"][name]
    assert type(model) is {"hrm": HRMACTv1, "trm": TRM}[CASES[name].repository]


@pytest.mark.parametrize("mode", ["train", "eval"])
@pytest.mark.parametrize("name", CASES)
def test_steps_losses_and_gradients_agree(name: str, mode: str, tmp_path: Path) -> None:
    model = load(saved(tmp_path, name), name)

    def run(carry: Carry, rows: dict[str, Tensor]) -> Any:
        carry, outputs = model(carry, rows)
        loss, parts = step_loss(outputs, carry, model.halting, "stablemax")
        return carry, outputs, loss, {k: v for k, v in parts.items() if k != "loss"}

    got, expected = trajectory(model, run, training=mode == "train"), under(f"{name}.{mode}")
    assert expected.keys() <= got.keys()
    for key, value in expected.items():
        if key in EXACT:
            assert torch.equal(got[key], value), key
        else:
            assert_agrees(got[key], value, key)


def test_the_recorded_runs_halt_early_and_refill() -> None:
    for name, case in CASES.items():
        steps, halted = (under(f"{name}.train")[f"carry.{k}"] for k in ("steps", "halted"))
        assert (halted.bool() & (steps < case.arch["halt_max_steps"])).any()
        assert ((steps[1:] == 1) & (steps[:-1] > 1)).any()
        assert steps.max() == case.arch["halt_max_steps"]


@pytest.mark.parametrize("repository", ["hrm", "trm"])
def test_sign_sgd_agrees(repository: str) -> None:
    got = sign_sgd(CastedSparseEmbedding, CastedSparseEmbeddingSignSGD_Distributed)
    assert_agrees(got["table"], PUBLISHED[f"sign_sgd.{repository}.table"], repository)


@pytest.mark.parametrize("name", ADAM_BETAS)
def test_adam_atan2_agrees(name: str) -> None:
    beta1, beta2 = ADAM_BETAS[name]
    module = torch.nn.ParameterList([torch.nn.Parameter(adam_start())])
    config = OptimizerConfig(optimizer="adam_atan2", beta1=beta1, beta2=beta2, **ADAM)
    (optimizer,) = make_optimizers(module, config)
    path = []
    for update in range(1, ADAM_UPDATES + 1):
        module[0].grad = adam_gradient(update)
        optimizer.step()
        path.append(module[0].detach().clone())
    assert_agrees(torch.stack(path), PUBLISHED[name], name)


@pytest.mark.parametrize("prefix", ["", "model.", "_orig_mod.model.", "module._orig_mod.model."])
def test_wrappers_are_stripped_and_local_rows_left_out(prefix: str, tmp_path: Path) -> None:
    path = saved(tmp_path, "hrm_puzzles", prefix)
    state = torch.load(path, weights_only=True)
    state[f"{prefix}inner.puzzle_emb.local_weights"] = torch.zeros(768, 20)
    state[f"{prefix}inner.puzzle_emb.local_ids"] = torch.zeros(768, dtype=torch.int32)
    torch.save(state, path)
    model = load_published(path, seq_len=SEQ_LEN)
    assert not model.training
    for key, value in model.state_dict().items():
        assert torch.equal(value, state[prefix + key]), key


def test_safetensors_and_settings_from_elsewhere(tmp_path: Path) -> None:
    path = saved(tmp_path, "trm")
    state = torch.load(path, weights_only=True)
    save_file(state, tmp_path / "weights.safetensors")
    (tmp_path / "all_config.yaml").rename(tmp_path / "settings.yaml")
    arch = CASES["trm"].arch
    (tmp_path / "arch.yaml").write_text(yaml.dump({**arch, "puzzle_emb_ndim": "${.hidden_size}"}))
    for config in (tmp_path / "settings.yaml", str(tmp_path / "arch.yaml"), arch, {"arch": arch}):
        model = load_published(tmp_path / "weights.safetensors", config, seq_len=SEQ_LEN)
        assert model.config.H_cycles == 2
        assert torch.equal(
            model.state_dict()["inner.H_init"], state["_orig_mod.model.inner.H_init"]
        )
    changed = load_published(path, arch, seq_len=9, halt_max_steps=2, forward_dtype="bfloat16")
    assert (changed.config.seq_len, changed.config.halt_max_steps) == (9, 2)
    assert changed.config.forward_dtype == "bfloat16"


@pytest.mark.parametrize("name", ["hrm_learned", "trm_mlp", "trm_mlp_puzzles"])
def test_learned_and_mixed_positions_show_the_length(name: str, tmp_path: Path) -> None:
    config = load_published(saved(tmp_path, name)).config
    assert config.seq_len == SEQ_LEN
    assert config.batch_size == 1


def test_a_continue_value_of_trm_is_taken_over(tmp_path: Path) -> None:
    path, arch = saved(tmp_path, "trm"), {**CASES["trm"].arch, "no_ACT_continue": False}
    model = load_published(path, arch, seq_len=SEQ_LEN)
    assert (model.config.halting, model.config.continue_target) == ("q_learning", "bootstrap")
    assert load_published(path, seq_len=SEQ_LEN).config.halting == "halt_only"


@pytest.mark.parametrize(
    ("changes", "sizes", "message"),
    [
        ({}, {}, "seq_len: .* do not show it; give seq_len="),
        ({"name": "recursive_reasoning.trm_singlez@X"}, {"seq_len": 6}, "arch.name: got 'recu"),
        ({"name": None}, {"seq_len": 6}, "arch.name: got None, may be one of hrm.hrm_act_v1"),
        ({"mlp_t": True}, {"seq_len": 6}, "arch.mlp_t: HRM that mixes positions"),
        ({"depth": 3}, {"seq_len": 6}, "config: arch.depth: "),
        ({"num_heads": 3}, {"seq_len": 6}, "3 heads do not divide hidden_size 16"),
        ({"H_layers": 2}, {"seq_len": 6}, r"tensor inner\.H_level\.layers\.1\S* is missing"),
        ({"hidden_size": 32}, {"seq_len": 6}, r"tensor inner\.\S+ has another shape"),
        ({"pos_encodings": "learned"}, {"seq_len": 6}, "embed_pos.embedding_weight is missing"),
        (CASES["trm"].arch, {"seq_len": 6}, r"tensor inner\.L_level\.layers\.1\S* is missing"),
    ],
)
def test_other_architectures_are_refused(
    changes: dict[str, Any], sizes: dict[str, int], message: str, tmp_path: Path
) -> None:
    path = saved(tmp_path, "hrm")
    with pytest.raises(UserError, match=message):
        load_published(path, {**CASES["hrm"].arch, **changes}, **sizes)


TOKENS = "model.inner.embed_tokens.embedding_weight"


class Planted:
    """What a harmful file would hold: unpickling it runs code."""

    def __reduce__(self) -> tuple[Any, ...]:
        return (Path.touch, (Path("unpickled"),))


def test_files_that_are_no_state_dict_are_refused(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    arch, path = CASES["hrm"].arch, tmp_path / "weights"
    for value, message in [
        (Planted(), "no file of tensors alone"),
        ([torch.zeros(2)], "is not a state dict"),
        ({"model": {"inner.H_init": torch.zeros(2)}, "step": 3}, "model is no tensor"),
        ({"weight": torch.zeros(2, 2)}, r"tensor inner\.embed_tokens\.\S+ is missing"),
        ({TOKENS: torch.zeros(5)}, r"tensor inner\.embed_tokens\.\S+ has another shape"),
    ]:
        torch.save(value, path)
        with pytest.raises(UserError, match=message):
            load_published(path, arch, seq_len=SEQ_LEN)
    assert not Path("unpickled").exists()
    for content in (b"", b"no weights at all", b"PK\x03\x04 cut short"):
        path.write_bytes(content)
        with pytest.raises(UserError, match="is not"):
            load_published(path, arch, seq_len=SEQ_LEN)
    with pytest.raises(UserError, match="nothing: no such file"):
        load_published(tmp_path / "nothing", arch)


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (None, r"all_config.yaml: missing; give the settings of step_100 as config="),
        ("[1, 2]", "holds no settings of an architecture"),
        ("arch: 3", "holds no settings of an architecture"),
        ("{", "is not a yaml file"),
        ("!!python/object/apply:os.getcwd []", "is not a yaml file"),
    ],
)
def test_settings_that_are_none_are_refused(
    content: str | None, message: str, tmp_path: Path
) -> None:
    path = saved(tmp_path, "hrm")
    file = tmp_path / "all_config.yaml"
    file.unlink() if content is None else file.write_text(content)
    with pytest.raises(UserError, match=message):
        load_published(path, seq_len=SEQ_LEN)
