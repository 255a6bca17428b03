"""Updates a second at full size, beside the machine's own matrix-product rate.

    python benchmarks/full_size_step.py

Width 512, 81 tokens, batch 16, bfloat16: HRM (2x2 cycles, 4 layers a level, bootstrapped continue
target), TRM with attention and TRM-MLP (3x6 cycles, 2 layers), each a whole update: forward, loss,
backward, AdamW. Operations are those of matrix products and attention, counted from the model; the
rate is that of one bfloat16 product of the largest shape in a step, measured in the same run
between the updates. Writes results/full_size_step.json and .md. `hrm bench train` measures the same
of any setting.
"""

from __future__ import annotations

import argparse
import json
import statistics
from collections.abc import Callable
from pathlib import Path
from typing import Any

import torch
from machine import stamp
from torch import Tensor

from hrm.benchmarking.measure import in_turns
from hrm.benchmarking.products import Product, count_products
from hrm.models import TRM, ACTModel, HRMACTv1
from hrm.token_loss import TokenLoss
from hrm.training.losses import step_loss

RESULTS = Path(__file__).parent.parent / "results"
BATCH, LENGTH, VOCAB, WIDTH = 16, 81, 11, 512
SHARED = {
    "batch_size": BATCH,
    "seq_len": LENGTH,
    "vocab_size": VOCAB,
    "hidden_size": WIDTH,
    "num_heads": 8,
    "halt_max_steps": 16,
    "forward_dtype": "bfloat16",
}
PUBLISHED = {
    "HRM": (2.4, 0.60),
    "TRM attention": (2.9, 0.62),
    "TRM-MLP": (2.4, 0.72),
}
"""Published code, eager, on two such cores: seconds an update and share of the product rate."""


def models() -> dict[str, ACTModel]:
    torch.manual_seed(0)
    trm = {**SHARED, "H_cycles": 3, "L_cycles": 6, "L_layers": 2}
    return {
        "HRM": HRMACTv1({**SHARED, "H_cycles": 2, "L_cycles": 2, "H_layers": 4, "L_layers": 4}),
        "TRM attention": TRM(trm),
        "TRM-MLP": TRM({**trm, "mlp_t": True, "pos_encodings": "none"}),
    }


class Update:
    """One persistent update of a model on random rows, AdamW; returns the mean loss of a row."""

    def __init__(self, model: ACTModel, loss: TokenLoss = "stablemax") -> None:
        self.model, self.loss = model.train(), loss
        self.optimizer = torch.optim.AdamW(model.parameters(), lr=1e-5, fused=True)
        self.batch = random_batch(model)
        self.carry = model.initial_carry(self.batch, seed=0)

    def __call__(self) -> Tensor:
        self.carry, outputs = self.model(self.carry, self.batch)
        total = step_loss(outputs, self.carry, self.model.halting, self.loss).loss
        loss = total / self.model.config.batch_size
        loss.backward()
        self.optimizer.step()
        self.optimizer.zero_grad()
        return loss.detach()


def random_batch(model: ACTModel) -> dict[str, Tensor]:
    """Rows that are their own answers: a benchmark learns nothing."""
    config, generator = model.config, torch.Generator().manual_seed(0)
    shape = (config.batch_size, config.seq_len)
    tokens = torch.randint(1, config.vocab_size, shape, generator=generator, dtype=torch.int32)
    ids = torch.zeros(config.batch_size, dtype=torch.int32)
    return {"inputs": tokens, "labels": tokens, "puzzle_identifiers": ids}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--repeats", type=int, default=9)
    parser.add_argument("--threads", type=int, default=2)
    options = parser.parse_args()
    torch.set_num_threads(options.threads)
    updates = {name: Update(model) for name, model in models().items()}
    counted = {}
    for name, update in updates.items():
        update()
        counted[name] = count_products(update)
    product = Product(counted["HRM"].largest, torch.bfloat16, torch.device("cpu"))
    product.warm_up()
    # Before each update the product, and all in turns: a slow moment hits all alike.
    works: dict[str, Callable[[], object]] = {}
    for name, update in updates.items():
        works |= {f"product before {name}": product, name: update}
    times = in_turns(works, options.repeats, torch.device("cpu"))
    rates = [product.operations / t for name in updates for t in times[f"product before {name}"]]
    rate = statistics.median(rates)
    runs: list[dict[str, Any]] = []
    for name in updates:
        taken, flops = times[name], counted[name].operations
        middle = statistics.median(taken)
        before, share_before = PUBLISHED[name]
        runs.append(
            {
                "model": name,
                "parameters": sum(p.numel() for p in updates[name].model.parameters()),
                "seconds_an_update": middle,
                "spread": [min(taken), max(taken)],
                "updates_per_s": 1 / middle,
                "operations": flops,
                "gemm_share": flops / middle / rate,
                "published_seconds": before,
                "published_share": share_before,
            }
        )
    command = f"python benchmarks/full_size_step.py --repeats {options.repeats}"
    record = {"command": command, **stamp(), "product_rate_gflops": rate / 1e9, "runs": runs}
    (RESULTS / "full_size_step.json").write_text(json.dumps(record, indent=1) + "\n")
    lines = [
        "# A full-size update on two cores",
        "",
        f"`{command}` at commit {record['commit']}, {record['date']}, {record['machine']}.",
        f"Medians of {options.repeats} interleaved updates, bfloat16, batch {BATCH},"
        f" {LENGTH} tokens, width {WIDTH}.",
        f"The machine's own bfloat16 product rate in the same run: {rate / 1e9:.0f} GFLOP/s.",
        "The last two columns are for orientation: the published code, eager, on two other such"
        " cores.",
        "",
        "| model | s an update (range) | updates/s | GFLOP an update | share of product rate |"
        " published s | published share |",
        "|---|---|---|---|---|---|---|",
        *(
            f"| {r['model']} | {r['seconds_an_update']:.2f} ({r['spread'][0]:.2f} to"
            f" {r['spread'][1]:.2f}) | {r['updates_per_s']:.2f} | {r['operations'] / 1e9:.0f} |"
            f" {r['gemm_share']:.2f} | {r['published_seconds']} | {r['published_share']} |"
            for r in runs
        ),
    ]
    (RESULTS / "full_size_step.md").write_text("\n".join(lines) + "\n")
    print("\n".join(lines))
    print(json.dumps({r["model"]: r["gemm_share"] for r in runs}))


if __name__ == "__main__":
    main()
