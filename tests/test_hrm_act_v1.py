"""HRMACTv1 by example: make one, step it, train it, save it."""

from pathlib import Path

import pytest
import torch
import yaml

from hrm.models import CastedSparseEmbeddingSignSGD_Distributed, HRMACTv1, HRMACTv1Config
from hrm.training.losses import step_loss

EXAMPLE = Path(__file__).parents[1] / "configs" / "hrm_act_v1_example.yaml"
SMALL = {"hidden_size": 32, "num_heads": 4, "H_layers": 1, "L_layers": 1, "ffn_multiple": 16}
SMALL |= {"puzzle_emb_ndim": 32, "batch_size": 4, "forward_dtype": "float32"}


def example(**changes: object) -> HRMACTv1:
    """The example's model at a small size."""
    return HRMACTv1({**yaml.safe_load(EXAMPLE.read_text()), **SMALL, **changes})


def rows(slots: int = 4) -> dict[str, torch.Tensor]:
    """Inputs whose answer is the input itself."""
    inputs = torch.randint(2, 11, (slots, 81))
    identifiers = torch.randint(0, 1000, (slots,))
    return {"inputs": inputs, "labels": inputs, "puzzle_identifiers": identifiers}


def test_the_example_configuration_builds_a_model() -> None:
    settings = yaml.safe_load(EXAMPLE.read_text())
    assert HRMACTv1Config(**settings).model_dump().items() >= settings.items()
    with torch.device("meta"):
        model = HRMACTv1(settings)
    assert model.config.hidden_size == 512
    assert sum(p.numel() for p in model.parameters()) == pytest.approx(27e6, rel=0.02)


def test_one_step() -> None:
    model, batch = example(), rows()
    carry, outputs = model(model.initial_carry(batch), batch)
    assert outputs["logits"].shape == (4, 81, 11)
    assert outputs["q_halt_logits"].shape == outputs["q_continue_logits"].shape == (4,)
    assert outputs["target_q_continue"].shape == (4,)
    assert carry.steps.tolist() == [1, 1, 1, 1]


def test_an_answer_in_evaluation() -> None:
    model, batch = example(halt_max_steps=3).eval(), rows()
    carry = model.initial_carry(batch)
    with torch.no_grad():
        while True:
            carry, outputs = model(carry, batch)
            if carry.halted.all():
                break
    assert carry.steps.tolist() == [3, 3, 3, 3]
    assert outputs["logits"].argmax(-1).shape == (4, 81)


def test_training_learns_to_copy() -> None:
    model, batch = example(H_cycles=1, L_cycles=1, halt_max_steps=2, branch_init_scale=0.1), rows()
    optimizer = torch.optim.AdamW(model.parameters(), lr=3e-3)
    sparse_optimizer = CastedSparseEmbeddingSignSGD_Distributed(model.puzzle_emb.parameters())
    carry, losses = model.initial_carry(batch), []
    for _ in range(60):
        carry, outputs = model(carry, batch)
        step = step_loss(outputs, carry, model.halting, "stablemax")
        (step.loss / 4).backward()
        for o in (optimizer, sparse_optimizer):
            o.step()
            o.zero_grad()
        losses.append(float(step.sums["lm_loss"]) / 4)
    assert losses[0] == pytest.approx(2.4, abs=0.4)  # about ln 11
    assert losses[-1] < 0.3 * losses[0]


def test_weights_come_back(tmp_path: Path) -> None:
    model, batch = example().eval(), rows()
    torch.save(model.state_dict(), tmp_path / "weights.pt")
    other = example().eval()
    other.load_state_dict(torch.load(tmp_path / "weights.pt", weights_only=True))
    results = [m(m.initial_carry(batch), batch)[1]["logits"] for m in (model, other)]
    assert torch.equal(*results)


@pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a GPU")
def test_a_gpu_agrees_with_the_cpu() -> None:
    model, batch = example().eval(), rows()
    expected = model(model.initial_carry(batch), batch)[1]["logits"]
    model, batch = model.cuda(), {k: v.cuda() for k, v in batch.items()}
    got = model(model.initial_carry(batch), batch)[1]["logits"]
    torch.testing.assert_close(got.cpu(), expected, atol=1e-3, rtol=1e-3)
