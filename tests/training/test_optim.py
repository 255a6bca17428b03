"""Optimizers: every parameter in exactly one, first updates by hand, and the schedule."""

import math
from collections.abc import Sequence
from typing import Any

import pytest
import torch
from pydantic import ValidationError
from torch import Tensor, nn

from hrm.models import ACTUNet, CastedSparseEmbeddingSignSGD_Distributed
from hrm.models.base import ReasoningModule
from hrm.training.optim import OptimizerConfig, lr_factor, make_optimizers, set_lr
from tests.models.helpers import small_hrm, small_trm, small_unet


class Toy(nn.Module):
    """One matrix in a layer, one outside."""

    def __init__(self) -> None:
        super().__init__()
        self.level = ReasoningModule([nn.Linear(3, 2, bias=False)])
        self.head = nn.Linear(2, 1, bias=True)

    @property
    def matrix(self) -> Tensor:
        return self.level.layers[0].weight


def held_by(optimizers: Sequence[torch.optim.Optimizer]) -> list[int]:
    """What they hold, by `id`, as often as they do."""
    return [id(p) for o in optimizers for g in o.param_groups for p in g["params"]]


@pytest.mark.parametrize("optimizer", ["adamw", "adam_atan2", "muon"])
@pytest.mark.parametrize("puzzle_emb_ndim", [0, 16])
def test_every_parameter_is_in_exactly_one_optimizer(optimizer: Any, puzzle_emb_ndim: int) -> None:
    settings = {"puzzle_emb_ndim": puzzle_emb_ndim, "num_puzzle_identifiers": 4}
    for model in (small_hrm(**settings), small_trm(**settings), small_trm(mlp_t=True, **settings)):
        optimizers = make_optimizers(model, OptimizerConfig(optimizer=optimizer))
        held = held_by(optimizers)
        expected = [id(p) for p in model.parameters()]
        if puzzle_emb_ndim:
            expected += [id(t) for t in model.puzzle_emb.optimizer_tensors()]
            assert isinstance(optimizers[-1], CastedSparseEmbeddingSignSGD_Distributed)
            assert optimizers[-1].param_groups[0]["lr"] == 1e-2
        assert sorted(held) == sorted(expected)


@pytest.mark.parametrize("optimizer", ["adamw", "adam_atan2", "muon"])
@pytest.mark.parametrize("halting", ["dual_value", "graves"])
def test_so_is_every_parameter_of_an_image_model(optimizer: Any, halting: str) -> None:
    model = small_unet(halting=halting)
    optimizers = make_optimizers(model, OptimizerConfig(optimizer=optimizer))
    assert sorted(held_by(optimizers)) == sorted(id(p) for p in model.parameters())


def test_muon_takes_the_matrices_of_the_levels_alone() -> None:
    model = small_hrm()
    muon, rest = make_optimizers(model, OptimizerConfig(optimizer="muon"))
    chosen = {id(p) for g in muon.param_groups for p in g["params"]}
    names = {n for n, p in model.named_parameters() if id(p) in chosen}
    assert names == {n for n, _ in model.named_parameters() if "_level." in n}
    assert isinstance(rest, torch.optim.AdamW)


def test_updates_of_adam_atan2_by_hand() -> None:
    model = Toy()
    config = OptimizerConfig(optimizer="adam_atan2", lr=0.1, weight_decay=0.5)
    (optimizer,) = make_optimizers(model, config)
    weight = model.matrix
    expected = weight.detach().double()
    sign = torch.tensor([[1.0, -1.0, 0.0], [1.0, 1.0, -1.0]])
    # With a constant gradient g, m = (1 - 0.9^t) g and v = (1 - 0.95^t) g^2, so the corrected root
    # is |g| and each update lr / (1 - 0.9^t) * atan(1 - 0.9^t).
    for t in (1, 2, 3):
        weight.grad = 0.3 * sign
        optimizer.step()
        share = 1 - 0.9**t
        expected = expected * (1 - 0.1 * 0.5) - 0.1 / share * math.atan(share) * sign
    torch.testing.assert_close(weight.detach().double(), expected, rtol=1e-6, atol=1e-6)
    assert model.head.weight.grad is None  # and what has no gradient stays
    assert optimizer.state.keys() == {weight}


