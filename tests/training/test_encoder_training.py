"""Training a model with an encoder: its loss and its groups of weights, through every dynamics."""

from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor

from hrm.carry import Carry
from hrm.commands.train import make_trainer
from hrm.config import ExperimentConfig
from hrm.data.base import load_split
from hrm.errors import UserError
from hrm.inference.evaluate import evaluate_split
from hrm.models.etrm import ROOM
from hrm.training.checkpoint import checkpoints, load_run
from hrm.training.losses import step_loss
from hrm.training.optim import clip_groups, make_optimizers, set_lr
from hrm.training.trainer import Trainer
from tests.models.helpers import small_etrm, small_trm, task_batch
from tests.training.conftest import composed
from tests.training.tasks import write_tasks
from tests.training.test_trainer import losses, without_time

SMALL = (
    "arch=etrm_small",
    "arch.hidden_size=16",
    "arch.num_heads=2",
    "arch.H_cycles=1",
    "arch.L_cycles=1",
    "arch.encoder_num_layers=1",
    "arch.context_tokens=2",
    "arch.halt_max_steps=3",
    "global_batch_size=4",
    "max_steps=4",
    "lr=1e-2",
    "log_every_steps=1",
    "plots=false",
    "progress=false",
)
VARIATIONAL = "arch.encoder_type=hybrid_variational"
Made = Callable[..., Trainer]


