"""Cycles by call count and by gradient, heads, shapes and types of one step."""

from collections.abc import Callable
from functools import partial
from typing import Any

import pytest
import torch
from torch import Tensor, nn

from hrm.layers import CastedLinear
from hrm.models import TRM, HRMACTv1
from hrm.training.losses import step_loss
from tests.models.helpers import awaken, small_batch, small_hrm, small_trm

Make = Callable[..., HRMACTv1 | TRM]


def recorded(module: nn.Module) -> list[bool]:
    """A list that gets, at each call of `module`, whether gradients were on."""
    calls: list[bool] = []
    module.register_forward_pre_hook(lambda *_: calls.append(torch.is_grad_enabled()))
    return calls


def step(model: HRMACTv1 | TRM, **batch: Any) -> dict[str, Tensor]:
    rows = small_batch(**batch)
    return model(model.initial_carry(rows, seed=0), rows)[1]


def test_hrm_applies_low_four_times_and_high_twice() -> None:
    model = small_hrm().eval()
    low, high = recorded(model.inner.L_level), recorded(model.inner.H_level)
    step(model)
    assert low == [False, False, False, True]
    assert high == [False, True]


def test_trm_runs_its_last_cycle_whole_with_gradient() -> None:
    model = small_trm().eval()
    calls = recorded(model.inner.L_level)
    step(model)
    assert calls == [False, False, False, True, True, True]


@pytest.mark.parametrize(("cycles", "low_calls", "high_calls"), [((3, 1), 3, 3), ((1, 4), 4, 1)])
def test_other_numbers_of_cycles(cycles: tuple[int, int], low_calls: int, high_calls: int) -> None:
    model = small_hrm(H_cycles=cycles[0], L_cycles=cycles[1]).eval()
    low, high = recorded(model.inner.L_level), recorded(model.inner.H_level)
    step(model)
    assert (len(low), sum(low)) == (low_calls, 1)
    assert (len(high), sum(high)) == (high_calls, 1)


def test_training_looks_one_step_ahead_without_gradient() -> None:
    model = small_hrm().train()
    low, high = recorded(model.inner.L_level), recorded(model.inner.H_level)
    step(model)
    assert (len(low), sum(low)) == (8, 1)
    assert (len(high), sum(high)) == (4, 1)
    trm = small_trm().train()
    calls = recorded(trm.inner.L_level)
    step(trm)
    assert len(calls) == 6  # TRM has no continue value and so no second pass


@pytest.mark.parametrize(
    ("grad_cycles", "low_grads", "high_grads"), [(1, 0, 1), (3, 2, 1), (4, 2, 2), (99, 4, 2)]
)
def test_grad_cycles_counts_the_last_cycles(
    grad_cycles: int, low_grads: int, high_grads: int
) -> None:
    model = small_hrm(grad_cycles=grad_cycles).eval()
    low, high = recorded(model.inner.L_level), recorded(model.inner.H_level)
    step(model)
    assert (len(low), sum(low)) == (4, low_grads)
    assert (len(high), sum(high)) == (2, high_grads)


def test_more_grad_cycles_change_gradients_and_not_outputs() -> None:
    grads, logits = [], []
    for grad_cycles in (None, 6):
        torch.manual_seed(0)
        model = small_hrm(grad_cycles=grad_cycles).eval()
        out = step(model)["logits"]
        out.square().sum().backward()
        logits.append(out)
        grads.append(model.inner.L_level.layers[0].mlp.down_proj.weight.grad)
    assert torch.equal(*logits)
    assert not torch.allclose(*grads)


@pytest.mark.parametrize("grad_cycles", [None, 6])
@pytest.mark.parametrize("dtype", ["float32", "bfloat16"])
@pytest.mark.parametrize("make", [small_hrm, small_trm])
def test_gradient_checkpointing_gives_the_same_gradients(
    make: Make, dtype: str, grad_cycles: int | None
) -> None:
    grads = []
    for checkpointing in (False, True):
        torch.manual_seed(0)
        model = make(
            gradient_checkpointing=checkpointing, forward_dtype=dtype, grad_cycles=grad_cycles
        )
        batch = small_batch()
        carry, outputs = model(model.initial_carry(batch, seed=0), batch)
        step_loss(outputs, carry, model.halting, "stablemax").loss.backward()
        grads.append({name: p.grad for name, p in model.named_parameters()})
    # The cast copies of bfloat16 weights are summed in another order.
    tolerance = {"float32": 0.0, "bfloat16": 2e-2}[dtype]
    for name, plain in grads[0].items():
        assert plain is not None
        assert torch.isfinite(plain).all()
        checkpointed = grads[1][name]
        assert checkpointed is not None, name
        size = float(plain.abs().max())
        torch.testing.assert_close(checkpointed, plain, rtol=0, atol=tolerance * size, msg=name)


