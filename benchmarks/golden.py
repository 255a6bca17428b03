"""Record what the published code of HRM and TRM computes, for the tests to agree with.

    python benchmarks/golden.py --hrm CHECKOUT --trm CHECKOUT --adam-atan2 CHECKOUT [--check]

The checkouts are git clones of sapientinc/HRM, SamsungSAILMontreal/TinyRecursiveModels and
imoneoi/adam-atan2. Their models are imported as they are; only the flash-attention package, which
needs a GPU, is replaced by PyTorch's `scaled_dot_product_attention`, and the optimizer's CUDA
kernel by the reference in its own test. Models are tiny, in float32, with all weights drawn from
their names (`tests/golden/cases.py`), and without exploration, so that nothing is random.

Writes tests/golden/published.safetensors and published.json; with --check compares with them.
"""

from __future__ import annotations

import argparse
import importlib
import json
import math
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from types import ModuleType
from typing import Any

import torch
from safetensors.torch import load_file, save_file
from torch import Tensor

sys.path.insert(0, str(Path(__file__).parent.parent))

from tests.golden.cases import (
    ADAM,
    ADAM_BETAS,
    ADAM_UPDATES,
    CASES,
    RECORD,
    TENSORS,
    Case,
    adam_gradient,
    adam_start,
    fill,
    sign_sgd,
    trajectory,
)

OUTPUTS = ("logits", "q_halt_logits", "q_continue_logits", "target_q_continue")
MARGIN = 1e-4
"""No decision of the recorded runs is nearer than this: rounding must not turn it."""


@contextmanager
def importing(checkout: Path) -> Iterator[None]:
    """Modules of `checkout` can be imported; afterwards their names are free again."""
    known = set(sys.modules)
    sys.path.insert(0, str(checkout))
    try:
        yield
    finally:
        sys.path.remove(str(checkout))
        for name in set(sys.modules) - known:
            if str(getattr(sys.modules[name], "__file__", "")).startswith(str(checkout)):
                del sys.modules[name]


def stub(name: str, **contents: Any) -> None:
    """A module of that name, where it is not installed."""
    try:
        importlib.import_module(name)
    except ImportError:
        module = ModuleType(name)
        vars(module).update(contents)
        sys.modules[name] = module


def attention(q: Tensor, k: Tensor, v: Tensor, causal: bool) -> Tensor:
    """`flash_attn_func`: heads are the third axis."""
    q, k, v = (t.transpose(1, 2) for t in (q, k, v))
    out = torch.nn.functional.scaled_dot_product_attention(q, k, v, is_causal=causal)
    return out.transpose(1, 2).contiguous()


def commit(checkout: Path) -> str:
    done = subprocess.run(
        ["git", "rev-parse", "HEAD"], cwd=checkout, capture_output=True, text=True, check=True
    )
    return done.stdout.strip()


def published_model(case: Case) -> tuple[Any, Any]:
    """A case's model, filled, and its loss head."""
    module, _, name = case.arch["name"].partition("@")
    losses = importlib.import_module("models.losses")
    settings = {k: v for k, v in case.arch.items() if k not in ("name", "loss")}
    made = getattr(importlib.import_module(f"models.{module}"), name)(settings | case.sizes)
    fill(made.state_dict(), case.seed)
    return made, losses.ACTLossHead(made, case.arch["loss"]["loss_type"])


def record_case(case: Case) -> tuple[dict[str, Tensor], dict[str, list[int]]]:
    """Trajectories in training and evaluation, and the shapes of the state dict."""
    model, head = published_model(case)
    shapes = {name: list(tensor.shape) for name, tensor in model.state_dict().items()}

    def run(carry: Any, batch: dict[str, Tensor]) -> tuple[Any, ...]:
        carry, loss, parts, outputs, _ = head(carry=carry, batch=batch, return_keys=OUTPUTS)
        return carry, outputs, loss, parts

    found: dict[str, Tensor] = {}
    for mode in ("train", "eval"):
        seen = trajectory(model, run, training=mode == "train")
        refuse_close_calls(seen, case.repository)
        found |= {f"{mode}.{name}": value for name, value in seen.items()}
    halted = found["train.carry.halted"].bool()
    at_halt = set(found["train.carry.steps"][halted].tolist())
    assert len(at_halt) > 2, "sequences hardly differ in their steps"
    assert found["train.part.exact_accuracy"].any(), "no sequence is right"
    return found, shapes


