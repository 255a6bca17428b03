"""How good a halting policy is, where the cost of halting at each step of each row is known.

`cost[n - 1]` is `J_n = task loss after n steps + lambda * n` of each row, and `best` its optimal
step k*. What each figure is good for:

- regret is what the policy is meant to lower, in units of the cost. Alone it says little: where all
  rows want the same depth, a constant policy has almost none.
- gap_closed puts it on a scale from the best fixed depth (0) to the oracle (1); below 0 one had
  better halt all rows at that depth. A few rows may decide it: gap_closed_error tells.
- agreement counts hits of k* however little a miss costs. Where most rows share one k*, a constant
  policy has much of it.
- spearman and steps_std show a constant policy for what it is: it has no rank correlation (None)
  and a spread of 0. A spread without correlation is halting by chance, and so is a cost no lower
  than that of `random_halting`, whose histogram of steps is the same.

Steps count from 1.
"""

from __future__ import annotations

from typing import Any, TypedDict

import numpy as np
from jaxtyping import Float, Integer, Shaped

from hrm.evaluation.exact import at_step
from hrm.evaluation.halting import steps_histogram


def agreement(steps: Integer[np.ndarray, " rows"], best: Integer[np.ndarray, " rows"]) -> float:
    """Share of rows whose step is k*."""
    return float((steps == best).mean())


def agreement_within_1(
    steps: Integer[np.ndarray, " rows"], best: Integer[np.ndarray, " rows"]
) -> float:
    """Share of rows whose step is k* or next to it."""
    return float((np.abs(steps.astype(np.int64) - best.astype(np.int64)) <= 1).mean())


def regret(cost: Float[np.ndarray, "steps rows"], steps: Integer[np.ndarray, " rows"]) -> float:
    """Mean over rows of the cost at the policy's step above the lowest one; 0 of the oracle."""
    return float((at_step(cost, steps) - cost.min(0)).astype(np.float64).mean())


def fixed_depth_costs(cost: Float[np.ndarray, "steps rows"]) -> Float[np.ndarray, " steps"]:
    """Mean cost if all rows halt at step 1, 2, ..."""
    return cost.mean(1, dtype=np.float64)


def gap_closed(
    cost: Float[np.ndarray, "steps rows"], steps: Integer[np.ndarray, " rows"]
) -> float | None:
    """The share of the best fixed depth's regret that the policy saves; 1 of the oracle.

    None where the best fixed depth has no regret: there is nothing to gain by halting otherwise.
    """
    fixed = regret(cost, np.full(len(steps), fixed_depth_costs(cost).argmin() + 1))
    return (fixed - regret(cost, steps)) / fixed if fixed > 0 else None


def gap_closed_error(
    cost: Float[np.ndarray, "steps rows"], steps: Integer[np.ndarray, " rows"]
) -> float | None:
    """Standard error of `gap_closed` as an estimate for other rows of the same kind.

    That of a ratio of means (delta method), the best fixed depth taken as known; None of a single
    row. A handful of rows can hold much of the regret. So it may be large where there are many, and
    too small where few of the costly ones are among them.
    """
    if len(steps) < 2 or (share := gap_closed(cost, steps)) is None:
        return None
    fixed = cost[fixed_depth_costs(cost).argmin()].astype(np.float64)
    saved, gap = fixed - at_step(cost, steps), fixed - cost.min(0)
    return float(np.sqrt(((saved - share * gap) ** 2).sum()) / gap.sum())


def random_halting(
    cost: Float[np.ndarray, "steps rows"], steps: Integer[np.ndarray, " rows"]
) -> float:
    """Expected mean cost if the policy's steps were dealt to the rows by chance."""
    shares = np.array(steps_histogram(steps, len(cost))) / len(steps)
    return float((shares * fixed_depth_costs(cost)).sum())


def mean_steps(steps: Integer[np.ndarray, " rows"]) -> float:
    """Mean over rows."""
    return float(steps.mean())


