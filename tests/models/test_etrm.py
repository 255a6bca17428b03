"""TRM with an encoder: who is encoded when, whom the gradient reaches, and how it is served."""

from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from pydantic import ValidationError
from torch import Tensor

from hrm.benchmarking.solve import fixed_depth
from hrm.carry import Carry
from hrm.data.base import Metadata
from hrm.errors import UserError
from hrm.inference import Engine, solve
from hrm.inference.residuals import measure_convergence
from hrm.models import ETRM, from_pretrained, save_pretrained
from hrm.models.etrm import CONTEXT, ROOM
from hrm.training.gradient_truncation import gradient_truncation
from tests.encoders.helpers import KINDS
from tests.models.helpers import awaken, small_etrm, small_trm, task_batch

CLOSE: dict[str, Any] = {"atol": 1e-5, "rtol": 1e-5}
CONTEXTS = ["cache", "reencode"]


def at_step_two(model: ETRM, halted: list[bool], seed: int = 1) -> tuple[Carry, dict[str, Tensor]]:
    """A carry after one step of all, where these are about to be replaced; and their batch."""
    carry, _ = model(model.initial_carry(task_batch(), seed=0), task_batch())
    return replace(carry, halted=torch.tensor(halted)), task_batch(seed=seed)


@pytest.mark.parametrize("context", CONTEXTS)
@pytest.mark.parametrize("kind", KINDS)
def test_a_step_in_training(kind: str, context: str) -> None:
    model = small_etrm(encoder_type=kind, context=context).train()
    batch = task_batch()
    carry, outputs = model(model.initial_carry(batch, seed=0), batch)
    assert outputs["logits"].shape == (4, 9, 11)
    assert outputs["encoded"].tolist() == [True] * 4
    assert carry.extra[CONTEXT].shape == (4, 2, 16)
    assert not carry.extra[CONTEXT].requires_grad
    assert ("kl" in outputs) == kind.endswith("variational")
    assert carry.inner_carry.z_H.shape == (4, 2 + 9, 16)
    _, outputs = model.eval()(carry, batch)
    assert outputs.keys().isdisjoint({"encoded", "kl"})


def test_marks_tell_who_was_just_admitted() -> None:
    halted = [True, False, True, False]
    model = small_etrm(encoder_type="lpn_variational").train()
    carry, batch = at_step_two(model, halted)
    _, outputs = model(carry, batch)
    assert outputs["encoded"].tolist() == halted
    assert (outputs["kl"] > 0).tolist() == halted
    model.config.context = "reencode"
    _, outputs = model(carry, batch)
    assert outputs["encoded"].tolist() == [True] * 4
    assert (outputs["kl"] > 0).all()
    model.config.context = "cache"
    _, outputs = model(replace(carry, halted=torch.zeros(4, dtype=torch.bool)), batch)
    assert not outputs["encoded"].any()
    assert not outputs["kl"].any()


@pytest.mark.parametrize("slot", range(4))
def test_gradient_reaches_the_encoder_from_those_alone(slot: int) -> None:
    halted = [True, False, True, False]
    for context, reached in (("cache", halted[slot]), ("reencode", True)):
        model = small_etrm(context=context).train()
        carry, batch = at_step_two(model, halted)
        _, outputs = model(carry, batch)
        model.zero_grad()
        outputs["logits"][slot].square().sum().backward()
        learned = [p.grad is not None and bool(p.grad.any()) for p in model.encoder.parameters()]
        assert any(learned) == reached
        # The decoder learns from everyone.
        assert model.inner.lm_head.weight.grad is not None
        assert model.inner.lm_head.weight.grad.any()


def test_without_a_new_sequence_the_encoder_gets_no_gradient_at_all() -> None:
    model = small_etrm().train()
    carry, batch = at_step_two(model, [False] * 4)
    _, outputs = model(carry, batch)
    model.zero_grad()
    outputs["logits"].sum().backward()
    assert all(p.grad is None for p in model.encoder.parameters())


def test_a_running_slot_keeps_its_context_and_its_own_demonstrations() -> None:
    model = small_etrm().eval()
    carry, batch = at_step_two(model, [False, True, False, True], seed=2)
    before, fresh = carry.extra[CONTEXT], model.encoder(*demos(batch)).context
    carry, _ = model(carry, batch)
    for slot, expected in enumerate((before[0], fresh[1], before[2], fresh[3])):
        torch.testing.assert_close(carry.extra[CONTEXT][slot], expected, **CLOSE)
    assert torch.equal(carry.current_data["demo_inputs"][0], task_batch()["demo_inputs"][0])
    assert torch.equal(carry.current_data["demo_inputs"][1], batch["demo_inputs"][1])


def demos(batch: dict[str, Tensor]) -> list[Tensor]:
    return [batch[name] for name in ("demo_inputs", "demo_outputs", "demo_mask")]


