"""Random numbers by counter: a draw is a hash of its key, so it does not depend on when it is made.

The mixing function is SplitMix64's finaliser (Steele, Lea, Flood: "Fast splittable pseudorandom
number generators", 2014), vectorised over numpy arrays.
"""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

Keys = NDArray[np.uint64]

_GOLDEN = np.uint64(0x9E3779B97F4A7C15)
_MIX_1 = np.uint64(0xBF58476D1CE4E5B9)
_MIX_2 = np.uint64(0x94D049BB133111EB)
_MASK = (1 << 64) - 1


def mix(values: Keys) -> Keys:
    """A bijection of 64-bit integers: every input bit moves every output bit. Same shape."""
    mixed = values ^ (values >> np.uint64(30))
    mixed *= _MIX_1
    mixed ^= mixed >> np.uint64(27)
    mixed *= _MIX_2
    mixed ^= mixed >> np.uint64(31)
    return mixed


def keys_of(seed: int, *parts: NDArray[np.integer] | int) -> Keys:
    """One key per element of the broadcast `parts` (1-D arrays or integers) and `seed`: [n]."""
    key = mix(np.array([seed & _MASK], dtype=np.uint64) + _GOLDEN)
    for part in parts:
        key = mix((key ^ np.atleast_1d(np.asarray(part)).astype(np.uint64)) + _GOLDEN)
    return key


def draws(keys: Keys, count: int) -> Keys:
    """SplitMix64's first `count` outputs for each key: `[n]` -> `[n, count]`."""
    steps = np.arange(1, count + 1, dtype=np.uint64) * _GOLDEN
    return mix(keys[:, None] + steps)
