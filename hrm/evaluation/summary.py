"""All figures of an evaluation in one dict for JSON."""

from __future__ import annotations

from typing import Any

import numpy as np
from jaxtyping import Bool, Float, Integer

from hrm.errors import UserError
from hrm.evaluation.exact import (
    at_step,
    check_steps,
    exactly_right,
    labelled_rows,
    right_share,
)
from hrm.evaluation.halting import (
    auroc,
    base_rate,
    calibration_bins,
    calibration_error,
    constant_accuracy,
    q_halt_accuracy,
    q_halt_auroc_all_steps,
    share_below,
    steps_histogram,
)


def summarise(
    predictions: Integer[np.ndarray, "steps rows length"],
    q_halt: Float[np.ndarray, "steps rows"],
    labels: Integer[np.ndarray, "rows length"],
    stopped_at: Integer[np.ndarray, " rows"],
    halt_steps: Integer[np.ndarray, " rows"] | None = None,
) -> dict[str, Any]:
    """The figures of an evaluation. Rows without labels are left out of all of them.

    Args:
        predictions: tokens after each step. What stands after a row's `stopped_at` is not looked
            at: it need not exist (an adaptive evaluation repeats the last, or leaves anything).
        q_halt: logits after each step of "the answer is exactly right".
        labels: tokens, -100 where there is none.
        stopped_at: the step, from 1, at which each row's answer was taken: the number of steps in a
            max_steps evaluation, the policy's step in an adaptive one.
        halt_steps: the step at which the policy would have halted each row, at most `stopped_at`.

    Returns:
        `count` (rows with a label), `max_steps`; of the answers taken `accuracy` (mean over rows of
        the share of right tokens), `exact_accuracy`, `mean_steps`, `steps_histogram` (item i: rows
        stopped at step i + 1), `share_below_2_steps`; of q_halt where they were taken
        `q_halt_accuracy`, `q_halt_base_rate` (share of right answers), `q_halt_constant_accuracy`,
        `q_halt_auroc` (None if all answers are right or all are wrong), `q_halt_calibration_error`,
        `q_halt_calibration` (bins); over all steps that ran `q_halt_auroc_all_steps`.
        `accuracy_by_step`, item i: exact accuracy after at most i + 1 steps. A row that stopped
        earlier keeps its answer, so under adaptive halting this is the accuracy of that policy with
        a lower limit, not of running every row so long.
        With `halt_steps` also `policy_mean_steps`, `policy_steps_histogram`,
        `policy_exact_accuracy`, `policy_share_below_2_steps`: what the policy would have done.

    Raises:
        UserError: no row has a label, or q_halt is NaN where it is needed.
        ValueError: a step is outside of 1 to the number of steps.
    """
    counted = labelled_rows(labels)
    labels, stopped_at = labels[counted], stopped_at[counted]
    check_steps(stopped_at, len(predictions))
    answers = predictions[stopped_at.astype(np.int64) - 1, np.flatnonzero(counted)]
    return summarise_judged(
        # Step by step, so that no array of a trajectory's size is made beside it.
        np.stack([exactly_right(p[counted], labels) for p in predictions]),
        right_share(answers, labels),
        q_halt[:, counted],
        stopped_at,
        None if halt_steps is None else halt_steps[counted],
    )


def summarise_judged(
    right_at: Bool[np.ndarray, "steps rows"],
    right_shares: Float[np.ndarray, " rows"],
    q_halt: Float[np.ndarray, "steps rows"],
    stopped_at: Integer[np.ndarray, " rows"],
    halt_steps: Integer[np.ndarray, " rows"] | None = None,
) -> dict[str, Any]:
    """`summarise` of rows, all of them labelled, whose answers have been compared already and need
    not be kept.

    Args:
        right_at: whether the answer after each step is exactly right.
        right_shares: of the answer taken, the share of right tokens.
        q_halt, stopped_at, halt_steps: as in `summarise`.

    Raises:
        UserError, ValueError: as there.
    """
    max_steps, rows = right_at.shape
    q_taken = at_step(q_halt, stopped_at)
    ran = np.arange(1, max_steps + 1)[:, None] <= stopped_at
    broken = int((np.isnan(q_halt) & ran).any(0).sum())
    if broken:
        raise UserError(
            f"q_halt is not a number for {broken} of {rows} rows: the model's weights are broken"
        )
    right = at_step(right_at, stopped_at)
    bins = calibration_bins(q_taken, right)
    summary: dict[str, Any] = {
        "count": rows,
        "max_steps": max_steps,
        "accuracy": float(right_shares.mean()),
        "exact_accuracy": float(right.mean()),
        "q_halt_accuracy": q_halt_accuracy(q_taken, right),
        "q_halt_base_rate": base_rate(right),
        "q_halt_constant_accuracy": constant_accuracy(right),
        "q_halt_auroc": auroc(q_taken, right),
        "q_halt_auroc_all_steps": q_halt_auroc_all_steps(q_halt, right_at, stopped_at),
        "q_halt_calibration_error": calibration_error(bins),
        "q_halt_calibration": bins,
        "mean_steps": float(stopped_at.mean()),
        "share_below_2_steps": share_below(stopped_at, 2),
        "accuracy_by_step": [
            float(at_step(right_at, np.minimum(stopped_at, n)).mean())
            for n in range(1, max_steps + 1)
        ],
        "steps_histogram": steps_histogram(stopped_at, max_steps),
    }
    if halt_steps is not None:
        if (halt_steps > stopped_at).any():
            raise ValueError("halt_steps must not be later than stopped_at")
        summary |= {
            "policy_mean_steps": float(halt_steps.mean()),
            "policy_exact_accuracy": float(at_step(right_at, halt_steps).mean()),
            "policy_share_below_2_steps": share_below(halt_steps, 2),
            "policy_steps_histogram": steps_histogram(halt_steps, max_steps),
        }
    return summary
