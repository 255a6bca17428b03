"""A model on a split: trajectories of all rows, summarised."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
import torch

from hrm.data.base import PuzzleSplit
from hrm.errors import UserError
from hrm.evaluation.summary import summarise
from hrm.inference.loop import HaltingMode, solve
from hrm.models import ACTModel


def check_fits(model: ACTModel, split: PuzzleSplit) -> None:
    """Raises UserError if `split` was made for another length, vocabulary or set of puzzles."""
    data, config = split.metadata, model.config
    for name, theirs, ours in (
        ("seq_len", data.seq_len, config.seq_len),
        ("vocab_size", data.vocab_size, config.vocab_size),
    ):
        if theirs != ours:
            raise UserError(f"{split.path}: its {name} is {theirs}, but the model's is {ours}")
    if config.puzzle_emb_ndim and data.num_puzzle_identifiers > config.num_puzzle_identifiers:
        raise UserError(
            f"{split.path}: it has {data.num_puzzle_identifiers} puzzle identifiers, but the model "
            f"knows {config.num_puzzle_identifiers}"
        )


def evaluate_split(
    model: ACTModel,
    split: PuzzleSplit,
    *,
    count: int | None = None,
    batch_size: int = 256,
    halting: HaltingMode = "max_steps",
    on_batch: Callable[[int], object] | None = None,
) -> dict[str, Any]:
    """Figures over `count` rows spread evenly over the split (all by default).

    on_batch: called with the number of rows done after each batch, for a progress bar.
    """
    check_fits(model, split)
    device = next(model.parameters()).device
    total = len(split)
    rows = np.unique(np.linspace(0, total - 1, min(count or total, total)).astype(np.int64))
    last = model.config.halt_max_steps
    parts: list[list[np.ndarray]] = []
    for start in range(0, len(rows), batch_size):
        taken = split.take(rows[start : start + batch_size])
        batch = {k: torch.from_numpy(v).to(device) for k, v in taken.items() if k != "labels"}
        done = solve(model, batch, halting)
        pad = last - len(done.wants)  # All rows may have stopped early: their last step stands.
        tensors = [
            torch.cat((t, t[-1:].expand(pad, *t.shape[1:]))).cpu().numpy()
            for t in (done.predictions, done.q_halt)
        ]
        # A large set is long: a byte a token instead of four.
        tensors[0] = tensors[0].astype(np.min_scalar_type(model.config.vocab_size))
        parts.append(
            [
                *tensors,
                done.stopped_at.cpu().numpy(),
                done.policy_steps.cpu().numpy(),
                taken["labels"],
            ]
        )
        if on_batch:
            on_batch(min(start + batch_size, len(rows)))
    columns = list(zip(*parts, strict=True))
    predictions, q_halt = (np.concatenate(c, axis=1) for c in columns[:2])
    stopped_at, policy_steps, labels = (np.concatenate(c) for c in columns[2:])
    return summarise(predictions, q_halt, labels, stopped_at, halt_steps=policy_steps)
