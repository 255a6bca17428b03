"""Compiled layers are the same layers."""

import pytest
import torch

from hrm.training.losses import step_loss
from tests.models.helpers import small_batch, small_hrm, small_trm

pytestmark = pytest.mark.skipif(
    not torch._inductor.cpp_builder.get_cpp_compiler(), reason="no C++ compiler"
)


@pytest.mark.parametrize("kind", ["hrm", "trm_mlp"])
def test_compiled_layers_give_the_same_step_and_gradients(kind: str) -> None:
    make = {"hrm": small_hrm, "trm_mlp": lambda: small_trm(mlp_t=True, pos_encodings="none")}[kind]
    results = []
    for compiled in (False, True):
        torch.manual_seed(0)
        model = make().train()
        model.compile_layers(compiled)
        batch = small_batch()
        carry, outputs = model(model.initial_carry(batch, seed=0), batch)
        step_loss(outputs, carry, model.halting, "stablemax").loss.backward()
        gradients = {name: p.grad for name, p in model.named_parameters()}
        results.append({"logits": outputs["logits"], "z_H": carry.inner_carry.z_H, **gradients})
    for name, plain in results[0].items():
        assert plain is not None
        got = results[1][name]
        assert got is not None
        torch.testing.assert_close(got, plain, rtol=1e-4, atol=1e-5, msg=name)


def test_one_compilation_serves_all_layers_and_levels() -> None:
    torch._dynamo.reset()
    model = small_hrm(H_layers=2, L_layers=3).eval()
    model.compile_layers()
    batch = small_batch()
    with torch.no_grad():
        model(model.initial_carry(batch), batch)
    assert torch._dynamo.utils.counters["stats"]["unique_graphs"] == 1
