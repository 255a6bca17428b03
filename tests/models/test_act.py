"""Refill, halting and the look ahead of `carry, outputs = model(carry, batch)`."""

from collections.abc import Callable
from dataclasses import replace

import pytest
import torch

from hrm.carry import Carry
from hrm.models import TRM, HRMACTv1
from tests.models.helpers import awaken, small_batch, small_hrm, small_trm

Make = Callable[..., HRMACTv1 | TRM]


def always_halt(model: HRMACTv1 | TRM) -> None:
    with torch.no_grad():
        model.inner.q_head.bias.copy_(torch.tensor([5.0, -5.0]))


@pytest.mark.parametrize("make", [small_hrm, small_trm])
def test_running_slots_go_on_and_halted_ones_start_anew(make: Make) -> None:
    model = make(halt_max_steps=4).eval()
    first, second = small_batch(seed=1), small_batch(seed=2)
    with torch.no_grad():
        carry, _ = model(model.initial_carry(first), first)
        running, outputs_running = model(carry, first)
        fresh, outputs_fresh = model(model.initial_carry(second), second)
        carry = replace(carry, halted=torch.tensor([False, True, False, True]))
        mixed, outputs = model(carry, second)
    for slot, (expected, expected_outputs, rows) in enumerate(
        [(running, outputs_running, first), (fresh, outputs_fresh, second)] * 2
    ):
        assert mixed.steps[slot] == expected.steps[slot]
        torch.testing.assert_close(outputs["logits"][slot], expected_outputs["logits"][slot])
        for name in ("z_H", "z_L"):
            got = getattr(mixed.inner_carry, name)[slot]
            torch.testing.assert_close(got, getattr(expected.inner_carry, name)[slot])
        for key, value in mixed.current_data.items():
            assert torch.equal(value[slot], rows[key][slot]), key


def test_the_first_step_admits_the_whole_batch() -> None:
    model, batch = small_hrm(), {**small_batch(), "note": torch.arange(4)}
    carry = model.initial_carry(batch)
    assert carry.halted.all()
    carry, _ = model(carry, batch)
    assert carry.steps.tolist() == [1, 1, 1, 1]
    assert set(carry.current_data) == set(batch)
    for key, value in carry.current_data.items():
        assert torch.equal(value, batch[key])


def test_training_leaves_initial_latents_as_they_are() -> None:
    model = small_hrm()
    assert "inner.H_init" not in dict(model.named_parameters())
    carry = model.initial_carry(small_batch())
    z = model.inner.reset_latents(carry.inner_carry, torch.tensor([True, False, True, False]))
    assert torch.equal(z.z_H[0, 3], model.inner.H_init)
    assert torch.equal(z.z_L[2, 0], model.inner.L_init)
    assert not z.z_H[1].any()


@pytest.mark.parametrize("dtype", ["float32", "bfloat16"])
@pytest.mark.parametrize("make", [small_hrm, small_trm])
def test_an_untrained_model_never_halts_early(make: Make, dtype: str) -> None:
    model = make(halt_max_steps=5, halt_exploration_prob=0.0, forward_dtype=dtype).train()
    batch = small_batch()
    carry = model.initial_carry(batch)
    for step in range(1, 12):
        carry, _ = model(carry, batch)
        assert carry.steps.tolist() == [(step - 1) % 5 + 1] * 4
        assert carry.halted.tolist() == [step % 5 == 0] * 4


@pytest.mark.parametrize("make", [small_hrm, small_trm])
def test_evaluation_runs_to_the_limit_unless_adaptive(make: Make) -> None:
    model = make(halt_max_steps=3).eval()
    always_halt(model)
    batch = small_batch()
    with torch.no_grad():
        carry = model.initial_carry(batch)
        for step in (1, 2, 3):
            carry, outputs = model(carry, batch)
            assert carry.halted.tolist() == [step == 3] * 4
            assert "target_q_continue" not in outputs
        adaptive, _ = model(model.initial_carry(batch), batch, adaptive=True)
    assert adaptive.halted.all()
    assert adaptive.steps.tolist() == [1, 1, 1, 1]


@pytest.mark.parametrize("make", [small_hrm, small_trm])
@pytest.mark.parametrize("training", [True, False])
def test_a_limit_of_one_step(make: Make, training: bool) -> None:
    model = make(halt_max_steps=1, halt_exploration_prob=1.0).train(training)
    batch = small_batch()
    carry = model.initial_carry(batch)
    for _ in range(3):
        carry, outputs = model(carry, batch)
        assert carry.halted.all()
        assert carry.steps.tolist() == [1, 1, 1, 1]
        assert "target_q_continue" not in outputs


def step_without_halting(model: HRMACTv1, carry: Carry) -> dict[str, torch.Tensor]:
    return model(replace(carry, halted=torch.zeros(4, dtype=torch.bool)), small_batch())[1]


def test_bootstrap_target_is_the_value_of_the_step_that_follows() -> None:
    model = small_hrm(halt_max_steps=3).train()
    awaken(model)
    with torch.no_grad():
        model.inner.q_head.bias[0] -= 2.5  # so that going on is mostly worth more
    batch = small_batch()
    carry = model.initial_carry(batch, seed=0)
    for step in (1, 2, 3):
        carry, outputs = model(carry, batch)
        carry = replace(carry, halted=torch.zeros(4, dtype=torch.bool))
        following = step_without_halting(model, carry)
        best = following["q_halt_logits"]
        if step < 3:
            best = torch.maximum(best, following["q_continue_logits"])
        torch.testing.assert_close(outputs["target_q_continue"], best.sigmoid().detach())
    # At the last step the maximum would have been another number.
    assert (following["q_continue_logits"] > following["q_halt_logits"]).any()


