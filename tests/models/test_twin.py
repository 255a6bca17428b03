"""The models against a slow twin that is written out in loops."""

from typing import Any

import pytest
import torch
from torch import Tensor

from hrm.models import TRM, HRMACTv1
from tests.models import twin
from tests.models.helpers import small_batch, small_hrm, small_trm

PUZZLES = {"num_puzzle_identifiers": 5}
CONFIGS: list[tuple[Any, dict[str, Any]]] = [
    (small_hrm, {}),
    (small_hrm, {"num_heads": 1, "H_cycles": 1, "L_cycles": 3, "H_layers": 2}),
    (small_hrm, {"num_heads": 4, "hidden_size": 24, "H_cycles": 3, "L_cycles": 1, "L_layers": 2}),
    (small_hrm, {"pos_encodings": "learned", "puzzle_emb_ndim": 20, **PUZZLES}),
    (small_hrm, {"pos_encodings": "none", "puzzle_emb_ndim": 16, "rms_norm_eps": 0.1, **PUZZLES}),
    (small_hrm, {"rope_theta": 7.0, "expansion": 2.5, "puzzle_emb_ndim": 3, **PUZZLES}),
    (small_trm, {}),
    (small_trm, {"num_heads": 8, "L_layers": 2, "H_cycles": 3, "L_cycles": 2}),
    (small_trm, {"puzzle_emb_ndim": 16, **PUZZLES}),
    (small_trm, {"pos_encodings": "learned", "puzzle_emb_ndim": 20, "puzzle_emb_len": 0} | PUZZLES),
    (small_trm, {"mlp_t": True, "pos_encodings": "none", "L_layers": 2}),
    (small_trm, {"mlp_t": True, "pos_encodings": "learned"}),
    (small_trm, {"mlp_t": True, "puzzle_emb_ndim": 24, "puzzle_emb_len": 3, **PUZZLES}),
]


def randomised(make: Any, **settings: Any) -> HRMACTv1 | TRM:
    """With a Q-head and a puzzle embedding that say something.

    Branches at half their size: at full size a step of TRM-MLP amplifies rounding tenfold.
    """
    model: HRMACTv1 | TRM = make(branch_init_scale=0.5, **settings)
    with torch.no_grad():
        model.inner.q_head.weight.normal_()
        model.inner.q_head.bias.normal_()
        if model.config.puzzle_emb_ndim:
            model.puzzle_emb.weights.normal_()
    return model


def by_model(model: HRMACTv1 | TRM, steps: int) -> list[dict[str, Tensor]]:
    batch, seen = small_batch(2), []
    carry = model.eval().initial_carry(batch, seed=0)
    with torch.no_grad():
        for _ in range(steps):
            carry, outputs = model(carry, batch)
            q = torch.stack((outputs["q_halt_logits"], outputs["q_continue_logits"]), dim=1)
            latents = carry.inner_carry._asdict()
            seen.append({**latents, "logits": outputs["logits"], "q": q})
    return seen


def by_twin(model: HRMACTv1 | TRM, steps: int) -> list[dict[str, Tensor]]:
    weights = {name: tensor.double() for name, tensor in model.state_dict().items()}
    config, batch, seen = model.config.model_dump(), small_batch(2), []
    x = twin.embed(weights, batch["inputs"], batch["puzzle_identifiers"], config)
    z_H, z_L = twin.start(weights, x)
    for _ in range(steps):
        z_H, z_L, logits, q = twin.step(weights, config, x, z_H, z_L)
        seen.append({"z_H": z_H, "z_L": z_L, "logits": logits, "q": q})
    return seen


def largest_deviation(got: list[dict[str, Tensor]], expected: list[dict[str, Tensor]]) -> float:
    """Over steps and tensors, as a share of the tensor's largest absolute value."""
    return max(
        float((g[name].double() - e[name]).abs().max() / e[name].abs().max())
        for g, e in zip(got, expected, strict=True)
        for name in e
    )


@pytest.mark.parametrize(("make", "settings"), CONFIGS)
def test_models_are_their_twin(make: Any, settings: dict[str, Any]) -> None:
    model = randomised(make, **settings)
    assert largest_deviation(by_model(model, 2), by_twin(model, 2)) < 1e-5


@pytest.mark.parametrize(
    ("make", "settings"),
    [(small_hrm, {}), (small_trm, {}), (small_trm, {"mlp_t": True, "pos_encodings": "none"})],
)
def test_bfloat16_is_near(make: Any, settings: dict[str, Any]) -> None:
    model = randomised(make, forward_dtype="bfloat16", **settings)
    assert 1e-4 < largest_deviation(by_model(model, 1), by_twin(model, 1)) < 0.1
