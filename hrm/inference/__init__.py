"""How it is served."""

from hrm.inference.engine import Answers, Engine, Result
from hrm.inference.loop import HaltingMode, Trajectory, solve

__all__ = ["Answers", "Engine", "HaltingMode", "Result", "Trajectory", "solve"]
