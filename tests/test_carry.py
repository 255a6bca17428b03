"""Refill, gather and the names of a carry's tensors."""

from typing import NamedTuple

import pytest
import torch
from torch import Tensor

from hrm.carry import Carry, per_slot


class Pair(NamedTuple):
    a: Tensor
    b: Tensor


def running_carry() -> Carry:
    """Three slots; the middle one has halted. Latents of two different ranks."""
    return Carry(
        inner_carry=Pair(torch.tensor([1.0, 2.0, 3.0]), torch.full((3, 2, 2), 9.0)),
        steps=torch.tensor([2, 5, 1], dtype=torch.int32),
        halted=torch.tensor([False, True, False]),
        current_data={
            "inputs": torch.tensor([[10, 10], [20, 20], [30, 30]]),
            "labels": torch.tensor([[11, 11], [21, 21], [31, 31]]),
            "weight": torch.tensor([0.1, 0.2, 0.3]),
        },
        rng=torch.tensor([5, 6, 7]),
        extra={"min_steps": torch.tensor([4, 4, 4])},
    )


def reset(latents: Pair, halted: Tensor) -> Pair:
    return Pair(*(torch.where(per_slot(halted, t), -1.0, t) for t in latents))


NEW_ROWS = {
    "inputs": torch.tensor([[70, 70], [80, 80], [90, 90]]),
    "labels": torch.tensor([[71, 71], [81, 81], [91, 91]]),
    "weight": torch.tensor([0.7, 0.8, 0.9]),
    "unknown": torch.tensor([1, 2, 3]),
}


def refilled() -> Carry:
    return running_carry().refill(NEW_ROWS, reset, {"min_steps": torch.zeros(3, dtype=torch.int64)})


def test_a_halted_slot_gets_the_new_row_from_step_zero() -> None:
    carry = refilled()
    assert carry.steps.tolist() == [2, 0, 1]
    assert carry.current_data["inputs"].tolist() == [[10, 10], [80, 80], [30, 30]]
    assert carry.current_data["labels"].tolist() == [[11, 11], [81, 81], [31, 31]]
    assert carry.current_data["weight"].tolist() == pytest.approx([0.1, 0.8, 0.3])
    assert carry.inner_carry.a.tolist() == [1, -1, 3]
    assert carry.inner_carry.b[:, 0, 0].tolist() == [9, -1, 9]
    assert carry.extra["min_steps"].tolist() == [4, 0, 4]
    assert not carry.halted.any()


def test_refill_leaves_random_states_types_and_the_old_carry() -> None:
    before = running_carry()
    carry = before.refill(NEW_ROWS, reset, {"min_steps": torch.zeros(3, dtype=torch.int64)})
    assert carry.rng.tolist() == [5, 6, 7]
    assert carry.steps.dtype == torch.int32
    assert set(carry.current_data) == {"inputs", "labels", "weight"}
    for (name, old), (_, same) in zip(
        before.named_tensors(), running_carry().named_tensors(), strict=True
    ):
        assert torch.equal(old, same), name


def test_a_batch_that_lacks_a_key_is_refused() -> None:
    with pytest.raises(KeyError, match="labels"):
        running_carry().refill({"inputs": NEW_ROWS["inputs"]}, reset, running_carry().extra)


def test_gather_keeps_slots_in_the_given_order() -> None:
    carry = running_carry().gather(torch.tensor([2, 0]))
    assert carry.steps.tolist() == [1, 2]
    assert carry.halted.tolist() == [False, False]
    assert carry.rng.tolist() == [7, 5]
    assert carry.inner_carry.a.tolist() == [3, 1]
    assert carry.inner_carry.b.shape == (2, 2, 2)
    assert carry.current_data["labels"].tolist() == [[31, 31], [11, 11]]
    assert carry.extra["min_steps"].shape == (2,)


def test_tensors_go_out_by_name_and_come_back() -> None:
    carry = running_carry()
    tensors = {name: t.clone() for name, t in carry.named_tensors()}
    assert list(tensors) == [
        "steps",
        "halted",
        "rng",
        "inner_carry.a",
        "inner_carry.b",
        "current_data.inputs",
        "current_data.labels",
        "current_data.weight",
        "extra.min_steps",
    ]
    back = refilled().load_tensors(tensors)
    for name, tensor in back.named_tensors():
        assert torch.equal(tensor, tensors[name]), name
        assert tensor.dtype == tensors[name].dtype, name


def test_loading_names_what_does_not_fit() -> None:
    tensors = dict(running_carry().named_tensors())
    with pytest.raises(ValueError, match=r"current_data\.labels: \(2,\), not \(3, 2\)"):
        running_carry().load_tensors({**tensors, "current_data.labels": torch.zeros(2)})
    del tensors["extra.min_steps"]
    with pytest.raises(KeyError, match=r"extra\.min_steps"):
        running_carry().load_tensors(tensors)
