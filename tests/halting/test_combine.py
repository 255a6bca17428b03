"""Combinations on hand-made sequences, and what holds of all of them."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor

from hrm.carry import per_slot
from hrm.errors import UserError
from hrm.halting import (
    AllOf,
    AnyOf,
    Confirm,
    Convergence,
    Decision,
    Fixed,
    Halting,
    HaltOnly,
    QLearning,
)
from hrm.inference import solve
from hrm.rng import slot_states
from tests.halting.playing import CPU, halting_steps, outputs_of
from tests.models.helpers import awaken, small_batch, small_trm

LIMIT = 7


def by_q(*steps: str) -> list[dict[str, Tensor]]:
    """`+` where q_halt is positive and so above a q_continue of 0; a character a slot."""
    return [outputs_of(q_halt=[1.0 if c == "+" else -1.0 for c in step]) for step in steps]


MEMBERS: list[Callable[[], Halting]] = [
    lambda: QLearning(LIMIT, lead=0.5),
    lambda: HaltOnly(LIMIT, threshold=0.6),
    lambda: Convergence(LIMIT, tolerance=0.5),
    lambda: Convergence(LIMIT, second_tolerance=0.3),
    lambda: Convergence(LIMIT, unchanged_steps=2, seq_len=2),
    lambda: Fixed(LIMIT),
]

descriptions = st.recursive(
    st.integers(0, len(MEMBERS) - 1),
    lambda inner: st.one_of(
        st.tuples(st.integers(1, 3), inner),
        st.tuples(st.sampled_from(["all", "any"]), st.lists(inner, min_size=1, max_size=3)),
    ),
    max_leaves=4,
)
"""Of members and nested combinations: (2, 0) is member 0 confirmed twice."""
groups = st.lists(descriptions, min_size=1, max_size=3)
seeds = st.integers(0, 2**31)
few = settings(max_examples=25)


def made(description: Any) -> Halting:
    if isinstance(description, int):
        return MEMBERS[description]()
    kind, inside = description
    if isinstance(kind, int):
        return Confirm(made(inside), kind)
    return (AllOf if kind == "all" else AnyOf)([made(one) for one in inside])


def drawn(seed: int, steps: int = 9) -> list[dict[str, Tensor]]:
    """Outputs of 20 slots in which any criterion may or may not be met."""
    generator = torch.Generator().manual_seed(seed)
    values = torch.randn(steps, 2, 20, generator=generator)
    changes = torch.rand(steps, 20, generator=generator)
    tokens = torch.randint(2, (steps, 20, 2), generator=generator)
    return [
        outputs_of(*values[i].tolist(), changes[i].tolist(), tokens[i].tolist())
        for i in range(steps)
    ]


def test_a_wish_is_confirmed_in_consecutive_steps() -> None:
    sequence = by_q("+-", "-+", "++", "++", "+-", "++", "++")
    policy = HaltOnly(9)
    by_steps = {m: halting_steps(Confirm(policy, m), sequence) for m in (1, 2, 3, 4)}
    assert by_steps == {1: [1, 2], 2: [4, 3], 3: [5, 4], 4: [6, 8]}


def test_all_and_any_by_hand() -> None:
    sequence = [
        outputs_of(q_halt=[1.0, -1.0], change=[0.9, 0.01]),
        outputs_of(q_halt=[-1.0, -1.0], change=[0.01, 0.9]),
        outputs_of(q_halt=[1.0, 1.0], change=[0.01, 0.01]),
    ]
    pair = [HaltOnly(9), Convergence(9, tolerance=0.1)]
    assert halting_steps(AllOf(pair), sequence) == [3, 3]
    assert halting_steps(AnyOf(pair), sequence) == [1, 1]
    assert halting_steps(Confirm(AnyOf(pair), 2), sequence) == [2, 4]
    assert halting_steps(AllOf([Confirm(pair[0], 1), Confirm(pair[1], 2)]), sequence) == [3, 4]


@few
@given(seeds, groups)
def test_all_of_halts_no_earlier_and_any_of_no_later(seed: int, group: list[Any]) -> None:
    sequence, policies = drawn(seed), [made(one) for one in group]
    alone = torch.tensor([halting_steps(policy, sequence) for policy in policies])
    assert (torch.tensor(halting_steps(AllOf(policies), sequence)) >= alone.amax(0)).all()
    # Any-of is exactly the earliest: its first wish is the first of some member's.
    assert halting_steps(AnyOf(policies), sequence) == alone.amin(0).tolist()


@few
@given(seeds, descriptions, st.integers(1, 4))
def test_confirming_once_is_the_policy_and_more_is_later(
    seed: int, description: Any, steps: int
) -> None:
    sequence, policy = drawn(seed), made(description)
    once, more, most = (halting_steps(Confirm(policy, m), sequence) for m in (1, steps, steps + 1))
    assert once == halting_steps(policy, sequence)
    assert all(a <= b for a, b in zip(more, most, strict=True))


@few
@given(seeds, descriptions, st.integers(1, 9))
def test_nothing_halts_beyond_the_limit_and_evaluation_is_to_it(
    seed: int, description: Any, steps: int
) -> None:
    sequence, policy = drawn(seed, steps), made(description)
    last = min(LIMIT, steps + 1)
    assert halting_steps(AllOf([policy, Fixed(LIMIT)]), sequence) == [last] * 20
    assert halting_steps(policy, sequence, adaptive=False) == [last] * 20
    assert max(halting_steps(policy, sequence)) <= last


@few
@given(seeds, descriptions)
def test_slots_do_not_touch_one_another(seed: int, description: Any) -> None:
    sequence, policy = drawn(seed), made(description)
    part = [{k: v[3:5] for k, v in now.items()} for now in sequence]
    assert halting_steps(policy, sequence)[3:5] == halting_steps(policy, part)


@few
@given(seeds, descriptions, st.integers(1, 5))
def test_a_refilled_slot_is_a_fresh_sequence(seed: int, description: Any, before: int) -> None:
    """Refill puts the fresh tensors in, by name; what was there leaves no trace."""
    sequence, policy = drawn(seed), made(description)
    fresh = policy.fresh_memory(20, CPU)
    memory = fresh
    for outputs in sequence[:before]:
        _, memory = policy.wish(outputs, memory)
        assert set(memory) == set(fresh)
    ended = torch.arange(20) < 8
    memory = {k: torch.where(per_slot(ended, v), fresh[k], v) for k, v in memory.items()}
    for outputs in sequence:
        wanted, memory = policy.wish(outputs, memory)
        expected, fresh = policy.wish(outputs, fresh)
        assert torch.equal(wanted[:8], expected[:8])


def test_nested_names_do_not_clash() -> None:
    patience = Convergence(LIMIT, unchanged_steps=1, seq_len=2)
    nested = AllOf([Confirm(Confirm(patience, 2), 2), patience, Confirm(HaltOnly(LIMIT), 3)])
    assert set(nested.fresh_extra(1, CPU)) == {
        "0.confirmed",
        "0.0.confirmed",
        "0.0.0.predictions",
        "0.0.0.unchanged_steps",
        "1.predictions",
        "1.unchanged_steps",
        "2.confirmed",
    }


def decided(policy: Halting, step: int, extra: dict[str, Tensor], slots: int) -> Decision:
    outputs = outputs_of(q_halt=[1.0] * slots)
    steps = torch.full((slots,), step, dtype=torch.int32)
    return policy.decide(
        outputs, steps, slot_states(step, slots), extra, training=True, adaptive=False
    )


@pytest.mark.parametrize("exploration", ["per_step", "per_episode"])
def test_exploration_is_the_combination_s_and_drawn_once(exploration: str) -> None:
    slots = 400
    single = HaltOnly(4, 0.5, exploration)  # type: ignore[arg-type]
    policy = AllOf([single, Confirm(HaltOnly(4, 0.5, exploration), 1)])  # type: ignore[arg-type]
    mine, theirs = policy.fresh_extra(slots, CPU), single.fresh_extra(slots, CPU)
    for step in (1, 2, 3, 4):
        ours, alone = decided(policy, step, mine, slots), decided(single, step, theirs, slots)
        assert torch.equal(ours.halted, alone.halted)
        mine, theirs = ours.extra, alone.extra
    assert ("min_steps" in mine) == (exploration == "per_episode")


def test_what_members_need_the_combination_needs() -> None:
    plain, change = HaltOnly(4), Convergence(4)
    assert not Confirm(plain, 2).wants_change
    assert AnyOf([plain, Confirm(change, 2)]).wants_change
    assert AnyOf([plain, QLearning(4)]).values_going_on
    assert not AllOf([Convergence(4), Fixed(4)]).values_halting
    assert AnyOf([Fixed(4), plain]).learned
    assert not AllOf([Fixed(4), plain]).learned


def test_what_cannot_be_combined_is_one_sentence() -> None:
    with pytest.raises(UserError, match="AllOf: its policies differ in max_steps: 4, 5"):
        AllOf([HaltOnly(4), HaltOnly(5)])
    with pytest.raises(UserError, match=r"AnyOf: its policies differ in exploration_prob: 0\.0, 0"):
        AnyOf([HaltOnly(4), HaltOnly(4, 0.1)])
    with pytest.raises(UserError, match="AnyOf: give at least one policy"):
        AnyOf([])
    with pytest.raises(UserError, match="Confirm: steps is 0, but it is at least 1"):
        Confirm(HaltOnly(4), 0)
    zeros = torch.zeros(1, dtype=torch.bool)
    with pytest.raises(NotImplementedError, match="AllOf teaches nothing: train with a member"):
        AllOf([HaltOnly(4)]).losses(outputs_of(q_halt=[0.0]), zeros, zeros)


def test_a_model_serves_a_nested_combination_alike_in_both_ways() -> None:
    """Rows that leave, each at its own step, take their memory along."""
    model, batch = small_trm(halt_max_steps=8, forward_dtype="float32"), small_batch()
    awaken(model)
    patience = Convergence(8, unchanged_steps=1, seq_len=6)
    moved = Convergence(8, second_tolerance=0.05)
    model.halting = AnyOf([Confirm(patience, 2), AllOf([HaltOnly(8), moved])])
    adaptive, whole = solve(model, batch, "adaptive"), solve(model, batch, "max_steps")
    assert adaptive.stopped_at.tolist() == whole.policy_steps.tolist()
    assert len(set(adaptive.stopped_at.tolist())) > 1
