"""Counter-based random numbers: a draw depends on seed, global slot and count, not on who asks.

A slot's state is one int64. It lives in the carry, so a resumed run draws what the killed one would
have drawn, and N processes draw what one process would. The mixing is SplitMix64 (Steele, Lea and
Flood 2014), in wrapping int64 arithmetic.
"""

from __future__ import annotations

import math

import torch
from jaxtyping import Float, Int
from torch import Tensor

# The published constants, written as signed 64-bit integers.
_GOLDEN = 0x9E3779B97F4A7C15 - 2**64
_MIX_1 = 0xBF58476D1CE4E5B9 - 2**64
_MIX_2 = 0x94D049BB133111EB - 2**64


def _shift_right(x: Tensor, bits: int) -> Tensor:
    """Logical right shift: int64's own shift would copy the sign bit."""
    return (x >> bits) & ((1 << (64 - bits)) - 1)


def _mix(x: Tensor) -> Tensor:
    x = (x ^ _shift_right(x, 30)) * _MIX_1
    x = (x ^ _shift_right(x, 27)) * _MIX_2
    return x ^ _shift_right(x, 31)


def slot_states(
    seed: int, slots: int, first_slot: int = 0, device: torch.device | str | None = None
) -> Int[Tensor, " slots"]:
    """States of the global slots `first_slot .. first_slot + slots - 1` under `seed`."""
    index = torch.arange(first_slot + 1, first_slot + slots + 1, dtype=torch.int64, device=device)
    return _mix(_mix(index * _GOLDEN) + seed * _MIX_2 % 2**63)


def draw(states: Int[Tensor, " slots"]) -> tuple[Float[Tensor, " slots"], Int[Tensor, " slots"]]:
    """One uniform number of [0, 1) per slot, and the states that follow."""
    states = states + _GOLDEN
    return _shift_right(_mix(states), 40).to(torch.float32) * 2.0**-24, states


def fork(states: Int[Tensor, " slots"]) -> tuple[Int[Tensor, " slots"], Int[Tensor, " slots"]]:
    """A key per slot for `normals`, unrelated to the slot's own numbers, and the states that
    follow."""
    states = states + _GOLDEN
    return _mix(_mix(states) ^ _MIX_1), states


def normals(keys: Int[Tensor, " slots"], count: int) -> Float[Tensor, "slots count"]:
    """Standard normal float32 numbers of each key (Box and Muller 1958), none beyond 5.8."""
    pairs = torch.arange(1, -(-count // 2) + 1, dtype=torch.int64, device=keys.device)
    bits = _mix(keys[:, None] + pairs * _GOLDEN)
    # 24 bits each for a radius, of a number in (0, 1], and an angle.
    radius = ((_shift_right(bits, 40) + 1).to(torch.float32) * 2.0**-24).log().mul(-2).sqrt()
    angle = (bits & (2**24 - 1)).to(torch.float32) * (2 * math.pi * 2.0**-24)
    return torch.cat((radius * angle.cos(), radius * angle.sin()), dim=1)[:, :count]
