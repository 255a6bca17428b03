"""The dict of an evaluation: by hand, and what must not change it."""

import json

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from hrm.errors import UserError
from hrm.evaluation import accuracy_by_step, summarise

# Three rows of two tokens, three steps. Right after: row 0 step 2, row 1 step 1 and 2 (then it
# breaks its answer), row 2 never; row 3 has no label.
LABELS = np.array([[2, 3], [3, 2], [2, 2], [-100, -100]])
PREDICTIONS = np.array(
    [
        [[2, 0], [3, 2], [0, 0], [0, 0]],
        [[2, 3], [3, 2], [2, 0], [0, 0]],
        [[2, 3], [3, 0], [2, 0], [0, 0]],
    ]
)
Q_HALT = np.array([[-1, 2, -3, 9], [3, 2.5, -2, 9], [4, 1, -1, 9]], dtype=np.float32)


def test_max_steps_by_hand() -> None:
    summary = summarise(
        PREDICTIONS, Q_HALT, LABELS, np.full(4, 3), halt_steps=np.array([2, 1, 3, 1])
    )
    assert summary["count"] == 3
    assert summary["max_steps"] == 3
    assert summary["accuracy"] == pytest.approx((1 + 0.5 + 0.5) / 3)
    assert summary["exact_accuracy"] == pytest.approx(1 / 3)
    assert summary["accuracy_by_step"] == pytest.approx([1 / 3, 2 / 3, 1 / 3])
    # Says yes, yes, no; true are yes, no, no.
    assert summary["q_halt_accuracy"] == pytest.approx(2 / 3)
    assert summary["q_halt_base_rate"] == pytest.approx(1 / 3)
    assert summary["q_halt_constant_accuracy"] == pytest.approx(2 / 3)
    assert summary["q_halt_auroc"] == 1.0
    # Right: 2, 3, 2.5, 4; wrong: -1, -3, -2, 1, -1.
    assert summary["q_halt_auroc_all_steps"] == 1.0
    assert summary["mean_steps"] == 3.0
    assert summary["steps_histogram"] == [0, 0, 3]
    assert summary["share_below_2_steps"] == 0.0
    assert summary["policy_mean_steps"] == 2.0
    assert summary["policy_exact_accuracy"] == pytest.approx(2 / 3)
    assert summary["policy_steps_histogram"] == [1, 1, 1]
    assert summary["policy_share_below_2_steps"] == pytest.approx(1 / 3)


def test_adaptive_by_hand() -> None:
    summary = summarise(PREDICTIONS, Q_HALT, LABELS, np.array([2, 1, 3, 1]))
    assert summary["exact_accuracy"] == pytest.approx(2 / 3)
    assert summary["accuracy"] == pytest.approx((1 + 1 + 0.5) / 3)
    assert summary["mean_steps"] == 2.0
    assert summary["steps_histogram"] == [1, 1, 1]
    # Row 1 keeps the answer of its first step.
    assert summary["accuracy_by_step"] == pytest.approx([1 / 3, 2 / 3, 2 / 3])
    assert summary["q_halt_accuracy"] == 1.0
    assert not any(key.startswith("policy_") for key in summary)


def test_nothing_after_a_rows_stop_is_looked_at() -> None:
    stopped_at = np.array([2, 1, 3, 1])
    later = np.arange(1, 4)[:, None] > stopped_at
    garbled = np.where(later[..., None], 7, PREDICTIONS)
    q = np.where(later, np.nan, Q_HALT)
    expected = summarise(PREDICTIONS, Q_HALT, LABELS, stopped_at)
    assert summarise(garbled, q.astype(np.float32), LABELS, stopped_at) == expected


@given(st.integers(0, 2**32 - 1))
def test_order_and_rows_without_labels_do_not_matter(seed: int) -> None:
    generator = np.random.default_rng(seed)
    steps, rows, length = 4, 9, 3
    labels = generator.integers(1, 4, (rows, length))
    predictions = np.where(
        generator.random((steps, rows, length)) < 0.8, labels, generator.integers(1, 4)
    ).astype(np.uint8)
    q = generator.integers(-3, 4, (steps, rows)).astype(np.float32)
    stopped_at = generator.integers(1, steps + 1, rows)
    summary = summarise(predictions, q, labels, stopped_at)
    json.dumps(summary, allow_nan=False)

    order = generator.permutation(rows)
    mixed = summarise(predictions[:, order], q[:, order], labels[order], stopped_at[order])
    assert json.dumps(rounded(mixed)) == json.dumps(rounded(summary))

    padded = summarise(
        np.concatenate([predictions[:, :2], predictions], 1),
        np.concatenate([np.full((steps, 2), np.nan, dtype=np.float32), q], 1),
        np.concatenate([np.full((2, length), -100), labels]),
        np.concatenate([[1, steps], stopped_at]),
    )
    assert padded == summary

    full = summarise(predictions, q, labels, np.full(rows, steps), stopped_at)
    assert full["accuracy_by_step"] == accuracy_by_step(predictions, labels)
    assert full["accuracy_by_step"][-1] == full["exact_accuracy"]
    assert full["policy_exact_accuracy"] == summary["exact_accuracy"]
    assert full["policy_steps_histogram"] == summary["steps_histogram"]
    assert summary["accuracy_by_step"][-1] == summary["exact_accuracy"]


def rounded(value):  # type: ignore[no-untyped-def]
    """Sums in another order differ in the last bits."""
    if isinstance(value, dict):
        return {key: rounded(item) for key, item in value.items()}
    if isinstance(value, list):
        return [rounded(item) for item in value]
    return round(value, 9) if isinstance(value, float) else value


def test_broken_weights_are_named() -> None:
    q = Q_HALT.copy()
    q[2, 0] = np.nan
    with pytest.raises(UserError, match="not a number for 1 of 3 rows"):
        summarise(PREDICTIONS, q, LABELS, np.full(4, 3))


def test_no_labels() -> None:
    with pytest.raises(UserError, match="none of the 4 rows"):
        summarise(PREDICTIONS, Q_HALT, np.full((4, 2), -100), np.full(4, 3))


@pytest.mark.parametrize("bad", [0, 4])
def test_steps_out_of_range(bad: int) -> None:
    with pytest.raises(ValueError, match=f"1 to 3, got {bad}"):
        summarise(PREDICTIONS, Q_HALT, LABELS, np.array([3, bad, 3, 3]))


def test_the_policy_cannot_halt_after_the_answer_was_taken() -> None:
    with pytest.raises(ValueError, match="later than stopped_at"):
        summarise(PREDICTIONS, Q_HALT, LABELS, np.array([3, 1, 3, 3]), np.array([3, 2, 3, 3]))
