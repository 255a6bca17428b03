"""When a sequence stops: stoppers over a step's outputs and step counts."""

from hrm.halting.base import Decision, Halting
from hrm.halting.calibrated import CalibratedHalting
from hrm.halting.combine import AllOf, AnyOf, Confirm
from hrm.halting.convergence import Convergence
from hrm.halting.fixed import Fixed
from hrm.halting.halt_only import HaltOnly
from hrm.halting.q_learning import (
    ContinueTarget,
    QLearning,
    act_continue,
    act_halt,
    continue_target,
)

__all__ = [
    "AllOf",
    "AnyOf",
    "CalibratedHalting",
    "Confirm",
    "ContinueTarget",
    "Convergence",
    "Decision",
    "Fixed",
    "HaltOnly",
    "Halting",
    "QLearning",
    "act_continue",
    "act_halt",
    "continue_target",
]
