"""How batches become updates: who is admitted when, who leaves, and what the gradient is."""

import itertools
from collections import Counter
from collections.abc import Callable
from typing import Any

import pytest
import torch
from torch import Tensor

from hrm.commands.train import make_trainer
from hrm.config import REFUSED, ExperimentConfig
from hrm.errors import UserError
from hrm.training.trainer import Trainer

Config = Callable[..., ExperimentConfig]
Trained = Callable[..., Trainer]

NEVER_EARLY = ("arch.halt_exploration_prob=0",)


def watch(trainer: Trainer) -> list[dict[str, Any]]:
    """What each call of the model in training saw: step counts, rows, who halted."""
    calls: list[dict[str, Any]] = []

    def hook(_: object, __: object, result: tuple[Any, dict[str, Tensor]]) -> None:
        carry = result[0]
        if trainer.model.training:
            inputs = carry.current_data["inputs"]
            calls.append({
                "steps": carry.steps.tolist(),
                "rows": [tuple(row) for row in inputs.tolist()],
                "halted": carry.halted.tolist(),
                "rng": carry.rng.tolist(),
            })  # fmt: skip

    trainer.model.register_forward_hook(hook)
    return calls


def test_online_takes_every_batch_through_the_same_number_of_steps(small: Config) -> None:
    trainer = make_trainer(small("a", "dynamics=online", "num_act_steps=3", "max_steps=9"))
    with torch.no_grad():  # An eager policy decides nothing here.
        trainer.model.inner.q_head.bias.fill_(9.0)
    calls = watch(trainer)
    trainer.run()
    assert [set(c["steps"]) for c in calls] == [{1}, {2}, {3}] * 3
    batches = [calls[i]["rows"] for i in (0, 3, 6)]
    assert len(set(map(tuple, batches))) == 3
    assert all(calls[i]["rows"] == batches[i // 3] for i in range(9))
    rows = trainer.rows()
    assert [row["train/count"] for row in rows] == [0, 0, 8] * 3
    assert not any("train/steps" in row for row in rows)
    assert [row["samples"] for row in rows] == [8, 8, 8, 16, 16, 16, 24, 24, 24]


def test_online_without_a_number_takes_the_training_limit(small: Config) -> None:
    overrides = ("dynamics=online", "arch.train_max_steps=2", "step_curriculum=[]", "max_steps=6")
    trainer = make_trainer(small("a", *overrides))
    calls = watch(trainer)
    trainer.run()
    assert [c["steps"][0] for c in calls] == [1, 2] * 3


def halting_by_row(trainer: Trainer, steps: dict[int, int]) -> None:
    """Let the policy halt by the first token of a row: `{token: step}`."""
    model = trainer.model

    def wants(outputs: dict[str, Tensor]) -> Tensor:
        return outputs["wants"]

    def hook(_: object, arguments: Any, kwargs: Any) -> None:
        carry, batch = arguments
        first = torch.where(carry.halted, batch["inputs"][:, 0], carry.current_data["inputs"][:, 0])
        step = torch.where(carry.halted, 0, carry.steps) + 1
        due = torch.tensor([steps[int(t)] for t in first])
        hook.now = step >= due  # type: ignore[attr-defined]

    heads = model.inner.heads
    model.inner.heads = lambda z: heads(z) | {"wants": hook.now}  # type: ignore[attr-defined]
    model.halting.wants = wants  # type: ignore[method-assign]
    model.register_forward_pre_hook(hook, with_kwargs=True)


def test_in_an_episode_sequences_leave_the_batch_as_they_halt(small: Config) -> None:
    overrides = ("dynamics=episode", "arch.train_max_steps=4", "step_curriculum=[]")
    trainer = make_trainer(small("a", *overrides, *NEVER_EARLY, "max_steps=12"))
    when = {1: 1, 2: 2, 3: 3, 4: 4, 5: 9}
    halting_by_row(trainer, when)
    calls = watch(trainer)
    trainer.run()
    assert calls[0]["steps"] == [1] * 8
    for now, after in itertools.pairwise(calls):
        stay = [row for row, h in zip(now["rows"], now["halted"], strict=True) if not h]
        if stay:
            assert after["rows"] == stay
            assert after["steps"] == [now["steps"][0] + 1] * len(stay)
        else:
            assert after["steps"] == [1] * 8
    for call in calls:
        for row, step, halted in zip(call["rows"], call["steps"], call["halted"], strict=True):
            assert halted == (step >= min(4, when[row[0]]))
    assert len({len(c["rows"]) for c in calls}) > 2


def test_every_row_is_used_once_an_epoch_and_to_its_end(small: Config) -> None:
    for dynamics in ("online", "episode"):
        overrides = (f"dynamics={dynamics}", "epochs=2", "max_steps=null", "data.augment=none")
        trainer = make_trainer(small(dynamics, *overrides, "eval_every_steps=null"))
        limit = trainer.model.halting.train_max_steps
        calls = watch(trainer)
        trainer.run()
        started, ended = Counter(), Counter()  # type: ignore[var-annotated]
        for call in calls:
            for row, step, halted in zip(call["rows"], call["steps"], call["halted"], strict=True):
                started[row] += step == 1
                ended[row] += halted if dynamics == "episode" else step == limit
        assert started == ended
        assert sum(started.values()) == trainer.feeder.planned == trainer.feeder.admitted
        assert set(started.values()) == {2}


def test_the_gradient_of_an_episode_does_not_grow_as_its_batch_shrinks(small: Config) -> None:
    """Each sequence's step weighs one over the batch size, whoever else is still there."""
    overrides = ("dynamics=episode", "arch.train_max_steps=2", "step_curriculum=[]", *NEVER_EARLY)
    trainer = make_trainer(small("a", *overrides))
    halting_by_row(trainer, {1: 1, 2: 1, 3: 1, 4: 1, 5: 2})
    losses: list[float] = []

    def backward(loss: Tensor) -> None:
        losses.append(loss.item())
        loss.backward()

    sums = [trainer.dynamics.update(backward) for _ in range(2)]
    for loss, total in zip(losses, sums, strict=True):
        assert loss == pytest.approx(float(total["loss"]) / 8, rel=1e-6)
    assert 0 < int(sums[1]["rows"]) < 8


@pytest.mark.parametrize("dynamics", ["online", "episode"])
def test_two_micro_batches_equal_one(small: Config, dynamics: str) -> None:
    gradients = []
    for name, parts in (("one", 1), ("two", 2)):
        trainer = make_trainer(
            small(name, f"dynamics={dynamics}", f"grad_accumulation={parts}", *NEVER_EARLY)
        )
        for _ in range(2):
            trainer.dynamics.update(trainer._backward)
        gradients.append({k: p.grad for k, p in trainer.model.named_parameters()})
    for name, whole in gradients[0].items():
        assert whole is not None
        torch.testing.assert_close(gradients[1][name], whole, rtol=1e-4, atol=1e-6)


def test_each_batch_explores_with_random_numbers_of_its_own(small: Config) -> None:
    trainer = make_trainer(small("a", "dynamics=online", "num_act_steps=1", "max_steps=4"))
    calls = watch(trainer)
    trainer.run()
    seen = [state for call in calls for state in call["rng"]]
    assert len(set(seen)) == len(seen)


TOY = (
    "arch.hidden_size=32",
    "arch.num_heads=2",
    "arch.halt_max_steps=3",
    "arch.train_max_steps=2",
    "step_curriculum=[]",
    "global_batch_size=32",
    "max_steps=150",
    "lr=1e-2",
    "arch.H_cycles=1",
    "arch.L_cycles=1",
    "lr_schedule=constant",
    "ema_rate=0.9",
    "log_every_steps=30",
    "keep_checkpoints=1",
    "eval_every_steps=null",
)
POLICIES = {
    "bootstrap": ("arch.halting=q_learning", "arch.continue_target=bootstrap"),
    "pseudocode": ("arch.halting=q_learning", "arch.continue_target=pseudocode"),
    "next_step": ("arch.halting=q_learning", "arch.continue_target=next_step"),
    "halt_only": ("arch.halting=halt_only",),
    "convergence": ("arch.halting=convergence", "arch.halt_tolerance=0.9"),
    "fixed": ("arch.halting=fixed",),
}


QUICK = {("bootstrap", "persistent"), ("next_step", "episode"), ("halt_only", "online")}
"""One pair of each kind; the others are trained by `make test-all`."""


@pytest.mark.parametrize(
    ("policy", "dynamics"),
    [
        pytest.param(p, d, marks=() if {(p, d)} & {*QUICK, *REFUSED} else pytest.mark.slow)
        for p in POLICIES
        for d in ("persistent", "online", "episode")
    ],
)
def test_each_pair_of_policy_and_dynamics_learns_or_is_refused(
    trained: Trained, policy: str, dynamics: str
) -> None:
    settings = (*TOY, *POLICIES[policy], f"dynamics={dynamics}")
    if (policy, dynamics) in REFUSED:
        with pytest.raises(UserError, match=f"arch.halting={policy} with dynamics={dynamics}: no "):
            trained("a", *settings)
        return
    trainer = trained("a", *settings)
    last = trainer.rows()[-1]
    # A model that says the same everywhere is right in a quarter of the blanks.
    assert last["eval/accuracy"] > 0.9
    if dynamics == "online":
        assert not any("train/steps" in row for row in trainer.rows())
    else:
        steps = [row["train/steps"] for row in trainer.rows()]
        if policy == "fixed":
            assert steps == [2.0] * 5
        else:
            assert min(steps) < 1.95  # the policy did halt in training
    if policy not in ("fixed", "convergence"):  # Those have no head to learn.
        assert last["eval/q_halt_auroc_all_steps"] > 0.75


def test_a_number_of_steps_is_for_online_alone(small: Config) -> None:
    with pytest.raises(UserError, match="num_act_steps: dynamics=persistent does not read it"):
        small("a", "num_act_steps=3")
    with pytest.raises(UserError, match=r"num_act_steps: 99 is above arch\.halt_max_steps"):
        small("a", "dynamics=online", "num_act_steps=99")


def test_staggered_slots_do_not_march_in_step(small: Config) -> None:
    """Where nothing halts early, each slot ends at a time of its own, and stays so."""
    settings = ("stagger=true", "max_steps=12", "step_curriculum=[]", *NEVER_EARLY)
    trainer = make_trainer(small("a", *settings, "global_batch_size=32"))
    with torch.no_grad():
        trainer.model.inner.q_head.bias.fill_(-9.0)
    limit = trainer.model.halting.max_steps
    calls = watch(trainer)
    trainer.run()
    assert all(1 <= step <= limit for step in calls[1]["steps"])
    assert len(set(calls[1]["steps"])) > 1
    ends = [sum(c["halted"]) for c in calls[1:]]
    assert sum(ends[:limit]) == 32, "in as many steps as a sequence has, every slot ends once"
    assert max(ends) < 32
    assert ends[:limit] == ends[limit : 2 * limit]