@pytest.fixture(scope="session")
def toy(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_tasks(tmp_path_factory.mktemp("tasks") / "toy", train=6, held_out=3)


@pytest.fixture
def config(toy: Path, tmp_path: Path) -> Callable[..., ExperimentConfig]:
    def make(name: str, *overrides: str) -> ExperimentConfig:
        settings = [*SMALL, f"data.path={toy}"]
        if "arch=trm_small" in overrides:
            others = ("arch=etrm_small", "arch.encoder_", "arch.context")
            settings = [s for s in settings if not s.startswith(others)]
        return composed(tuple(settings), f"out={tmp_path / name}", *overrides)

    return make


@pytest.fixture
def trained(config: Callable[..., ExperimentConfig]) -> Made:
    def run(name: str, *overrides: str) -> Trainer:
        trainer = make_trainer(config(name, *overrides))
        trainer.run()
        return trainer

    return run


# -- the loss


def stepped(context: str = "cache") -> tuple[Any, Carry, dict[str, Tensor]]:
    """A step of four slots of which the first two have just come, and the last has no label."""
    model = small_etrm(encoder_type="lpn_variational", context=context).train()
    batch = task_batch()
    batch["labels"][3] = -100
    carry, _ = model(model.initial_carry(batch, seed=0), batch)
    carry = replace(carry, halted=torch.tensor([True, True, False, True]))
    return model, *model(carry, batch)


@pytest.mark.parametrize("context", ["cache", "reencode"])
def test_the_divergence_is_in_the_loss_once_and_of_those_encoded_now(context: str) -> None:
    model, carry, outputs = stepped(context)
    plain = step_loss(outputs, carry, model.halting, "softmax")
    whole = step_loss(outputs, carry, model.halting, "softmax", kl_weight=0.5)
    # Slot 2 runs on, and slot 3 holds no sequence.
    counts = [0, 1] if context == "cache" else [0, 1, 2]
    kl = outputs["kl"][counts].sum()
    assert kl > 0
    torch.testing.assert_close(whole.loss - plain.loss, 0.5 * kl)
    torch.testing.assert_close(whole.sums["kl"], kl.detach())
    assert whole.sums["encoded"] == len(counts)
    torch.testing.assert_close(whole.sums["loss"], whole.loss.detach())
    weights = list(model.encoder.parameters())

    def gradient(loss: Tensor) -> list[Tensor]:
        return list(torch.autograd.grad(loss, weights, retain_graph=True, materialize_grads=True))

    parts = zip(gradient(whole.loss), gradient(plain.loss), gradient(0.5 * kl), strict=True)
    for total, task, divergence in parts:
        torch.testing.assert_close(total, task + divergence, atol=1e-4, rtol=1e-4)
    assert any(g.any() for g in gradient(kl))


def test_the_loss_by_hand() -> None:
    model, carry, outputs = stepped()
    outputs = {**outputs, "kl": torch.tensor([3.0, 5.0, 7.0, 11.0])}
    plain = step_loss(outputs, carry, model.halting, "softmax")
    whole = step_loss(outputs, carry, model.halting, "softmax", kl_weight=0.25)
    assert float((whole.loss - plain.loss).detach()) == pytest.approx(0.25 * (3 + 5), rel=1e-5)


def test_the_weight_rises_and_then_holds(config: Callable[..., ExperimentConfig]) -> None:
    rising = config("a", VARIATIONAL, "kl_weight=0.2", "kl_anneal_steps=4")
    weights = [rising.kl_weight_at(step) for step in range(6)]
    assert weights == pytest.approx([0.0, 0.05, 0.1, 0.15, 0.2, 0.2])
    assert config("b", VARIATIONAL, "kl_weight=0.2").kl_weight_at(0) == 0.2


def test_a_run_costs_its_divergence_by_the_weight_of_each_update(trained: Made) -> None:
    still = (VARIATIONAL, "kl_anneal_steps=2", "arch.context=reencode", "lr=1e-30", "ema=false")
    free, dear = trained("a", "kl_weight=0", *still), trained("b", "kl_weight=0.1", *still)
    for i, (cheap, row) in enumerate(zip(free.rows(), dear.rows(), strict=True)):
        extra = row["train/loss"] - cheap["train/loss"]
        assert row["train/kl"] == pytest.approx(cheap["train/kl"]) != 0
        assert extra == pytest.approx(0.1 * min(1, i / 2) * row["train/kl"], rel=1e-3, abs=1e-5)


# -- the dynamics


@pytest.mark.parametrize(
    ("dynamics", "context"),
    [
        ("persistent", "cache"),
        ("online", "reencode"),
        ("episode", "cache"),
        ("rollout", "cache"),
        pytest.param("rollout", "reencode", marks=pytest.mark.slow),
        pytest.param("persistent", "reencode", marks=pytest.mark.slow),
        pytest.param("online", "cache", marks=pytest.mark.slow),
        pytest.param("episode", "reencode", marks=pytest.mark.slow),
    ],
)
def test_every_dynamics_trains_and_tells_who_was_encoded(
    trained: Made, dynamics: str, context: str
) -> None:
    trainer = trained(
        "a",
        f"dynamics={dynamics}",
        f"arch.context={context}",
        VARIATIONAL,
        "arch.halting=halt_only",
    )
    rows = trainer.rows()
    shares = [row["train/encoder_share"] for row in rows]
    if context == "reencode" or dynamics == "rollout":
        assert shares == [1.0] * 4
    else:
        # All slots march in step here, and an untrained model halts nowhere.
        assert shares == [1.0, 0.0, 0.0, 1.0]
    told = [row["train/kl"] for row in rows]
    assert [kl is None for kl in told] == [share == 0 for share in shares]
    assert all(kl is None or kl > 0 for kl in told)
    assert "eval/exact_accuracy" in rows[-1]


def test_a_deterministic_encoder_tells_of_no_divergence(trained: Made) -> None:
    row = trained("a").rows()[0]
    assert "train/encoder_share" in row
    assert "train/kl" not in row
    assert "train/encoder_share" not in trained("b", "arch=trm_small", "arch.L_layers=1").rows()[0]


def test_micro_batches_equal_one_batch(trained: Made) -> None:
    settings = (VARIATIONAL, "kl_weight=0.05")
    whole, parts = trained("a", *settings), trained("b", "grad_accumulation=2", *settings)
    assert losses(parts) == pytest.approx(losses(whole), rel=2e-3)
    for mine, theirs in zip(whole.rows(), parts.rows(), strict=True):
        assert mine["train/encoder_share"] == theirs["train/encoder_share"]
        if mine["train/encoder_share"]:
            assert mine["train/kl"] == pytest.approx(theirs["train/kl"], rel=2e-3)


@pytest.mark.parametrize("context", ["cache", pytest.param("reencode", marks=pytest.mark.slow)])
def test_a_resumed_run_draws_what_the_whole_one_draws(trained: Made, context: str) -> None:
    settings = (VARIATIONAL, f"arch.context={context}", "kl_anneal_steps=9")
    whole = trained("whole", *settings)
    trained("cut", *settings, "max_steps=2")  # in the middle of a sequence
    resumed = trained("cut", *settings, "resume=true")
    assert without_time(resumed.rows())[-2:] == without_time(whole.rows())[-2:]
    for name, tensor in whole.model.state_dict().items():
        assert torch.equal(tensor, resumed.model.state_dict()[name]), name
    saved = load_run(checkpoints(resumed.out)[-1])
    split = resumed.held_out
    assert split is not None
    figures = {k: v for k, v in whole.rows()[-1].items() if k.startswith("eval/")}
    again = evaluate_split(saved.model, split)
    assert again["exact_accuracy"] == figures["eval/exact_accuracy"]
    assert again["accuracy"] == figures["eval/accuracy"]


def test_a_data_set_may_show_more_or_fewer_demonstrations(trained: Made, tmp_path: Path) -> None:
    trainer = trained("a")
    assert trainer.held_out is not None
    for shown in (1, 5, 11):
        data = write_tasks(tmp_path / f"shown{shown}", train=2, held_out=2, shown=shown)
        split = load_split(data, "test")
        if shown > ROOM:
            with pytest.raises(UserError, match=r"up to 11 demonstrations, but the model has room"):
                evaluate_split(trainer.model, split)
            continue
        figures = [
            evaluate_split(trainer.model, split, halting=h) for h in ("max_steps", "adaptive")
        ]
        assert [f["count"] for f in figures] == [4, 4]
        assert figures[0]["policy_exact_accuracy"] == figures[1]["exact_accuracy"]


# -- groups of weights


def moved(trainer: Trainer, before: dict[str, Tensor]) -> tuple[bool, bool]:
    """Whether the decoder and the encoder have moved."""
    changed = [n for n, t in trainer.model.state_dict().items() if not torch.equal(t, before[n])]
    return (
        any(n.startswith("inner.") for n in changed),
        any(n.startswith("encoder.") for n in changed),
    )


@pytest.mark.parametrize(
    ("part", "optimizer"),
    [("decoder", "adamw"), ("encoder", "adamw"), ("encoder", "muon"), ("decoder", "adam_atan2")],
)
def test_a_frozen_part_stands_still_for_so_many_updates(
    config: Callable[..., ExperimentConfig], part: str, optimizer: str
) -> None:
    settings = (f"freeze_{part}_steps=2", f"optimizer={optimizer}", "arch.context=reencode")
    trainer = make_trainer(config("a", *settings, "grad_clip_norm=1.0", "ema=false"))
    for update in range(3):
        before = {name: t.clone() for name, t in trainer.model.state_dict().items()}
        trainer.update()
        decoder, encoder = moved(trainer, before)
        assert decoder == (part != "decoder" or update == 2)
        assert encoder == (part != "encoder" or update == 2)
    # Its moments have seen every update.
    frozen = [
        o
        for o in trainer.optimizers
        if o.param_groups[0]["part"] == {"decoder": "trunk"}.get(part, part)
    ]
    counters = [float(s["step"]) for o in frozen for s in o.state.values() if "step" in s]
    assert counters or optimizer != "adamw"
    assert set(counters) <= {3.0}


def test_the_encoder_has_a_rate_of_its_own(config: Callable[..., ExperimentConfig]) -> None:
    def rates(*overrides: str) -> dict[str, float]:
        settings = config("a", "lr=0.5", "lr_schedule=constant", *overrides)
        optimizers = make_optimizers(small_etrm(), settings)
        set_lr(optimizers, 0.5)
        return {g["part"]: g["lr"] for o in optimizers for g in o.param_groups}

    assert rates() == {"trunk": 0.25, "encoder": 0.25}
    assert rates("encoder_lr=0.1") == {"trunk": 0.25, "encoder": 0.05}
    optimizers = make_optimizers(small_etrm(), config("b"))
    set_lr(optimizers, 0.5, frozen={"trunk"})
    assert [o.param_groups[0]["lr"] for o in optimizers] == [0.0, 0.005]


def test_one_norm_clips_decoder_and_encoder_together_unless_one_is_frozen() -> None:
    groups = small_etrm().parameter_groups()
    (together,) = clip_groups(groups)
    assert [id(p) for p in together] == [id(p) for g in groups.values() for p in g]
    assert clip_groups(groups, {"trunk"}) == list(groups.values())
    assert len(clip_groups(small_trm().parameter_groups())) == 1


def test_clipping_in_a_run_is_by_the_norm_of_all(
    config: Callable[..., ExperimentConfig], monkeypatch: pytest.MonkeyPatch
) -> None:
    trainer = make_trainer(config("a", "grad_clip_norm=0.01"))
    norms: list[float] = []
    model = trainer.model

    def look(*_: Any) -> None:
        grads = [p.grad for p in model.parameters() if p.grad is not None]
        norms.append(float(torch.nn.utils.get_total_norm(grads)))
        encoder = [p.grad for p in model.encoder.parameters() if p.grad is not None]
        norms.append(float(torch.nn.utils.get_total_norm(encoder)))

    monkeypatch.setattr(trainer.optimizers[0], "step", look)
    trainer.update()
    assert norms[0] == pytest.approx(0.01, rel=1e-3)
    assert 0 < norms[1] < norms[0]


@pytest.mark.parametrize(
    "override",
    [
        "encoder_lr=0.1",
        "kl_weight=0.5",
        "kl_anneal_steps=3",
        "freeze_decoder_steps=3",
        "freeze_encoder_steps=3",
        "load_pretrained_decoder=somewhere",
    ],
)
def test_keys_of_an_encoder_are_refused_without_one(
    config: Callable[..., ExperimentConfig], override: str
) -> None:
    key = override.partition("=")[0]
    with pytest.raises(UserError, match=rf"^{key}: arch=trm has no encoder of demonstrations"):
        config("a", "arch=trm_small", override)


def test_both_parts_frozen_leave_nothing_to_learn(
    config: Callable[..., ExperimentConfig],
) -> None:
    with pytest.raises(UserError, match="leave nothing to learn at first"):
        config("a", "freeze_decoder_steps=3", "freeze_encoder_steps=1")


def test_weights_come_from_one_place(config: Callable[..., ExperimentConfig]) -> None:
    with pytest.raises(UserError, match=r"^load_pretrained_decoder, init_from: both say where"):
        config("a", "load_pretrained_decoder=a", "init_from=b")


# -- a decoder that is trained already


def test_a_run_starts_from_a_decoder_and_keeps_its_record(trained: Made, tmp_path: Path) -> None:
    small = ("arch.H_cycles=1", "arch.L_cycles=1", "arch.L_layers=1", "arch.halt_max_steps=3")
    plain = (*small, "arch.hidden_size=16", "arch.num_heads=2", "arch.forward_dtype=float32")
    # Published TRM: puzzle embeddings in front, on as many positions as the context takes.
    puzzles = ("arch.puzzle_emb_ndim=16", "arch.puzzle_emb_len=2")
    decoder = trained("trm", "arch=trm_small", *plain, *puzzles)
    source = tmp_path / "trm"
    settings = (f"load_pretrained_decoder={source}", "freeze_decoder_steps=9")
    trainer = trained("etrm", *settings)
    assert decoder.ema is not None
    assert trainer.ema is not None
    theirs = decoder.ema.module.inner.state_dict()
    for model in (trainer.model, trainer.ema.module):
        for name, tensor in model.inner.state_dict().items():
            torch.testing.assert_close(tensor, theirs[name])
    record = (trainer.out / "pretrained_decoder.json").read_text()
    assert str(source / "checkpoints") in record
    assert '"puzzle_emb_ndim": 16' in record
    # Gone by the time the run goes on: its own checkpoint has the weights.
    source.rename(tmp_path / "elsewhere")
    resumed = trained("etrm", *settings, "max_steps=5", "resume=true")
    assert resumed.step == 5
    with pytest.raises(UserError, match="no such folder or file"):
        trained("again", *settings)
    assert not (tmp_path / "again").exists()
    with pytest.raises(UserError, match=r"trained with L_cycles=1, but arch\.L_cycles is 2"):
        trained("b", f"load_pretrained_decoder={tmp_path / 'elsewhere'}", "arch.L_cycles=2")