def test_the_training_limit_is_where_bootstrapping_ends() -> None:
    model = small_hrm(halt_max_steps=3, train_max_steps=2).train()
    awaken(model)
    with torch.no_grad():
        model.inner.q_head.bias[0] -= 2.5
    batch = small_batch()
    carry = model.initial_carry(batch, seed=0)
    for _ in range(2):
        carry, outputs = model(carry, batch)
        carry = replace(carry, halted=carry.steps >= 2)
    following = step_without_halting(model, carry)
    torch.testing.assert_close(
        outputs["target_q_continue"], following["q_halt_logits"].sigmoid().detach()
    )
    assert (following["q_continue_logits"] > following["q_halt_logits"]).any()
    model.eval()
    carry = model.initial_carry(batch)
    for step in (1, 2, 3):
        carry, _ = model(carry, batch)
        assert carry.halted.tolist() == [step == 3] * 4


@pytest.mark.parametrize("exploration", ["per_step", "per_episode"])
def test_two_carries_of_half_the_slots_equal_one(exploration: str) -> None:
    model = small_hrm(
        halt_max_steps=6, halt_exploration_prob=0.7, exploration=exploration, batch_size=8
    ).train()
    always_halt(model)
    batch = small_batch(8)
    halves = [slice(0, 4), slice(4, 8)]
    whole = model.initial_carry(batch, seed=5)
    parts = [
        model.initial_carry({k: v[h] for k, v in batch.items()}, seed=5, first_slot=h.start)
        for h in halves
    ]
    seen = set()
    for _ in range(8):
        whole, _ = model(whole, batch)
        for i, h in enumerate(halves):
            parts[i], _ = model(parts[i], {k: v[h] for k, v in batch.items()})
        for name in ("steps", "halted", "rng"):
            together = torch.cat([getattr(part, name) for part in parts])
            assert torch.equal(getattr(whole, name), together), name
        seen.update(whole.steps[whole.halted].tolist())
    assert len(seen) > 2  # the slots did differ


def test_carries_without_a_seed_follow_torch() -> None:
    model, batch = small_hrm(), small_batch()
    torch.manual_seed(3)
    first, second = model.initial_carry(batch).rng, model.initial_carry(batch).rng
    torch.manual_seed(3)
    assert torch.equal(model.initial_carry(batch).rng, first)
    assert not torch.equal(first, second)


def gradients(model: HRMACTv1, loss: torch.Tensor) -> dict[str, torch.Tensor | None]:
    names, parameters = zip(*model.named_parameters(), strict=True)
    return dict(zip(names, torch.autograd.grad(loss, parameters, allow_unused=True), strict=True))


def test_pseudocode_learns_in_the_second_forward() -> None:
    model = small_hrm(continue_target="pseudocode", halt_exploration_prob=0.0).train()
    awaken(model)
    batch = small_batch()
    carry, _ = model(model.initial_carry(batch), batch)
    carry = replace(carry, halted=torch.zeros(4, dtype=torch.bool))
    after, outputs = model(carry, batch)
    learning = outputs["learning_q_continue_logits"]
    following = model(replace(after, halted=torch.zeros(4, dtype=torch.bool)), batch)[1]
    torch.testing.assert_close(learning, following["q_continue_logits"])
    assert not outputs["target_q_continue"].requires_grad
    ours, theirs = (
        gradients(model, x.square().sum()) for x in (learning, following["q_continue_logits"])
    )
    for name in ("inner.L_level.layers.0.mlp.down_proj.weight", "inner.q_head.weight"):
        got, expected = ours[name], theirs[name]
        assert got is not None
        assert got.any()
        torch.testing.assert_close(got, expected)


def test_bootstrap_does_not() -> None:
    model, batch = small_hrm().train(), small_batch()
    _, outputs = model(model.initial_carry(batch), batch)
    assert not outputs["target_q_continue"].requires_grad
    assert "learning_q_continue_logits" not in outputs


def test_next_step_judges_the_step_before_by_this_one_in_the_head_alone() -> None:
    model = small_hrm(
        continue_target="next_step", halt_max_steps=3, halt_exploration_prob=0.0
    ).train()
    awaken(model)
    with torch.no_grad():
        model.inner.q_head.bias.copy_(torch.tensor([-9.0, 1.0]))  # nobody halts
    calls = []
    model.inner.H_level.register_forward_pre_hook(lambda *_: calls.append(None))
    batch = small_batch()
    carry, before = model(model.initial_carry(batch), batch)
    assert not before["learning_slots"].any()
    for step in (2, 3):
        carry, outputs = model(carry, batch)
        assert outputs["learning_slots"].all()
        assert torch.equal(outputs["learning_q_continue_logits"], before["q_continue_logits"])
        best = outputs["q_halt_logits"]
        if step < 3:
            best = torch.maximum(best, outputs["q_continue_logits"])
        assert torch.equal(outputs["target_q_continue"], best.sigmoid())
        found = gradients(model, outputs["learning_q_continue_logits"].square().sum())
        reached = {name for name, gradient in found.items() if gradient is not None}
        assert reached == {"inner.q_head.weight", "inner.q_head.bias"}
        before = outputs
    assert len(calls) == 3 * 2  # no further forward
    # The next sequence has nothing to look back to.
    assert carry.halted.all()
    assert not model(carry, small_batch(seed=2))[1]["learning_slots"].any()
