"""Convergence on hand-made sequences, in a model, and as a policy to train with."""

from collections.abc import Callable
from dataclasses import replace

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from torch import Tensor

from hrm.errors import UserError
from hrm.halting import Convergence
from hrm.halting.convergence import unchanged
from hrm.inference import solve
from tests.halting.playing import CPU, halting_steps, outputs_of
from tests.models.helpers import small_batch, small_hrm, small_trm

CHANGES = [[0.9, 0.9, 0.3], [0.4, 0.5, 0.3], [0.2, 0.6, 0.3], [0.19, 0.7, 0.1]]
"""By step, of three slots."""


def test_the_settings_of_a_model_are_those_of_its_policy() -> None:
    made = small_hrm(
        halting="convergence", halt_second_tolerance=0.2, halt_unchanged_steps=3, train_max_steps=2
    ).halting
    assert isinstance(made, Convergence)
    assert (made.tolerance, made.second_tolerance) == (None, 0.2)
    assert (made.unchanged_steps, made.seq_len, made.train_max_steps) == (3, 6, 2)
    plain = small_trm(halting="convergence", halt_tolerance=0.3).halting
    assert isinstance(plain, Convergence)
    assert plain.tolerance == 0.3


def by_change(changes: list[list[float]]) -> list[dict[str, Tensor]]:
    return [outputs_of(change=change) for change in changes]


def by_tokens(words: list[list[str]]) -> list[dict[str, Tensor]]:
    return [outputs_of(tokens=[[int(c) for c in word] for word in step]) for step in words]


def test_halts_below_the_tolerance_and_not_at_it() -> None:
    sequence = by_change([[0.5, 0.25, 0.25], [0.25, 0.5, 0.25], [0.125, 0.5, 0.25]])
    assert halting_steps(Convergence(9, tolerance=0.25), sequence) == [3, 4, 4]
    assert halting_steps(Convergence(9, tolerance=0.26), sequence) == [2, 1, 1]


def test_the_second_difference_needs_two_steps() -> None:
    # Differences 0.5 0.2 0.01, then 0.4 0.1 0.1, then 0 0 0.2.
    policy = Convergence(9, second_tolerance=0.05)
    assert halting_steps(policy, by_change(CHANGES)) == [4, 5, 2]
    wider = Convergence(9, second_tolerance=0.15)
    assert halting_steps(wider, by_change(CHANGES)) == [4, 3, 2]
    assert halting_steps(wider, by_change([[0.0]])) == [2]


def test_unchanged_predictions_are_counted_in_a_row() -> None:
    words = [["111", "111"], ["111", "112"], ["112", "112"], ["112", "112"], ["112", "111"]]
    by_patience = {}
    for m in (1, 2, 3):
        policy = Convergence(9, unchanged_steps=m, seq_len=3)
        by_patience[m] = halting_steps(policy, by_tokens(words))
    assert by_patience == {1: [2, 3], 2: [5, 4], 3: [6, 6]}


def test_all_that_is_given_must_hold() -> None:
    words = [["11"], ["11"], ["12"], ["12"]]
    sequence = [
        now | {"latent_change": torch.tensor([change])}
        for now, change in zip(by_tokens(words), (0.5, 0.3, 0.1, 0.05), strict=True)
    ]
    both = Convergence(9, tolerance=0.2, unchanged_steps=1, seq_len=2)
    assert halting_steps(both, sequence) == [4]
    third = Convergence(9, tolerance=0.2, second_tolerance=0.04, unchanged_steps=1, seq_len=2)
    assert halting_steps(third, sequence) == [5]


def test_a_broken_latent_never_counts_as_settled() -> None:
    sequence = by_change([[float("nan")]] * 3)
    assert halting_steps(Convergence(9), sequence) == [4]
    policy = Convergence(9, second_tolerance=9.0)
    assert halting_steps(policy, sequence) == [4]


def test_the_limit_and_evaluation_are_those_of_every_policy() -> None:
    still = by_change([[0.0]] * 5)
    policy = Convergence(4, train_max_steps=3, tolerance=1e-9)
    assert halting_steps(policy, still, adaptive=False) == [4]
    assert halting_steps(policy, still) == [1]
    moving = by_change([[1.0]] * 5)
    assert halting_steps(policy, moving) == [4]
    assert halting_steps(policy, moving, training=True) == [3]
    explores = Convergence(4, 1.0)
    assert set(halting_steps(explores, by_change([[0.0] * 64] * 5), training=True)) == {2, 3, 4}


