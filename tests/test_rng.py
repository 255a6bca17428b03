"""Random numbers of slots: keyed by seed, global slot and count, and spread evenly."""

import pytest
import torch

from hrm.rng import draw, fork, normals, slot_states


def many(seed: int, slots: int, draws: int, first_slot: int = 0) -> torch.Tensor:
    """Draws `(draws, slots)`."""
    states, out = slot_states(seed, slots, first_slot), []
    for _ in range(draws):
        numbers, states = draw(states)
        out.append(numbers)
    return torch.stack(out)


def test_two_halves_draw_what_the_whole_draws() -> None:
    halves = [many(7, 4, 5), many(7, 4, 5, first_slot=4)]
    assert torch.equal(torch.cat(halves, 1), many(7, 8, 5))


@pytest.mark.parametrize("seed", [0, 1, 2**62 - 1])
def test_draws_repeat_and_lie_in_the_unit_interval(seed: int) -> None:
    numbers = many(seed, 64, 50)
    assert torch.equal(numbers, many(seed, 64, 50))
    assert numbers.dtype == torch.float32
    assert (numbers >= 0).all()
    assert (numbers < 1).all()


def test_seeds_and_slots_and_counts_give_other_numbers() -> None:
    numbers = torch.cat([many(seed, 100, 20).flatten() for seed in range(3)])
    assert len(numbers.unique()) > 0.99 * len(numbers)


def test_numbers_are_uniform_and_unrelated() -> None:
    numbers = many(3, 1000, 40).double()  # 40000: a deviation of 0.005 in a tenth is 3.3 sigma
    shares = torch.histc(numbers, 10, 0, 1) / numbers.numel()
    torch.testing.assert_close(shares, torch.full_like(shares, 0.1), atol=0.006, rtol=0)
    centred = numbers - 0.5
    after = (centred[1:] * centred[:-1]).mean() * 12  # correlation of a slot's next draw
    beside = (centred[:, 1:] * centred[:, :-1]).mean() * 12  # and of the next slot's
    assert abs(after) < 0.025
    assert abs(beside) < 0.025


def test_normals_are_the_keys_own_and_nobody_elses() -> None:
    keys, after = fork(slot_states(7, 8))
    halves = [normals(fork(slot_states(7, 4, first))[0], 5) for first in (0, 4)]
    assert torch.equal(torch.cat(halves), normals(keys, 5))
    assert not torch.equal(normals(fork(after)[0], 5), normals(keys, 5))
    # The slot's own numbers go on from the state that follows.
    assert torch.equal(draw(after)[0], many(7, 8, 2)[1])


def test_normals_are_normal_and_unrelated() -> None:
    numbers = normals(fork(slot_states(3, 400))[0], 101).double()  # 40400
    assert numbers.shape == (400, 101)
    assert abs(numbers.mean()) < 0.02
    assert abs(numbers.var() - 1) < 0.03
    for limit, share in ((1.0, 0.3173), (2.0, 0.0455)):
        assert abs((numbers.abs() > limit).double().mean() - share) < 0.008
    assert torch.isfinite(numbers).all()
    assert numbers.abs().max() < 5.9
    beside = (numbers[:, 1:] * numbers[:, :-1]).mean()
    across = (numbers[1:] * numbers[:-1]).mean()
    pairs = (numbers[:, :50] * numbers[:, 51:]).mean()  # a radius's two
    assert max(abs(beside), abs(across), abs(pairs)) < 0.025