def steps_std(steps: Integer[np.ndarray, " rows"]) -> float:
    """Standard deviation over rows; 0 of a constant policy."""
    return float(steps.std())


def spearman(
    steps: Integer[np.ndarray, " rows"], difficulty: Shaped[np.ndarray, " rows"]
) -> float | None:
    """Rank correlation (Spearman 1904), ties sharing their mean rank; None if either is constant.

    A rank correlation, since difficulty need not be in units of steps.
    """
    first, second = _mean_ranks(steps), _mean_ranks(difficulty)
    first, second = first - first.mean(), second - second.mean()
    spread = np.sqrt((first**2).sum() * (second**2).sum())
    return float((first * second).sum() / spread) if spread > 0 else None


def _mean_ranks(values: Shaped[np.ndarray, " rows"]) -> Float[np.ndarray, " rows"]:
    _, index, counts = np.unique(values, return_inverse=True, return_counts=True)
    return (np.cumsum(counts) - (counts - 1) / 2)[index]


class DifficultyBin(TypedDict):
    """Rows whose difficulty is in [low, high], both included."""

    low: float
    high: float
    count: int
    mean_steps: float
    mean_optimal_steps: float | None
    """Mean k*; None where it is not known."""


def by_difficulty(
    steps: Integer[np.ndarray, " rows"],
    difficulty: Shaped[np.ndarray, " rows"],
    best: Integer[np.ndarray, " rows"] | None = None,
    bins: int = 10,
) -> list[DifficultyBin]:
    """Rows by rising difficulty in at most `bins` groups of about as many; equals stay together."""
    edges = np.unique(np.quantile(difficulty, np.linspace(0, 1, bins + 1), method="higher"))
    group = np.searchsorted(edges[1:], difficulty)
    found = []
    for i in np.unique(group):
        rows = group == i
        found.append(
            DifficultyBin(
                low=float(difficulty[rows].min()),
                high=float(difficulty[rows].max()),
                count=int(rows.sum()),
                mean_steps=mean_steps(steps[rows]),
                mean_optimal_steps=None if best is None else mean_steps(best[rows]),
            )
        )
    return found


def step_figures(
    steps: Integer[np.ndarray, " rows"], difficulty: Shaped[np.ndarray, " rows"] | None = None
) -> dict[str, float | None]:
    """What a policy's steps alone tell: `mean_steps`, `steps_std`, `spearman`.

    `spearman` is None without a difficulty too.
    """
    return {
        "mean_steps": mean_steps(steps),
        "steps_std": steps_std(steps),
        "spearman": None if difficulty is None else spearman(steps, difficulty),
    }


def policy_figures(
    cost: Float[np.ndarray, "steps rows"],
    steps: Integer[np.ndarray, " rows"],
    best: Integer[np.ndarray, " rows"],
    difficulty: Shaped[np.ndarray, " rows"] | None = None,
) -> dict[str, Any]:
    """All figures of this file by their names.

    `step_figures` and `agreement`, `agreement_within_1`, `cost` (mean at the policy's step),
    `regret`, `gap_closed`, `gap_closed_error`, `random_cost`, `oracle_cost` (lowest of each row)
    and `fixed_depth_costs` (a list). Raises `ValueError` for a step outside of 1 to the number of
    steps.
    """
    return {
        **step_figures(steps, difficulty),
        "agreement": agreement(steps, best),
        "agreement_within_1": agreement_within_1(steps, best),
        "cost": float(at_step(cost, steps).mean(dtype=np.float64)),
        "regret": regret(cost, steps),
        "gap_closed": gap_closed(cost, steps),
        "gap_closed_error": gap_closed_error(cost, steps),
        "random_cost": random_halting(cost, steps),
        "oracle_cost": float(cost.min(0).mean(dtype=np.float64)),
        "fixed_depth_costs": fixed_depth_costs(cost).tolist(),
    }