def refuse_close_calls(seen: dict[str, Tensor], repository: str) -> None:
    q_halt, q_continue = seen["output.q_halt_logits"], seen["output.q_continue_logits"]
    lead = q_halt - q_continue if repository == "hrm" else q_halt
    first, second = seen["output.logits"].topk(2).values.unbind(-1)
    for margin in (lead, q_halt, first - second):
        assert float(margin.abs().min()) > MARGIN, "a decision is too close"


def record_sign_sgd() -> dict[str, Tensor]:
    module = importlib.import_module("models.sparse_embedding")
    return sign_sgd(module.CastedSparseEmbedding, module.CastedSparseEmbeddingSignSGD_Distributed)


def record_adam(checkout: Path) -> dict[str, Tensor]:
    """The parameter after each update by the reference in the optimizer's own test."""
    stub("adam_atan2_backend")
    found = {}
    with importing(checkout):
        update = importlib.import_module("adam_atan2.adam_atan2_test")._adam_atan2_reference_impl
    for name, (beta1, beta2) in ADAM_BETAS.items():
        parameter, m, v = adam_start(), torch.zeros(12), torch.zeros(12)
        path = []
        for n in range(1, ADAM_UPDATES + 1):
            parameter, m, v = update(
                parameter,
                adam_gradient(n),
                m,
                v,
                step_size=ADAM["lr"] / (1 - beta1**n),
                wd_step_size=ADAM["lr"] * ADAM["weight_decay"],
                bias_correction2_sqrt=math.sqrt(1 - beta2**n),
                beta1=beta1,
                beta2=beta2,
            )
            path.append(parameter.clone())
        found[name] = torch.stack(path)
    return found


def compare(found: dict[str, Tensor]) -> float:
    """Largest deviation from the stored tensors, as a share of a tensor's largest value."""
    stored = load_file(TENSORS)
    assert stored.keys() == found.keys(), sorted(stored.keys() ^ found.keys())
    return max(
        float((found[name] - value).abs().max() / value.abs().max().clamp(min=1e-30))
        for name, value in stored.items()
    )


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    for name in ("--hrm", "--trm", "--adam-atan2"):
        parser.add_argument(name, type=lambda text: Path(text).resolve(), required=True)
    parser.add_argument("--check", action="store_true")
    options = parser.parse_args()
    torch.set_num_threads(1)
    stub("flash_attn_interface", flash_attn_func=attention)

    found: dict[str, Tensor] = {}
    shapes: dict[str, dict[str, list[int]]] = {}
    for repository in ("hrm", "trm"):
        with importing(getattr(options, repository)):
            for name, case in CASES.items():
                if case.repository == repository:
                    seen, shapes[name] = record_case(case)
                    found |= {f"{name}.{key}": value for key, value in seen.items()}
            found |= {f"sign_sgd.{repository}.{k}": v for k, v in record_sign_sgd().items()}
    found |= record_adam(options.adam_atan2)

    if options.check:
        deviation = compare(found)
        print(f"{len(found)} tensors, largest deviation {deviation:.1e}")
        sys.exit(deviation > 1e-5)
    save_file({name: value.contiguous() for name, value in found.items()}, TENSORS)
    record = {
        "command": "python benchmarks/golden.py --hrm CHECKOUT --trm CHECKOUT"
        " --adam-atan2 CHECKOUT",
        "commits": {
            "sapientinc/HRM": commit(options.hrm),
            "SamsungSAILMontreal/TinyRecursiveModels": commit(options.trm),
            "imoneoi/adam-atan2": commit(options.adam_atan2),
        },
        "torch": torch.__version__,
        "state_dict": shapes,
    }
    RECORD.write_text(json.dumps(record, indent=1) + "\n")
    print(f"{len(found)} tensors, {TENSORS.stat().st_size + RECORD.stat().st_size} bytes")


if __name__ == "__main__":
    main()
