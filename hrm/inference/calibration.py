"""When a trained model should halt: a temperature, and the threshold of a stopper, from records."""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import numpy as np
from jaxtyping import Float

from hrm.errors import UserError
from hrm.evaluation import (
    Frontier,
    at_step,
    calibration_bins,
    calibration_error,
    first_halt,
    fit_temperature,
    frontier,
    log_loss,
    oracle_steps,
    running_minimum,
    standard_error,
)
from hrm.evaluation.halting import probability
from hrm.halting import Halting
from hrm.halting.calibrated import CONFIRM_STEPS, Stopper
from hrm.inference.trajectories import StepRecords

SURE = 20.0
"""Logits beyond are taken for this one: of a chance nearer to 1 too few digits are left."""
MOST_POINTS = 60

Scores = Float[np.ndarray, "steps rows"]
Triple = list[float | None]
"""`[setting, mean steps, exact accuracy]`; the setting None never halts early."""


@dataclass(frozen=True)
class Scoring:
    """A stopper as a score over a threshold, and as `CalibratedHalting` names that threshold."""

    rule: str
    """In front of the setting."""
    score: Callable[[StepRecords, float], Scores]
    """Of the records and the temperature; it halts where the score is above the threshold."""
    setting: Callable[[float], float]
    """The threshold of the score in the stopper's own unit."""


def _sureness(records: StepRecords, temperature: float) -> Scores:
    return np.clip(records.q_halt.astype(np.float64) / temperature, -SURE, SURE)


def _second_difference(records: StepRecords, _: float) -> Scores:
    first = np.full((1, records.right.shape[1]), -np.inf)
    return np.concatenate([first, -np.abs(np.diff(records.latent_change, axis=0))])


def _chance(threshold: float) -> float:
    # 0 and 1 are no thresholds, and rounding gets there: an untrained head, sure of nothing, does.
    return float(np.clip(probability(np.array(threshold)), 1e-12, 1 - 1e-12))


STOPPERS: dict[Stopper, Scoring] = {
    "q": Scoring("chance >", _sureness, _chance),
    "lead": Scoring("lead >", lambda r, _: r.q_halt - r.q_continue, lambda t: t),
    "confirm": Scoring(
        f"chance in {CONFIRM_STEPS} steps >",
        lambda r, t: running_minimum(_sureness(r, t), CONFIRM_STEPS),
        _chance,
    ),
    "convergence": Scoring("latent change <", lambda r, _: -r.latent_change, lambda t: -t),
    "second_difference": Scoring("second difference <", _second_difference, lambda t: -t),
    "unchanged": Scoring(
        "unchanged steps >=",
        # Whole numbers: above t is t + 1 at least, and 0 is nothing to wait for.
        lambda r, _: np.where(r.unchanged_steps > 0, r.unchanged_steps, -np.inf),
        lambda t: math.floor(t) + 1.0,
    ),
}


def stoppers_for(halting: Halting) -> list[Stopper]:
    """Those that a model trained with this policy can have: without a learned value no q."""
    needs = {"q": "values_halting", "confirm": "values_halting", "lead": "values_going_on"}
    return [name for name in STOPPERS if name not in needs or getattr(halting, needs[name])]