def test_first_update_of_adamw() -> None:
    model = Toy()
    config = OptimizerConfig(optimizer="adamw", lr=0.1, weight_decay=0.5)
    (optimizer,) = make_optimizers(model, config)
    before = model.head.weight.detach().clone()
    model.head.weight.grad = torch.tensor([[2.0, -3.0]])
    optimizer.step()
    expected = before * (1 - 0.1 * 0.5) - 0.1 * torch.tensor([[1.0, -1.0]])
    torch.testing.assert_close(model.head.weight.detach(), expected)


def test_first_update_of_muon_is_orthogonal() -> None:
    model = Toy()
    config = OptimizerConfig(optimizer="muon", lr=0.1, weight_decay=0.0)
    muon, _ = make_optimizers(model, config)
    before = model.matrix.detach().clone()
    model.matrix.grad = torch.randn(2, 3)
    muon.step()
    update = (before - model.matrix.detach()) / (0.1 * 0.2 * math.sqrt(3))
    # Newton-Schulz leaves singular values near 1; 0.2 sqrt(3) matches AdamW's root mean square.
    singular = torch.linalg.svdvals(update)
    assert (singular > 0.6).all()
    assert (singular < 1.3).all()


@pytest.mark.parametrize(
    ("step", "progress", "factor"),
    [(1, 0.0, 0.25), (3, 0.0, 0.75), (4, 0.0, 1.0), (9, 0.5, 0.6), (9, 1.0, 0.2), (9, 1.5, 0.2)],
)
def test_warm_up_then_cosine(step: int, progress: float, factor: float) -> None:
    config = OptimizerConfig(lr_schedule="cosine", lr_min_ratio=0.2)
    assert lr_factor(4, config, step, progress) == pytest.approx(factor)


def test_constant_after_warm_up() -> None:
    config = OptimizerConfig()
    assert [lr_factor(2, config, n, 0.9) for n in (1, 2, 3)] == [0.5, 1.0, 1.0]
    assert lr_factor(0, config, 1, 0.0) == 1.0


def test_value_functions_may_have_a_schedule_of_their_own() -> None:
    config = OptimizerConfig(lr_schedule="cosine", head_lr_schedule="constant")
    assert lr_factor(4, config, 2, 0.0, head=True) == 0.5
    assert lr_factor(4, config, 9, 1.0, head=True) == 1.0
    assert lr_factor(4, config, 9, 1.0) == 0.0
    assert lr_factor(4, OptimizerConfig(lr_schedule="cosine"), 9, 1.0, head=True) == 0.0


def test_muon_takes_the_layers_of_every_kind_of_model() -> None:
    config = OptimizerConfig(optimizer="muon", lr=0.4, head_lr=0.2)
    sizes = {"batch_size": 1, "height": 4, "width": 4, "channels": 1, "classes": 2, "vocab_size": 4}
    unet = ACTUNet({**sizes, "values": "categorical", "hidden_size": 16, "num_heads": 2})
    for model in (small_hrm(), unet):
        taken = [o for o in make_optimizers(model, config) if isinstance(o, torch.optim.Muon)]
        count = sum(len(group["params"]) for o in taken for group in o.param_groups)
        assert count == sum(p.ndim == 2 for n, p in model.named_parameters() if ".layers." in n) > 0
    optimizers = make_optimizers(unet, config)
    set_lr(optimizers, 0.1, head_factor=0.5)
    rates = {id(p): g["lr"] for o in optimizers for g in o.param_groups for p in g["params"]}
    assert all(rates[id(p)] == pytest.approx(0.1) for p in unet.halting_parameters())
    assert rates[id(unet.core.first_cls)] == pytest.approx(0.04)


def test_set_lr_scales_each_groups_own_rate() -> None:
    model = small_hrm(puzzle_emb_ndim=16, num_puzzle_identifiers=4)
    optimizers = make_optimizers(model, OptimizerConfig(optimizer="adamw", lr=0.4))
    for _ in range(2):  # not a product of factors
        set_lr(optimizers, 0.5)
    assert [o.param_groups[0]["lr"] for o in optimizers] == [0.2, 0.005]


@pytest.mark.parametrize("bad", [{"lr": 0.0}, {"beta2": 1.0}, {"optimizer": "sgd"}, {"lrr": 1.0}])
def test_bad_settings_are_refused(bad: dict[str, Any]) -> None:
    with pytest.raises(ValidationError, match=next(iter(bad))):
        OptimizerConfig(**bad)
