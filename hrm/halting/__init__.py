"""When a sequence stops: stoppers over a step's outputs and step counts."""

from hrm.halting.base import Decision, Halting
from hrm.halting.fixed import Fixed
from hrm.halting.halt_only import HaltOnly
from hrm.halting.q_learning import QLearning, continue_target

__all__ = ["Decision", "Fixed", "HaltOnly", "Halting", "QLearning", "continue_target"]
