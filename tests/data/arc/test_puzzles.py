"""Forms of a task as a group's puzzles: which are kept, how they are named, where grids stand."""

import numpy as np
import pytest

from hrm.data.arc import decode, encode, parse_name, task_of
from hrm.data.arc.puzzles import Group, arrays_of, forms_of
from hrm.data.arc.tasks import Task
from tests.data.arc.small import task

SIDE = 7


def made(value: dict, name: str = "a") -> Task:  # type: ignore[type-arg]
    return task_of(name, value, "")


def test_forms_differ_and_are_named_and_the_first_is_the_task() -> None:
    some = made(task(2))
    forms = forms_of(some, 20, seed=0)
    assert len(forms) == 21
    assert forms.names[0] == "a"
    assert len(set(forms.names)) == 21
    seen = set()
    for name in forms.names:
        original, form = parse_name(name)
        assert original == "a"
        pairs = [(form.apply(p.input).tolist(), str(form.apply(p.output))) for p in some.pairs]
        seen.add(str(pairs))
    assert len(seen) == 21


def test_forms_of_a_task_do_not_depend_on_how_many_there_are() -> None:
    few, many = forms_of(made(task(1)), 5, seed=3), forms_of(made(task(1)), 30, seed=3)
    assert many.names[:6] == few.names
    assert forms_of(made(task(1)), 5, seed=4).names[1:] != few.names[1:]
    assert forms_of(made(task(1), "b"), 5, seed=3).names[1:] != few.names[1:]


def test_equal_forms_are_dropped() -> None:
    black = {"input": [[0, 0], [0, 0]], "output": [[0]]}
    assert len(forms_of(made({"train": [black], "test": [black]}), 10, seed=0)) == 1
    line = {"input": [[0, 0, 0]], "output": [[0]]}
    # A black line lies or stands.
    assert len(forms_of(made({"train": [line], "test": [line]}), 10, seed=0)) == 2
    one = {"input": [[5]], "output": [[5]]}
    assert len(forms_of(made({"train": [one], "test": [one]}), 30, seed=0)) == 9


def test_arrays_of_two_groups_by_hand() -> None:
    first, second = made(task(0, demonstrations=1), "a"), made(task(1, tests=2), "b")
    groups = [
        Group(forms_of(first, 1, seed=0), 1, [1], [0]),
        Group(forms_of(second, 0, seed=0), 3, [3, 4, 0], [0, 1, 2]),
    ]
    arrays = arrays_of(groups, SIDE)
    shown = arrays.demonstrations
    assert shown is not None
    assert arrays.puzzle_identifiers.tolist() == [1, 2, 3]
    assert arrays.puzzle_indices.tolist() == [0, 1, 2, 5]
    assert arrays.group_indices.tolist() == [0, 2, 3]
    assert shown.indices.tolist() == [0, 1, 2, 5]
    assert shown.left_out is not None
    assert shown.left_out.tolist() == [-1, -1, -1, -1, 0]
    assert {a.dtype for a in (arrays.inputs, arrays.labels, shown.inputs)} == {np.dtype(np.uint8)}
    for row, pair in ((0, first.pairs[1]), (2, second.pairs[3]), (4, second.pairs[0])):
        assert np.array_equal(arrays.inputs[row], encode(pair.input, SIDE))
        assert np.array_equal(arrays.labels[row], encode(pair.output, SIDE))
    assert np.array_equal(shown.outputs[3], encode(second.pairs[1].output, SIDE))
    _, form = parse_name(groups[0].forms.names[1])
    assert np.array_equal(arrays.inputs[1], encode(form.apply(first.pairs[1].input), SIDE))
    assert np.array_equal(shown.inputs[1], encode(form.apply(first.pairs[0].input), SIDE))


@pytest.mark.parametrize("copies", [0, 150])
def test_all_pairs_but_one_of_a_puzzle_move(copies: int) -> None:
    some = made(task(1, demonstrations=3, tests=1))
    group = Group(forms_of(some, copies, seed=0), 1, [3], [0, 1, 2])
    plain, moved = arrays_of([group], SIDE), arrays_of([group], SIDE, place_seed=0)
    assert plain.demonstrations is not None
    assert moved.demonstrations is not None
    stay = []
    for form in range(len(group.forms)):
        at = slice(3 * form, 3 * form + 3)
        here = [(plain.inputs[form], plain.labels[form])]
        here += zip(plain.demonstrations.inputs[at], plain.demonstrations.outputs[at], strict=True)
        there = [(moved.inputs[form], moved.labels[form])]
        there += zip(moved.demonstrations.inputs[at], moved.demonstrations.outputs[at], strict=True)
        same = 0
        for old, new in zip(here, there, strict=True):
            for a, b in zip(old, new, strict=True):
                assert np.array_equal(decode(a, SIDE), decode(b, SIDE))
            corners = {int((b >= 2).reshape(SIDE, SIDE).argmax()) for b in new}
            same += corners == {int((old[0] >= 2).argmax())}
        stay.append(same)
    assert min(stay) >= 1
    if copies:
        assert np.mean(stay) < 1.6  # A moved pair rarely comes to stand where it was.
        assert moved.inputs.max() <= 11


def test_an_answer_that_is_not_known_is_padding() -> None:
    value = task(0)
    del value["test"][0]["output"]
    group = Group(forms_of(made(value), 2, seed=0), 1, [3], [0, 1, 2])
    assert not arrays_of([group], SIDE).labels.any()
    assert not arrays_of([group], SIDE, place_seed=0).labels.any()