@pytest.mark.parametrize("dtype", ["float32", "bfloat16"])
@pytest.mark.parametrize("q_pool", ["first", "mean"])
@pytest.mark.parametrize("mlp_t", [False, True])
def test_values_ahead_are_those_of_one_more_whole_step(
    dtype: str, q_pool: str, mlp_t: bool
) -> None:
    make = partial(small_trm, mlp_t=True, pos_encodings="none") if mlp_t else small_hrm
    model = make(forward_dtype=dtype, q_pool=q_pool).eval()
    awaken(model)
    batch = small_batch()
    carry, _ = model(model.initial_carry(batch), batch)
    inner, latents = model.inner, carry.inner_carry
    with inner.casted():
        x = inner.embed(batch)
        whole = inner.q_values(inner.pool(inner.recur(latents, x).z_H))
        ahead = inner.values_ahead(latents, x)
    tolerance = {"float32": 1e-5, "bfloat16": 3e-2}[dtype]  # Kernels round by shape.
    for name, value in whole.items():
        torch.testing.assert_close(ahead[name], value, rtol=tolerance, atol=tolerance)


def test_the_step_ahead_computes_no_more_of_its_last_layer_than_the_head_reads() -> None:
    model = small_hrm().train()
    widths: list[int] = []
    last = model.inner.H_level.layers[-1].mlp.down_proj
    last.register_forward_hook(lambda module, args, out: widths.append(out.shape[1]))
    step(model)
    length = model.config.seq_len
    # Two high-level cycles of the step itself, two of the step ahead.
    assert widths == [length, length, length, 1]


@pytest.mark.parametrize("make", [small_hrm, small_trm])
def test_each_layer_is_cast_once_a_step(make: Make, monkeypatch: pytest.MonkeyPatch) -> None:
    casts: list[int] = []
    original = CastedLinear.cast_to

    def cast_to(self: CastedLinear, dtype: torch.dtype) -> tuple[Tensor, Tensor | None]:
        casts.append(id(self))
        return original(self, dtype)

    model = make(forward_dtype="bfloat16").train()
    monkeypatch.setattr(CastedLinear, "cast_to", cast_to)
    step(model)
    layers = [m for m in model.modules() if isinstance(m, CastedLinear)]
    assert sorted(casts) == sorted(id(layer) for layer in layers)


def test_every_parameter_gets_a_gradient() -> None:
    for model in (
        small_hrm(puzzle_emb_ndim=16, num_puzzle_identifiers=4),
        small_hrm(pos_encodings="learned"),
        small_trm(),
        small_trm(mlp_t=True, pos_encodings="none"),
    ):
        batch = small_batch()
        carry, outputs = model(model.initial_carry(batch), batch)
        step_loss(outputs, carry, model.halting, "stablemax").loss.backward()
        for name, parameter in model.named_parameters():
            assert parameter.grad is not None, name
            assert parameter.grad.any(), name


@pytest.mark.parametrize("make", [small_hrm, small_trm])
def test_q_head_starts_at_minus_five_and_reads_position_zero(make: Make) -> None:
    model = make(puzzle_emb_ndim=16, num_puzzle_identifiers=4).eval()
    head = model.inner.q_head
    assert not head.weight.detach().any()
    assert head.bias.tolist() == [-5, -5]
    assert step(model)["q_halt_logits"].tolist() == [-5] * 4
    awaken(model)
    batch = small_batch()
    carry, outputs = model(model.initial_carry(batch), batch)
    expected = carry.inner_carry.z_H[:, 0] @ head.weight.T - 5
    torch.testing.assert_close(outputs["q_halt_logits"], expected[:, 0])
    torch.testing.assert_close(outputs["q_continue_logits"], expected[:, 1])


def test_q_head_may_read_the_mean_instead() -> None:
    model = small_hrm(q_pool="mean").eval()
    awaken(model)
    batch = small_batch()
    carry, outputs = model(model.initial_carry(batch), batch)
    expected = carry.inner_carry.z_H.mean(1) @ model.inner.q_head.weight.T - 5
    torch.testing.assert_close(outputs["q_halt_logits"], expected[:, 0])


@pytest.mark.parametrize(
    ("make", "settings", "positions"),
    [
        (small_hrm, {}, 0),
        (small_hrm, {"puzzle_emb_ndim": 16}, 1),
        (small_hrm, {"puzzle_emb_ndim": 20}, 2),
        (small_trm, {}, 0),
        (small_trm, {"puzzle_emb_ndim": 16}, 16),
        (small_trm, {"puzzle_emb_ndim": 16, "puzzle_emb_len": 0}, 1),
        (small_trm, {"puzzle_emb_ndim": 48, "puzzle_emb_len": 2}, 3),
        (small_trm, {"puzzle_emb_ndim": 16, "mlp_t": True}, 16),
    ],
)
def test_puzzle_positions_come_first_and_have_no_logits(
    make: Make, settings: dict[str, Any], positions: int
) -> None:
    model = make(**settings, num_puzzle_identifiers=4).eval()
    batch = small_batch()
    carry, outputs = model(model.initial_carry(batch), batch)
    z_H = carry.inner_carry.z_H
    assert z_H.shape == (4, positions + 6, 16)
    assert outputs["logits"].shape == (4, 6, 11)
    expected = z_H[:, positions:] @ model.inner.lm_head.weight.T
    torch.testing.assert_close(outputs["logits"], expected)


