"""Compares compiled layers with plain ones and prints what it found; see test_compiled.py."""

import json

import torch

from hrm.models import HRMACTv1
from hrm.training.losses import step_loss
from tests.models.helpers import SMALL, small_batch


def deviation(make: type[HRMACTv1], settings: dict[str, object]) -> float:
    """Largest difference of outputs, latents and gradients, as a share of each tensor's largest."""
    results = []
    for compiled in (False, True):
        torch.manual_seed(0)
        model = make({**SMALL, **settings}).train()
        model.compile_layers(compiled)
        batch = small_batch()
        carry, outputs = model(model.initial_carry(batch, seed=0), batch)
        step_loss(outputs, carry, model.halting, "stablemax").loss.backward()
        gradients = {name: p.grad for name, p in model.named_parameters() if p.grad is not None}
        results.append({"logits": outputs["logits"], "z_H": carry.inner_carry.z_H, **gradients})
    plain, got = results
    assert plain.keys() == got.keys()
    assert any(name.startswith("inner.L_level") for name in plain)
    with torch.no_grad():
        return max(float((got[k] - v).abs().max() / v.abs().max()) for k, v in plain.items())


def main() -> None:
    found = {"deviation": deviation(HRMACTv1, {"H_layers": 2, "L_layers": 3})}
    found["graphs"] = torch._dynamo.utils.counters["stats"]["unique_graphs"]
    print(json.dumps(found))


if __name__ == "__main__":
    main()
