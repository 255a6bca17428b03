"""How it is served."""

from hrm.inference.loop import HaltingMode, Trajectory, solve

__all__ = ["HaltingMode", "Trajectory", "solve"]
