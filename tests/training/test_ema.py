"""The average of the weights, by hand, buffers included."""

import pytest
import torch
from torch import nn

from hrm.training.ema import EMA
from tests.models.helpers import small_batch, small_hrm


class Scalar(nn.Module):
    def __init__(self, value: float) -> None:
        super().__init__()
        self.weight = nn.Parameter(torch.tensor([value]))
        self.register_buffer("table", torch.tensor([10 * value]))

    table: torch.Tensor

    def set(self, value: float) -> None:
        with torch.no_grad():
            self.weight.fill_(value)
            self.table.fill_(10 * value)


@pytest.mark.parametrize("rate", [0.05, 0.999])
def test_average_by_hand(rate: float) -> None:
    model = Scalar(7.0)
    ema, expected = EMA(model, rate), 0.0
    for n, value in enumerate([1.0, 2.0, 4.0, 8.0]):
        model.set(value)
        ema.update_parameters(model)
        keep = min(rate, n / (n + 10))  # the first update copies: n is 0
        expected = keep * expected + (1 - keep) * value
        assert float(ema.module.weight.detach()) == pytest.approx(expected)
        assert float(ema.module.table) == pytest.approx(10 * expected)
    assert model.weight.item() == 8.0


def test_late_updates_have_the_full_rate() -> None:
    model = Scalar(0.0)
    ema = EMA(model, 0.9)
    for _ in range(200):
        ema.update_parameters(model)
    model.set(1.0)
    ema.update_parameters(model)
    assert float(ema.module.weight.detach()) == pytest.approx(0.1)


def test_the_averaged_model_evaluates_and_holds_the_sparse_table() -> None:
    model = small_hrm(puzzle_emb_ndim=16, num_puzzle_identifiers=4).train()
    ema = EMA(model, 0.999)
    assert not ema.module.training
    assert model.training
    model.puzzle_emb.weights.fill_(2.0)
    ema.update_parameters(model)
    assert ema.module.puzzle_emb.weights.eq(2.0).all()
    batch = small_batch()
    with torch.no_grad():
        got = ema.module(ema.module.initial_carry(batch), batch)[1]["logits"]
        expected = model.eval()(model.initial_carry(batch), batch)[1]["logits"]
    torch.testing.assert_close(got, expected)


def test_state_comes_back() -> None:
    model = Scalar(1.0)
    ema = EMA(model, 0.9)
    for value in (1.0, 2.0, 3.0):
        model.set(value)
        ema.update_parameters(model)
    other = EMA(Scalar(0.0), 0.9)
    other.load_state_dict(ema.state_dict())
    model.set(9.0)
    for average in (ema, other):
        average.update_parameters(model)
    assert torch.equal(ema.module.weight, other.module.weight)
