"""When a sequence stops: stoppers over a step's outputs and step counts."""

from hrm.halting.base import Decision, Halting, Rollout
from hrm.halting.calibrated import CalibratedHalting
from hrm.halting.combine import AllOf, AnyOf, Confirm
from hrm.halting.convergence import Convergence
from hrm.halting.dual_value import (
    ContributionLoss,
    DualValue,
    ThresholdTarget,
    costs,
    early_halting_loss,
    expected_loss,
    halting_distribution,
    late_halting_loss,
    log_halting_distribution,
    optimal_step,
    policy_step,
    reinforce_loss,
    scale_anchor,
    threshold_loss,
    threshold_target,
)
from hrm.halting.fixed import Fixed
from hrm.halting.graves import Graves, graves_step, graves_weights
from hrm.halting.halt_only import HaltOnly
from hrm.halting.pondernet import (
    PonderNet,
    log_geometric,
    median_step,
    pondernet_log_weights,
    prior_divergence,
)
from hrm.halting.q_learning import (
    ContinueTarget,
    QLearning,
    act_continue,
    act_halt,
    continue_target,
)
from hrm.halting.trajectory import accumulate, at_step, first_step

__all__ = [
    "AllOf",
    "AnyOf",
    "CalibratedHalting",
    "Confirm",
    "ContinueTarget",
    "ContributionLoss",
    "Convergence",
    "Decision",
    "DualValue",
    "Fixed",
    "Graves",
    "HaltOnly",
    "Halting",
    "PonderNet",
    "QLearning",
    "Rollout",
    "ThresholdTarget",
    "accumulate",
    "act_continue",
    "act_halt",
    "at_step",
    "continue_target",
    "costs",
    "early_halting_loss",
    "expected_loss",
    "first_step",
    "graves_step",
    "graves_weights",
    "halting_distribution",
    "late_halting_loss",
    "log_geometric",
    "log_halting_distribution",
    "median_step",
    "optimal_step",
    "policy_step",
    "pondernet_log_weights",
    "prior_divergence",
    "reinforce_loss",
    "scale_anchor",
    "threshold_loss",
    "threshold_target",
]
