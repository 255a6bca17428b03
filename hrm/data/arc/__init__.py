"""ARC-AGI: tasks, grids as tokens, other forms of a task, data sets."""

from hrm.data.arc.augment import (
    INVERSE,
    ArcAugment,
    Form,
    arc_augment,
    move,
    parse_name,
    random_forms,
    turned,
)
from hrm.data.arc.grids import COLOUR_0, EOS, LARGEST, PAD, VOCAB_SIZE, bounds, decode, encode
from hrm.data.arc.prepare import ArcRequest, arc_request, prepare_arc
from hrm.data.arc.tasks import EDITIONS, Grid, Pair, Task, read_task, read_tasks, task_of
from hrm.data.arc.twins import canonical, twins

__all__ = [
    "COLOUR_0",
    "EDITIONS",
    "EOS",
    "INVERSE",
    "LARGEST",
    "PAD",
    "VOCAB_SIZE",
    "ArcAugment",
    "ArcRequest",
    "Form",
    "Grid",
    "Pair",
    "Task",
    "arc_augment",
    "arc_request",
    "bounds",
    "canonical",
    "decode",
    "encode",
    "move",
    "parse_name",
    "prepare_arc",
    "random_forms",
    "read_task",
    "read_tasks",
    "task_of",
    "turned",
    "twins",
]
