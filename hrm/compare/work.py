"""What a run multiplies: the clock of equal compute, which nothing else on a machine slows down.

Counted by running the run's own model, one sequence, and not by a formula for each kind of encoder.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from functools import cache
from typing import Any, NamedTuple

import torch
from torch import Tensor

from hrm.benchmarking.products import count_products
from hrm.compare.data import splits_of
from hrm.config import build_model, sizes_of_data
from hrm.data.base import PuzzleSplit, spread
from hrm.encoders import Encoder
from hrm.errors import UserError
from hrm.models.act import ACTModel

DEMOS = ("demo_inputs", "demo_outputs", "demo_mask")
LOOKED_AT = 256
"""Training rows, spread evenly, from which the mean number of demonstrations is taken."""
ONE_STEP = ("persistent", "online")
"""Dynamics whose every update is one step of all slots."""
READ = ("arch", "data", "dynamics", "max_train_groups")
"""Settings that the work depends on."""


class Work(NamedTuple):
    """Multiply-adds of one sequence in training, in matrix products and attention.

    Cycles without gradient count once, those with gradient about three times: forward and backward.
    """

    step: float
    """A step of the decoder."""
    encoding: float
    """An encoder pass with gradient over a task's demonstrations; 0 of models without encoder."""


def work_of(settings: Mapping[str, Any]) -> Work | None:
    """The work of a run. None: its data are not here, or its updates are not one step each."""
    return _work(json.dumps({key: settings.get(key) for key in READ}, sort_keys=True, default=str))


@cache
def _work(kept: str) -> Work | None:
    settings = json.loads(kept)
    train = splits_of(settings).get("train")
    if train is None or settings["dynamics"] not in ONE_STEP:
        return None
    arch = dict(settings["arch"])
    if "forward_dtype" in arch:
        # Which attention is taken, and so what it computes anew, depends on the type.
        arch["forward_dtype"] = "float32"
    try:
        with torch.random.fork_rng(devices=[]):
            model = build_model(arch, **sizes_of_data(arch, train.metadata, 1)).train()
            return _counted(model, train)
    except UserError:
        return None


def _counted(model: ACTModel, train: PuzzleSplit) -> Work:
    rows = {k: torch.from_numpy(v) for k, v in train.take(spread(len(train), LOOKED_AT)).items()}
    batch = {k: v[:1] for k, v in rows.items()}
    encoder = getattr(model, "encoder", None)
    if encoder is None:
        return Work(_step(model, batch), 0.0)
    demos = float(rows["demo_mask"].sum(1, dtype=torch.float64).mean())
    alone = _demonstrations(rows, 1)
    first = _encoding(encoder, alone)
    step = _step(model, batch | alone) - first
    if rows["demo_mask"].shape[1] == 1:
        return Work(step, first * demos)
    # Linear in the demonstrations: set layers have room for all of them either way.
    more = _encoding(encoder, _demonstrations(rows, 2)) - first
    return Work(step, first + more * (demos - 1))


def _demonstrations(rows: Mapping[str, Tensor], count: int) -> dict[str, Tensor]:
    """A task with `count` times the fullest demonstration: a batch is as long as its fullest."""
    inputs, outputs = (rows[name].flatten(0, 1) for name in DEMOS[:2])
    fullest = ((inputs != 0).sum(1) + (outputs != 0).sum(1)).argmax()
    room = rows["demo_mask"].shape[1]
    return {
        "demo_inputs": inputs[fullest].expand(1, room, -1),
        "demo_outputs": outputs[fullest].expand(1, room, -1),
        "demo_mask": (torch.arange(room) < count).to(rows["demo_mask"].dtype)[None],
    }


def _step(model: ACTModel, batch: dict[str, Tensor]) -> float:
    carry = model.initial_carry(batch)

    def work() -> None:
        _, outputs = model(carry, batch)
        learned = [value.float().sum() for value in outputs.values() if value.requires_grad]
        torch.stack(learned).sum().backward()

    return count_products(work).operations / 2


def _encoding(encoder: Encoder, shown: dict[str, Tensor]) -> float:
    def work() -> None:
        encoder(*(shown[name] for name in DEMOS)).context.sum().backward()

    return count_products(work).operations / 2