def test_puzzle_embedding_fills_the_first_positions_and_zeros_the_rest() -> None:
    model = small_trm(puzzle_emb_ndim=20, puzzle_emb_len=4, num_puzzle_identifiers=4).eval()
    model.puzzle_emb.weights.normal_()
    batch = small_batch()
    x = model.inner.embed(batch)
    row = model.puzzle_emb.weights[batch["puzzle_identifiers"].long()]
    torch.testing.assert_close(x[:, :4].flatten(1)[:, :20], 4 * row)  # 4: the root of the width
    assert not x[:, :4].flatten(1)[:, 20:].any()
    tokens = model.inner.embed_tokens.embedding_weight[batch["inputs"].long()]
    torch.testing.assert_close(x[:, 4:], 4 * tokens)


def test_learned_positions_keep_the_variance() -> None:
    model = small_hrm(pos_encodings="learned", hidden_size=64, num_heads=4)
    batch = small_batch()
    tokens = model.inner.embed_tokens.embedding_weight[batch["inputs"].long()]
    expected = 8 * 0.5**0.5 * (tokens + model.inner.embed_pos.embedding_weight)
    torch.testing.assert_close(model.inner.embed(batch), expected)
    assert float(model.inner.embed(batch).detach().std()) == pytest.approx(1, rel=0.15)


@pytest.mark.parametrize("dtype", ["bfloat16", "float16"])
@pytest.mark.parametrize("make", [small_hrm, small_trm])
def test_types(make: Make, dtype: str) -> None:
    model = make(forward_dtype=dtype, puzzle_emb_ndim=16, num_puzzle_identifiers=4)
    reference = make(puzzle_emb_ndim=16, num_puzzle_identifiers=4)
    awaken(model)
    reference.load_state_dict(model.state_dict())
    batch = small_batch()
    carry, outputs = model(model.initial_carry(batch), batch)
    assert {p.dtype for p in model.state_dict().values()} == {torch.float32}
    assert carry.inner_carry.z_H.dtype == outputs["logits"].dtype == getattr(torch, dtype)
    for name in ("q_halt_logits", "q_continue_logits"):
        assert outputs[name].dtype == torch.float32
    expected = step(reference)["logits"]
    torch.testing.assert_close(outputs["logits"].float(), expected, atol=0.1, rtol=0.1)


def test_the_carry_holds_no_graph() -> None:
    model, batch = small_hrm(), small_batch()
    carry, outputs = model(model.initial_carry(batch), batch)
    assert outputs["logits"].requires_grad
    assert not any(t.requires_grad for _, t in carry.named_tensors())
    assert not outputs["target_q_continue"].requires_grad


def test_branch_init_scale_scales_what_blocks_add() -> None:
    torch.manual_seed(0)
    plain = small_trm(mlp_t=True)
    torch.manual_seed(0)
    scaled = small_trm(mlp_t=True, branch_init_scale=0.1)
    for (name, a), (_, b) in zip(plain.named_parameters(), scaled.named_parameters(), strict=True):
        factor = 0.1 if "down_proj" in name or "o_proj" in name else 1.0
        torch.testing.assert_close(b, factor * a, msg=name)


def test_trm_mlp_mixes_positions() -> None:
    model = small_trm(mlp_t=True, pos_encodings="none").eval()
    block = model.inner.L_level.layers[0]
    x = torch.randn(2, 6, 16)
    across = x.transpose(1, 2)
    mixed = nn.functional.rms_norm(across + block.mlp_t(across), (6,), eps=1e-5).transpose(1, 2)
    expected = nn.functional.rms_norm(mixed + block.mlp(mixed), (16,), eps=1e-5)
    torch.testing.assert_close(block(x, None), expected, atol=1e-5, rtol=1e-4)
    features = small_trm(mlp_t=True, pos_encodings="none", mix_norm="features")
    block = features.inner.L_level.layers[0]
    mixed = x + block.mlp_t(x.transpose(1, 2)).transpose(1, 2)
    mixed = nn.functional.rms_norm(mixed, (16,), eps=1e-5)
    expected = nn.functional.rms_norm(mixed + block.mlp(mixed), (16,), eps=1e-5)
    torch.testing.assert_close(block(x, None), expected, atol=1e-5, rtol=1e-4)


def test_a_step_is_the_recursion_written_out() -> None:
    for make in (small_hrm, small_trm):
        model = make().eval()
        inner, batch = model.inner, small_batch()
        high = getattr(inner, "H_level", inner.L_level)
        x = inner.embed(batch)
        z_H, z_L = inner.H_init.expand_as(x), inner.L_init.expand_as(x)
        for _ in range(2):
            for _ in range(2):
                z_L = inner.L_level(z_L, z_H + x, inner.rotary)
            z_H = high(z_H, z_L, inner.rotary)
        carry, _ = model(model.initial_carry(batch), batch)
        torch.testing.assert_close(carry.inner_carry.z_H, z_H)
        torch.testing.assert_close(carry.inner_carry.z_L, z_L)