@pytest.mark.parametrize("kind", KINDS)
def test_at_evaluation_the_cached_context_is_that_of_encoding_again(kind: str) -> None:
    model = small_etrm(encoder_type=kind).eval()
    batch = task_batch()
    carry = model.initial_carry(batch, seed=0)
    for _ in range(3):
        carry, outputs = model(carry, batch)
        torch.testing.assert_close(carry.extra[CONTEXT], model.encoder(*demos(batch)).context)
    again = small_etrm(encoder_type=kind, context="reencode").eval()
    again.load_state_dict(model.state_dict())
    carry = again.initial_carry(batch, seed=5)
    for _ in range(3):
        carry, others = again(carry, batch)
    assert torch.equal(others["logits"], outputs["logits"])


@pytest.mark.parametrize("context", CONTEXTS)
def test_both_ways_are_one_in_the_first_step_of_training(context: str) -> None:
    cached, other = small_etrm(), small_etrm(context=context)
    other.load_state_dict(cached.state_dict())
    batch = task_batch()
    steps = [m.train()(m.initial_carry(batch, seed=0), batch)[1] for m in (cached, other)]
    assert torch.equal(steps[0]["logits"], steps[1]["logits"])


def test_the_context_is_as_loud_as_the_tokens() -> None:
    for positions in ("rope", "learned"):
        model = small_etrm(pos_encodings=positions, hidden_size=64, num_heads=4, context_tokens=16)
        batch = task_batch(slots=64, demos=1)
        with torch.no_grad():
            x = model.embed(model.admit(model.initial_carry(batch), batch, model.halting)[0])
        assert x.shape == (64, 16 + 9, 64)
        context, tokens = (float(p.square().mean().sqrt()) for p in (x[:, :16], x[:, 16:]))
        assert context == pytest.approx(tokens, rel=0.1)
        assert context == pytest.approx(1.0, rel=0.1)


def test_draws_are_the_slots_own_and_go_on_with_the_carry() -> None:
    model = small_etrm(encoder_type="hybrid_variational", context="reencode").train()
    batch = task_batch()
    carry = model.initial_carry(batch, seed=3)
    first, _ = model(carry, batch)
    again, _ = model(model.initial_carry(batch, seed=3), batch)
    assert torch.equal(first.extra[CONTEXT], again.extra[CONTEXT])
    second, _ = model(first, batch)
    assert not torch.equal(second.extra[CONTEXT], first.extra[CONTEXT])
    # Half of the slots, as another process has them: numbered on, they draw what they drew.
    half = {name: values[2:] for name, values in batch.items()}
    theirs, _ = model(model.initial_carry(half, seed=3, first_slot=2), half)
    torch.testing.assert_close(theirs.extra[CONTEXT], first.extra[CONTEXT][2:], **CLOSE)
    other, _ = model(model.initial_carry(batch, seed=4), batch)
    assert not torch.equal(other.extra[CONTEXT], first.extra[CONTEXT])
    # Nothing is drawn at evaluation.
    seeds = [model.eval()(model.initial_carry(batch, seed=s), batch)[0] for s in (3, 4)]
    assert torch.equal(seeds[0].extra[CONTEXT], seeds[1].extra[CONTEXT])


def test_without_detaching_gradient_reaches_the_encoder_from_later_steps() -> None:
    for detach in (True, False):
        model = small_etrm(H_cycles=1, L_cycles=1).train()
        batch = task_batch()
        carry, _ = model(model.initial_carry(batch, seed=0), batch, detach=detach)
        carry = replace(carry, halted=torch.zeros(4, dtype=torch.bool))
        _, outputs = model(carry, batch, detach=detach)
        outputs["logits"].square().sum().backward()
        reached = any(p.grad is not None for p in model.encoder.parameters())
        assert reached != detach


def rows(batch: dict[str, Tensor], index: Any) -> dict[str, Tensor]:
    return {name: values[index] for name, values in batch.items()}


@pytest.mark.parametrize("kind", KINDS)
def test_a_batch_is_its_rows_one_by_one_and_the_engine_is_the_loop(kind: str) -> None:
    model = small_etrm(encoder_type=kind, halt_max_steps=4).eval()
    awaken(model)
    batch = task_batch(slots=5)
    with torch.no_grad():  # Two of the rows want to halt after the first step.
        bias = model.inner.q_head.bias
        assert bias is not None
        bias[0] -= solve(model, batch).q_halt[0].sort().values[2:4].mean()
    for halting in ("max_steps", "adaptive"):
        together = solve(model, batch, halting)
        for i in (0, 4):
            alone = solve(model, rows(batch, slice(i, i + 1)), halting)
            assert alone.stopped_at[0] == together.stopped_at[i]
            steps = len(alone.q_halt)
            expected = together.q_halt[:steps, i]
            torch.testing.assert_close(alone.q_halt[:, 0], expected, atol=2e-4, rtol=2e-4)
            assert torch.equal(alone.predictions[:, 0], together.predictions[:steps, i])
    assert len(set(together.stopped_at.tolist())) > 1
    served = Engine(model, slots=2).trajectory(batch)
    assert torch.equal(served.stopped_at, together.stopped_at)
    last = (together.stopped_at.long() - 1, torch.arange(5))
    assert torch.equal(served.predictions[last], together.predictions[last])
    torch.testing.assert_close(served.q_halt[last], together.q_halt[last], atol=2e-4, rtol=2e-4)


