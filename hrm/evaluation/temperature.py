"""Temperature scaling of a halt head: one number that makes its chances honest.

Guo et al. 2017, arXiv:1706.04599, for the two classes right and wrong. It moves no answer and no
order of answers; a head whose average is off, rather than its confidence, it cannot mend.
"""

from __future__ import annotations

import math

import numpy as np
from jaxtyping import Bool, Float

from hrm.evaluation.halting import probability

LOWEST, HIGHEST = 0.05, 20.0
"""Of temperatures. A head that is never wrong has its optimum at 0, one that knows nothing at
infinity."""


def log_loss(
    q_halt: Float[np.ndarray, "*shape"],
    correct: Bool[np.ndarray, "*shape"],
    temperature: float = 1.0,
) -> float:
    """Mean negative log likelihood, in nats, of `sigmoid(q_halt / temperature)`."""
    scaled = q_halt.astype(np.float64) / temperature
    return float(np.logaddexp(0.0, np.where(correct, -scaled, scaled)).mean())


def fit_temperature(
    q_halt: Float[np.ndarray, "*shape"], correct: Bool[np.ndarray, "*shape"]
) -> float:
    """The temperature from `LOWEST` to `HIGHEST` with the least `log_loss`.

    The loss is convex in the slope 1 / temperature: its derivative is bisected.
    """
    logits = q_halt.astype(np.float64)

    def rises(slope: float) -> bool:
        return bool((logits * (probability(slope * logits) - correct)).sum() > 0)

    low, high = math.log(1 / HIGHEST), math.log(1 / LOWEST)
    if rises(math.exp(low)):
        return HIGHEST
    if not rises(math.exp(high)):
        return LOWEST
    for _ in range(50):
        middle = (low + high) / 2
        low, high = (low, middle) if rises(math.exp(middle)) else (middle, high)
    return math.exp(-(low + high) / 2)
