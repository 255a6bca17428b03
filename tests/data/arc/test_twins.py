"""Twins: tasks that share a pair in another form are found, others are not."""

import numpy as np
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra.numpy import arrays

from hrm.data.arc import Form, Pair, Task, canonical, read_tasks, task_of, twins
from hrm.data.arc.tasks import Grid
from tests.data.arc.small import task
from tests.data.arc.test_augment import FORMS

GRIDS = arrays(np.uint8, (2, 3), elements=st.integers(0, 3))


def formed(pair: Pair, form: Form) -> Pair:
    assert pair.output is not None
    return Pair(form.apply(pair.input), form.apply(pair.output))


@settings(deadline=None, max_examples=40)
@given(first=GRIDS, second=GRIDS, form=FORMS)
def test_all_forms_of_a_pair_are_twins(first: Grid, second: Grid, form: Form) -> None:
    pair = Pair(first, second)
    other = formed(pair, form)
    assert canonical(pair) == canonical(other)
    mine = Task("a", (pair,), (Pair(first, None),))
    theirs = Task("b", (Pair(second[:1], first[:1]), other), ())
    assert twins([mine], [theirs]) == ["a"]


def test_black_is_no_colour_and_input_is_not_output() -> None:
    one = np.array([[1, 0]], dtype=np.uint8)
    two = np.array([[0, 1]], dtype=np.uint8)
    filled = np.array([[1, 2]], dtype=np.uint8)
    long = np.array([[1, 0, 0]], dtype=np.uint8)
    assert canonical(Pair(one, one)) == canonical(Pair(two, two))
    assert canonical(Pair(one, one)) != canonical(Pair(one, two))
    assert canonical(Pair(one, one)) != canonical(Pair(filled, filled))
    assert canonical(Pair(one, long)) != canonical(Pair(long, one))


def test_small_tasks_are_no_twins() -> None:
    tasks = [task_of(str(i), task(i), "") for i in range(8)]
    for i, one in enumerate(tasks):
        assert twins([one], tasks[:i] + tasks[i + 1 :]) == []
        assert twins([one], tasks) == [one.name]


def test_the_known_twins_of_the_first_edition() -> None:
    tasks = read_tasks("arc_agi_1")
    assert twins(tasks["training"], tasks["evaluation"]) == ["40853293", "caa06a1f"]
