"""Records of steps: equal to what `solve` and the model itself say."""

from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
import torch

from hrm.data.base import IGNORE, PuzzleSplit, SplitArrays, load_split, write_dataset
from hrm.errors import UserError
from hrm.halting import Confirm, Convergence, HaltOnly
from hrm.inference import solve
from hrm.inference.trajectories import record_steps
from hrm.models import HRMACTv1
from tests.models.helpers import SMALL, awaken, small_batch, small_hrm, small_trm


def written(folder: Path, labels: np.ndarray | None = None) -> PuzzleSplit:
    """Seven rows, the last without a label, which is 0 on disk."""
    data = {k: v.numpy() for k, v in small_batch(slots=7).items()}
    labels = (data["labels"] if labels is None else labels).copy()
    labels[6] = 0
    arrays = SplitArrays.from_rows(data["inputs"], labels)
    write_dataset(folder / "data", {"val": arrays}, vocab_size=SMALL["vocab_size"])
    return load_split(folder / "data", "val")


@pytest.fixture
def split(tmp_path: Path) -> PuzzleSplit:
    return written(tmp_path)


@pytest.mark.parametrize("make", [small_hrm, small_trm])
def test_records_are_those_of_solving(tmp_path: Path, make: Callable[..., HRMACTv1]) -> None:
    model = make(halt_max_steps=5)
    awaken(model)
    # What row i says after step i, so that some answers are right.
    answers = solve(model, small_batch(slots=7)).predictions.numpy()
    split = written(tmp_path, answers[np.arange(7) % 5, np.arange(7)])
    records = record_steps(model, split, batch_size=3)
    taken = split.take(np.arange(6))
    batch = {k: torch.from_numpy(v) for k, v in taken.items() if k != "labels"}
    done = solve(model, batch)
    labels = taken["labels"]
    right = ((done.predictions.numpy() == labels) | (labels == IGNORE)).all(-1)
    assert records.right.tolist() == right.tolist()
    assert 0 < right.mean() < 1
    np.testing.assert_allclose(records.q_halt, done.q_halt, atol=1e-5)
    np.testing.assert_allclose(records.q_continue, done.q_continue, atol=1e-5)
    assert records.wants.tolist() == done.wants.tolist()
    same = (done.predictions[1:] == done.predictions[:-1]).all(-1).numpy()
    counts = [np.zeros(6, dtype=int)]
    for step in same:
        counts.append(np.where(step, counts[-1] + 1, 0))
    assert records.unchanged_steps.tolist() == np.stack(counts).tolist()
    carry = model.eval().initial_carry(batch, seed=0)
    before = carry.inner_carry.z_H
    for step in range(5):
        carry, _ = model(carry, batch)
        now = carry.inner_carry.z_H
        if step:
            change = (now - before).flatten(1).norm(dim=1) / now.flatten(1).norm(dim=1)
            np.testing.assert_allclose(records.latent_change[step], change.detach(), rtol=1e-4)
        before = now


def test_the_policy_s_wishes_have_its_memory(split: PuzzleSplit) -> None:
    model = small_trm(halt_max_steps=6)
    awaken(model)
    model.halting = Confirm(HaltOnly(6), 2)
    records = record_steps(model, split)
    twice = (records.q_halt[1:] > 0) & (records.q_halt[:-1] > 0)
    assert records.wants[1:].tolist() == twice.tolist()
    assert not records.wants[0].any()
    model.halting = Convergence(6, unchanged_steps=1, seq_len=6)
    records = record_steps(model, split)
    assert records.wants.tolist() == (records.unchanged_steps >= 1).tolist()


def test_rows_are_spread_and_progress_is_told(split: PuzzleSplit) -> None:
    model = small_trm()
    told: list[int] = []
    some = record_steps(model, split, count=3, batch_size=2, on_batch=told.append)
    every = record_steps(model, split)
    assert told == [2, 3]
    assert some.right.shape == (3, 2)  # rows 0, 3 and 6, of which the last has no label
    np.testing.assert_allclose(some.q_halt, every.q_halt[:, [0, 3]], atol=1e-5)


def test_broken_weights_are_one_sentence(split: PuzzleSplit) -> None:
    model = small_trm()
    with torch.no_grad():
        model.inner.q_head.weight.fill_(float("nan"))
    with pytest.raises(UserError, match="q_halt is not a number"):
        record_steps(model, split)
