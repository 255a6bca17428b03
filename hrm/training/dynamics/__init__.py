"""How a batch becomes updates: four dynamics under one trainer."""

from hrm.config import DynamicsName
from hrm.training.dynamics.base import Dynamics
from hrm.training.dynamics.batchwise import Episode, Online
from hrm.training.dynamics.persistent import Persistent
from hrm.training.dynamics.rollout import Rollouts

DYNAMICS: dict[DynamicsName, type[Dynamics]] = {
    "persistent": Persistent,
    "online": Online,
    "episode": Episode,
    "rollout": Rollouts,
}

__all__ = ["DYNAMICS", "Dynamics", "Episode", "Online", "Persistent", "Rollouts"]
