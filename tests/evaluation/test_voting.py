"""Votes over augmentations, pass@k and submissions, by cases made by hand."""

import itertools
import json
import math

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from hrm.errors import UserError
from hrm.evaluation.voting import Candidate, Query, pass_at, rank, submission

A, B, C = (np.array([[c, c]], dtype=np.uint8) for c in range(3))
NOTHING = np.zeros((0, 0), dtype=np.uint8)


def query(*answers: np.ndarray, truth: np.ndarray | None = A) -> Query:
    """A test input with these answers, the best first."""
    return Query([Candidate(grid, 1, 0.5) for grid in answers], truth)


def colours(candidates: list[Candidate]) -> list[int]:
    return [int(c.grid[0, 0]) for c in candidates]


def test_more_votes_win_whatever_their_chance() -> None:
    ranked = rank([A, B, B], [9.0, -9.0, -9.0])
    assert colours(ranked) == [1, 0]
    assert [c.votes for c in ranked] == [2, 1]


def test_equal_votes_are_ranked_by_their_mean_chance() -> None:
    ranked = rank([A, B, A, B], [0.0, 2.0, 1.0, 0.0])
    assert colours(ranked) == [1, 0]
    chance = [1 / (1 + math.exp(-q)) for q in (2.0, 0.0)]
    assert ranked[0].mean_q == pytest.approx(sum(chance) / 2)
    # The mean of chances, not the chance of the mean logit: those would give A here.
    ranked = rank([A, A, B, B], [0.0, 0.0, -9.0, 8.5])
    assert ranked[0].mean_q == pytest.approx(0.5)
    assert ranked[1].mean_q == pytest.approx(0.49996, abs=1e-4)


def test_the_first_seen_wins_a_whole_tie() -> None:
    assert colours(rank([C, A, B], [1.0, 1.0, 1.0])) == [2, 0, 1]
    assert colours(rank([B, A, A, B], [1.0, 1.0, 1.0, 1.0])) == [1, 0]


def test_grids_of_one_content_and_two_shapes_are_two_answers() -> None:
    row, column = np.array([[1, 1]], dtype=np.uint8), np.array([[1], [1]], dtype=np.uint8)
    assert [c.grid.shape for c in rank([row, column, row], [0.0] * 3)] == [(1, 2), (2, 1)]
    # A view counts by its content: a transposed one is the grid that it shows.
    assert [c.votes for c in rank([row, column.T], [0.0] * 2)] == [2]


def test_a_prediction_without_cells_is_no_vote() -> None:
    assert colours(rank([NOTHING, NOTHING, A], [5.0, 5.0, -5.0])) == [0]
    assert rank([NOTHING], [0.0]) == []
    assert rank([], []) == []


@given(st.lists(st.tuples(st.integers(0, 3), st.floats(-30, 30)), max_size=12))
def test_ranking_properties(votes: list[tuple[int, float]]) -> None:
    grids = [np.full((1, 1), c, dtype=np.uint8) for c, _ in votes]
    ranked = rank(grids, [q for _, q in votes])
    assert sum(c.votes for c in ranked) == len(votes)
    assert len(ranked) == len({c for c, _ in votes})
    for better, worse in itertools.pairwise(ranked):
        assert (better.votes, better.mean_q) >= (worse.votes, worse.mean_q)
    assert all(0 <= c.mean_q <= 1 for c in ranked)


def test_pass_at_k_by_hand() -> None:
    ballots = {
        "first": [query(A, B)],
        "second": [query(B, A)],
        "both": [query(A), query(B, C, A)],  # two test inputs: half, half, whole
        "never": [query(B, C)],
    }
    figures = pass_at(ballots, [1, 2, 3])
    assert figures["pass@1"] == pytest.approx((1 + 0 + 0.5 + 0) / 4)
    assert figures["pass@2"] == pytest.approx((1 + 1 + 0.5 + 0) / 4)
    assert figures["pass@3"] == pytest.approx((1 + 1 + 1 + 0) / 4)
    assert figures["pass@1_whole_task"] == pytest.approx(1 / 4)
    assert figures["pass@2_whole_task"] == pytest.approx(2 / 4)
    assert figures["pass@3_whole_task"] == pytest.approx(3 / 4)


def test_the_denominator_is_the_tasks_that_were_evaluated() -> None:
    # One of two evaluated tasks, not of the four hundred that a data set may have.
    assert pass_at({"a": [query(A)], "b": [query(B)]}, [1])["pass@1"] == 0.5
    # A task without predictions was evaluated too: it is not solved.
    assert pass_at({"a": [query(A)], "b": [query()]}, [1])["pass@1"] == 0.5
    # A task with several test inputs is one task.
    assert pass_at({"a": [query(A)] * 3, "b": [query(B)]}, [1])["pass@1"] == 0.5
    # One whose answer nobody knows is none.
    assert pass_at({"a": [query(A)], "b": [query(B, truth=None)]}, [1])["pass@1"] == 1.0
    assert pass_at({"a": [query(A), query(B, truth=None)]}, [1])["pass@1_whole_task"] == 1.0


def test_what_cannot_be_scored() -> None:
    with pytest.raises(UserError, match="of none of the tasks"):
        pass_at({"a": [query(A, truth=None)]}, [1])
    with pytest.raises(UserError, match="pass@0: the number of attempts is at least 1"):
        pass_at({"a": [query(A)]}, [2, 0])


@given(st.lists(st.lists(st.permutations([A, B, C]), min_size=1, max_size=3), min_size=1))
def test_more_attempts_never_solve_less(orders: list[list[list[np.ndarray]]]) -> None:
    ballots = {str(i): [query(*o) for o in task] for i, task in enumerate(orders)}
    figures = pass_at(ballots, [1, 2, 3])
    assert figures["pass@1"] <= figures["pass@2"] <= figures["pass@3"] == 1
    for k in (1, 2, 3):
        assert figures[f"pass@{k}_whole_task"] <= figures[f"pass@{k}"]


def test_a_submission_in_the_official_form() -> None:
    made = submission({"a": [query(A, B, C)], "b": [query(), query(C)]})
    assert json.loads(json.dumps(made)) == {
        "a": [{"attempt_1": [[0, 0]], "attempt_2": [[1, 1]]}],
        # Without an answer the place is held, so that the second stays the second.
        "b": [
            {"attempt_1": [[0, 0], [0, 0]], "attempt_2": [[0, 0], [0, 0]]},
            {"attempt_1": [[2, 2]], "attempt_2": [[2, 2]]},
        ],
    }
