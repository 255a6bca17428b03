"""How well: figures from predictions, labels and step counts. Knows no model."""

from hrm.evaluation.exact import (
    accuracy,
    accuracy_by_step,
    at_step,
    exact_accuracy,
    exactly_right,
    right_share,
)
from hrm.evaluation.frontier import (
    Frontier,
    frontier,
    oracle_steps,
    running_minimum,
    standard_error,
)
from hrm.evaluation.halting import (
    CalibrationBin,
    auroc,
    base_rate,
    calibration_bins,
    calibration_error,
    constant_accuracy,
    first_halt,
    q_halt_accuracy,
    q_halt_auroc_all_steps,
    share_below,
    steps_histogram,
)
from hrm.evaluation.summary import summarise
from hrm.evaluation.temperature import fit_temperature, log_loss

__all__ = [
    "CalibrationBin",
    "Frontier",
    "accuracy",
    "accuracy_by_step",
    "at_step",
    "auroc",
    "base_rate",
    "calibration_bins",
    "calibration_error",
    "constant_accuracy",
    "exact_accuracy",
    "exactly_right",
    "first_halt",
    "fit_temperature",
    "frontier",
    "log_loss",
    "oracle_steps",
    "q_halt_accuracy",
    "q_halt_auroc_all_steps",
    "right_share",
    "running_minimum",
    "share_below",
    "standard_error",
    "steps_histogram",
    "summarise",
]