def calibrate(
    records: StepRecords, halting: Halting, stopper: Stopper, loss_points: float
) -> dict[str, Any]:
    """The temperature and the stopper's threshold, with all that was weighed, as plain values.

    The temperature is that of `fit_temperature` over all rows and steps. The threshold is the one
    of fewest mean steps whose exact accuracy is at most `loss_points` percentage points below that
    of the last step; never to halt early is always among them.

    Args:
        halting: the policy that the model was trained with.

    Returns:
        `stopper`, `threshold` and `temperature`, which `hrm.halting.CalibratedHalting` reads.
        `count` (rows), `max_steps`, `loss_points`. `last_step` (every row runs on), `before` (the
        policy as trained), `after` (the chosen one) and `oracle` (halts when the answer is first
        right), each with `mean_steps` and `exact_accuracy`; `last_step` also `standard_error` of
        its accuracy; `before` and `after` also `calibration_error` and `log_loss` over all rows and
        steps (None if q_halt was not trained), `after` also `loss_points` and their
        `loss_standard_error`, by pairs of answers. `fixed_depth`: triples of all rows stopped after
        step n. `stoppers`: by name `rule`, `chosen` (a triple, for the same loss) and `frontier`
        (triples, thinned). A triple is `[setting, mean steps, exact accuracy]`, its setting None if
        it never halts early.

    Raises:
        UserError: the model cannot have this stopper, or takes one step only.
    """
    can_be = stoppers_for(halting)
    if stopper not in can_be:
        lacks = "q_continue" if halting.values_halting else "q_halt"
        raise UserError(
            f"--stopper {stopper}: this model's {lacks} has learned nothing; there are "
            f"{', '.join(can_be)}"
        )
    right = records.right
    steps, rows = right.shape
    if steps == 1:
        raise UserError("halt_max_steps is 1: there is nothing to choose")
    temperature = fit_temperature(records.q_halt, right) if halting.values_halting else 1.0
    last = float(right[-1].mean())
    compared = {}
    for name in can_be:
        scoring = STOPPERS[name]
        found = frontier(scoring.score(records, temperature), right)
        chosen = found.cheapest(last - loss_points / 100)
        assert chosen is not None
        compared[name] = {
            "rule": scoring.rule,
            "chosen": _triple(found, chosen, scoring),
            "frontier": [
                _triple(found, i, scoring) for i in sorted({chosen, *found.thinned(MOST_POINTS)})
            ],
        }
        if name == stopper:
            threshold = found.threshold(chosen)
    halts_at = first_halt(STOPPERS[stopper].score(records, temperature) > threshold)
    lost = right[-1].astype(np.int64) - at_step(right, halts_at)
    oracle = oracle_steps(right)
    return {
        "stopper": stopper,
        "threshold": compared[stopper]["chosen"][0],
        "temperature": temperature,
        "count": rows,
        "max_steps": steps,
        "loss_points": loss_points,
        "last_step": {
            "mean_steps": float(steps),
            "exact_accuracy": last,
            "standard_error": standard_error(last, rows),
        },
        "before": _outcome(right, first_halt(records.wants))
        | _honesty(records, halting, temperature=1.0),
        "after": _outcome(right, halts_at)
        | {
            "loss_points": 100 * float(lost.mean()),
            "loss_standard_error": 100 * float(lost.std() / math.sqrt(rows)),
        }
        | _honesty(records, halting, temperature),
        "oracle": _outcome(right, oracle),
        "fixed_depth": [[n, float(n), float(at.mean())] for n, at in enumerate(right, start=1)],
        "stoppers": compared,
    }


def resolution(record: dict[str, Any]) -> str | None:
    """A sentence if so few rows cannot tell the loss allowed from chance."""
    error = 100 * record["last_step"]["standard_error"]
    if record["loss_points"] >= error:
        return None
    rows, share = record["count"], record["last_step"]["exact_accuracy"]
    text = (
        f"{rows} rows cannot tell a loss of {record['loss_points']:g} points from chance: the "
        f"standard error of their accuracy is {error:.2g} points"
    )
    if not record["loss_points"]:
        return text
    allowed = record["loss_points"] / 100
    needed = max(share * (1 - share) / allowed**2, 1 / allowed)
    return f"{text}, and some {float(f'{needed:.2g}'):,.0f} rows would be needed"


def _triple(found: Frontier, point: int, scoring: Scoring) -> Triple:
    threshold = found.threshold(point)
    return [
        scoring.setting(threshold) if threshold < math.inf else None,
        float(found.mean_steps[point]),
        float(found.exact_accuracy[point]),
    ]


def _outcome(right: np.ndarray, steps: np.ndarray) -> dict[str, float]:
    return {
        "mean_steps": float(steps.mean()),
        "exact_accuracy": float(at_step(right, steps).mean()),
    }


def _honesty(records: StepRecords, halting: Halting, temperature: float) -> dict[str, float | None]:
    if not halting.values_halting:
        return {"calibration_error": None, "log_loss": None}
    bins = calibration_bins(records.q_halt / temperature, records.right)
    return {
        "calibration_error": calibration_error(bins),
        "log_loss": log_loss(records.q_halt, records.right, temperature),
    }