def test_without_a_criterion_it_is_the_latent_and_a_length_is_needed_for_predictions() -> None:
    assert halting_steps(Convergence(9), by_change([[0.11], [0.09]])) == [2]
    assert not Convergence(9, unchanged_steps=1, seq_len=3).wants_change
    with pytest.raises(UserError, match="unchanged_steps needs seq_len"):
        Convergence(4, unchanged_steps=2)


@given(st.lists(st.integers(0, 1), min_size=1, max_size=8))
def test_the_count_of_unchanged_steps_equals_a_slow_twin(tokens: list[int]) -> None:
    count = torch.zeros(1, dtype=torch.int32)
    before = torch.full((1, 1), -1, dtype=torch.int32)
    for i, token in enumerate(tokens):
        now = torch.full((1, 1), token, dtype=torch.int32)
        count, before = unchanged(now, before, count), now
        run = 0
        while run < i and tokens[i - run - 1] == token:
            run += 1
        assert count.tolist() == [run]


def test_the_next_sequence_in_a_slot_starts_anew() -> None:
    """The memory lies in the carry, which refill resets for halted slots alone."""
    model = small_trm(
        halting="convergence",
        halt_second_tolerance=1e-9,
        halt_unchanged_steps=2,
        halt_max_steps=9,
    )
    batch, model = small_batch(), model.eval()
    policy = model.halting
    fresh = policy.fresh_extra(4, CPU)
    carry = model.initial_carry(batch, seed=0)
    for _ in range(3):
        carry, _ = model(carry, batch, adaptive=True)
    kept = {k: v.clone() for k, v in carry.extra.items()}
    assert kept.keys() == fresh.keys()
    assert all((kept[k][1] != fresh[k][1]).any() for k in kept if k != "unchanged_steps")
    halted = torch.tensor([True, False, True, False])
    refilled = replace(carry, halted=halted).refill(batch, model.inner.reset_latents, fresh)
    for name, value in refilled.extra.items():
        assert torch.equal(value[halted], fresh[name][halted])
        assert torch.equal(value[~halted], kept[name][~halted])


@pytest.mark.parametrize("make", [small_hrm, small_trm])
def test_a_model_that_was_trained_otherwise_halts_by_it(
    make: Callable[..., torch.nn.Module],
) -> None:
    model, batch = make(halt_max_steps=6), small_batch()
    changes = []
    carry = model.initial_carry(batch, seed=0, halting=Convergence(6))  # type: ignore[operator]
    for _ in range(6):
        carry, outputs = model.eval()(carry, batch, halting=Convergence(6))
        changes.append(outputs["latent_change"])
    tolerance = float(torch.stack(changes)[1:4].median())
    model.halting = Convergence(6, tolerance=tolerance)  # type: ignore[assignment]
    below = torch.stack(changes) < tolerance
    expected = torch.where(below.any(0), below.int().argmax(0) + 1, 6)
    for mode in ("adaptive", "max_steps"):
        done = solve(model, batch, mode)  # type: ignore[arg-type]
        assert done.policy_steps.tolist() == expected.tolist()
    assert len(set(expected.tolist())) > 1


@pytest.mark.parametrize("mode", ["adaptive", "max_steps"])
def test_a_trajectory_tells_the_wishes_of_a_policy_with_memory(mode: str) -> None:
    model, batch = small_trm(halt_max_steps=6), small_batch()
    model.halting = Convergence(6, unchanged_steps=1, seq_len=6)
    predictions = solve(model, batch, "max_steps").predictions
    same = (predictions[1:] == predictions[:-1]).all(-1)
    expected = torch.where(same.any(0), same.int().argmax(0) + 2, 6)
    done = solve(model, batch, mode)  # type: ignore[arg-type]
    assert done.policy_steps.tolist() == expected.tolist()
    if mode == "adaptive":
        assert done.stopped_at.tolist() == expected.tolist()
    assert expected.min() < 6