def test_the_engine_takes_any_number_of_demonstrations_up_to_its_room() -> None:
    model = small_etrm().eval()
    batch = task_batch(slots=4)
    narrow = {n: v[:, :2] if n.startswith("demo") else v for n, v in batch.items()}
    expected = solve(model, narrow, "adaptive")
    engine = Engine(model, slots=2)
    assert engine.columns["demo_inputs"].shape == (ROOM, 9)
    done = engine.solve_all(narrow)
    assert done.predictions.tolist() == expected.predictions[-1].tolist()
    singly = list(engine.solve(rows(narrow, i) for i in range(4)))
    assert [r.predictions.tolist() for r in singly] == done.predictions.tolist()
    wide = task_batch(slots=1, demos=ROOM + 1)
    (result,) = engine.solve([rows(wide, 0)])
    assert result.error is not None
    assert f"demo_inputs: has shape ({ROOM + 1}, 9)" in result.error


def test_the_engine_names_what_a_row_lacks() -> None:
    batch = task_batch(slots=2)
    broken = {n: v.clone() for n, v in rows(batch, 0).items()}
    broken["demo_outputs"][1, 4] = 99
    lacking = {n: v for n, v in rows(batch, 0).items() if n != "demo_mask"}
    results = list(Engine(small_etrm().eval(), slots=2).solve([broken, lacking, rows(batch, 1)]))
    assert results[0].error == "demo_outputs: 99 at position 1 is not in 0..10"
    assert results[1].error == "demo_mask: is missing, and the model needs it"
    assert results[2].error is None


def test_a_model_is_saved_and_found_again(tmp_path: Path) -> None:
    model = small_etrm(encoder_type="lpn_variational").eval()
    folder = save_pretrained(model, tmp_path / "mine")
    again = from_pretrained(folder)
    assert isinstance(again, ETRM)
    assert again.config == model.config
    batch = task_batch()
    assert torch.equal(solve(again, batch).predictions, solve(model, batch).predictions)


def test_parameters_are_those_of_the_decoder_and_those_of_the_encoder() -> None:
    model = small_etrm()
    groups = model.parameter_groups()
    assert list(groups) == ["trunk", "encoder"]
    held = [id(p) for group in groups.values() for p in group]
    assert sorted(held) == sorted(id(p) for p in model.parameters())
    names = {n for n, _ in small_trm(seq_len=9, puzzle_emb_ndim=16).named_parameters()}
    assert {n for n, _ in model.named_parameters() if not n.startswith("encoder.")} == names


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"encoder_type": "deep"}, "encoder_type"),
        ({"context": "both"}, "context"),
        ({"seq_len": 8}, "seq_len: 8 tokens are no square grid"),
        ({"puzzle_emb_ndim": 16}, "puzzle_emb_ndim"),
        (
            {"encoder_type": "lpn_standard", "encoder_set_layers": 2},
            "encoder_set_layers: encoder_type=lpn_standard .* has none; leave it null",
        ),
        ({"encoder_latent_dim": 8}, "encoder_latent_dim: encoder_type=standard has no latent"),
        ({"context_tokens": 0}, "context_tokens"),
    ],
)
def test_contradictions_are_refused_by_name(changes: dict[str, Any], message: str) -> None:
    with pytest.raises(ValidationError, match=message):
        small_etrm(**changes)


def test_data_without_demonstrations_are_refused() -> None:
    data = Metadata(
        pad_id=0,
        ignore_label_id=0,
        blank_identifier_id=0,
        vocab_size=11,
        seq_len=9,
        num_puzzle_identifiers=5,
        total_groups=1,
        mean_puzzle_examples=1.0,
        sets=["all"],
    )
    with pytest.raises(UserError, match=r"learns a task from its demonstrations, and this data"):
        ETRM.config_type.read_data(data)
    data = data.model_copy(update={"demonstrations": 4})
    assert ETRM.config_type.read_data(data)["demonstrations"] == 4
    batch = task_batch()
    del batch["demo_mask"]
    with pytest.raises(UserError, match="demo_mask: is missing"):
        small_etrm().initial_carry(batch)


def test_what_takes_steps_by_itself_starts_from_the_same_input() -> None:
    model = small_etrm(encoder_type="hybrid_variational").eval()
    batch = task_batch()
    measured = measure_convergence(model, batch, 3)
    expected = solve(model, batch).predictions.numpy()
    assert np.array_equal(measured.predictions, expected)
    assert np.array_equal(fixed_depth(model, [batch])[0].numpy(), expected[-1])
    with pytest.raises(UserError, match=r"^gradients: those of a model with an encoder"):
        gradient_truncation(model, [batch], "softmax", [1])
