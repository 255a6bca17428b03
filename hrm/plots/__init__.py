"""Plots of runs, evaluations and models, as PNG files.

Each file is written beside and renamed. No pyplot, so that no state is shared with the caller.
"""

from hrm.plots import drawing
from hrm.plots.arc import plot_task
from hrm.plots.diagnosis import (
    plot_diagnosis,
    plot_gradient_truncation,
    plot_prediction_changes,
    plot_residuals,
)
from hrm.plots.evaluation import (
    plot_accuracy_by_step,
    plot_calibration,
    plot_evaluation,
    plot_steps_histogram,
)
from hrm.plots.frontier import plot_frontier, plot_frontiers
from hrm.plots.segmentation import plot_histograms, plot_iou_by_step, plot_steps
from hrm.plots.training import plot_training

__all__ = [
    "drawing",
    "plot_accuracy_by_step",
    "plot_calibration",
    "plot_diagnosis",
    "plot_evaluation",
    "plot_frontier",
    "plot_frontiers",
    "plot_gradient_truncation",
    "plot_histograms",
    "plot_iou_by_step",
    "plot_prediction_changes",
    "plot_residuals",
    "plot_steps",
    "plot_steps_histogram",
    "plot_task",
    "plot_training",
]
