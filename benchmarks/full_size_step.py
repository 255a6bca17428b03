"""Updates a second at full size, beside the machine's own matrix-product rate.

    python benchmarks/full_size_step.py

Width 512, 81 tokens, batch 16, bfloat16: HRM (2x2 cycles, 4 layers a level, bootstrapped continue
target), TRM with attention and TRM-MLP (3x6 cycles, 2 layers), each a whole update: forward, loss,
backward, AdamW. Operations are those of matrix products, counted from the model by
`torch.utils.flop_counter`; the rate is that of one bfloat16 product of the largest shape in a step,
measured in the same run between the updates. Writes results/full_size_step.json and .md.
"""

from __future__ import annotations

import argparse
import json
import statistics
import time
from pathlib import Path
from typing import Any

import torch
from machine import stamp
from torch.utils.flop_counter import FlopCounterMode

from hrm.models import TRM, ACTModel, HRMACTv1
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
    """One persistent update of a model on random rows."""

    def __init__(self, model: ACTModel) -> None:
        self.model = model.train()
        self.optimizer = torch.optim.AdamW(model.parameters(), lr=1e-5, fused=True)
        tokens = torch.randint(1, VOCAB, (BATCH, LENGTH), dtype=torch.int32)
        ids = torch.zeros(BATCH, dtype=torch.int32)
        self.batch = {"inputs": tokens, "labels": tokens, "puzzle_identifiers": ids}
        self.carry = model.initial_carry(self.batch, seed=0)

    def __call__(self) -> None:
        self.carry, outputs = self.model(self.carry, self.batch)
        loss = step_loss(outputs, self.carry, self.model.halting, "stablemax").loss / BATCH
        loss.backward()
        self.optimizer.step()
        self.optimizer.zero_grad()


def seconds(work: Any) -> float:
    started = time.perf_counter()
    work()
    return time.perf_counter() - started


def product_rate(repeats: int = 20) -> float:
    """Operations a second of a (tokens x width) by (width x 2 * inner) bfloat16 product."""
    a = torch.randn(BATCH * LENGTH, WIDTH, dtype=torch.bfloat16)
    b = torch.randn(2 * 1536, WIDTH, dtype=torch.bfloat16)
    taken = seconds(lambda: [torch.nn.functional.linear(a, b) for _ in range(repeats)])
    return 2 * a.numel() * b.shape[0] * repeats / taken


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--repeats", type=int, default=9)
    parser.add_argument("--threads", type=int, default=2)
    options = parser.parse_args()
    torch.set_num_threads(options.threads)
    updates = {name: Update(model) for name, model in models().items()}
    flops = {}
    for name, update in updates.items():
        update()
        with FlopCounterMode(display=False) as counter:
            update()
        flops[name] = counter.get_total_flops()
    product_rate()
    times: dict[str, list[float]] = {name: [] for name in updates}
    rates: list[float] = []
    for _ in range(options.repeats):  # Interleaved, so that a slow moment hits all alike.
        for name, update in updates.items():
            rates.append(product_rate())
            times[name].append(seconds(update))
    rate = statistics.median(rates)
    runs = []
    for name, taken in times.items():
        middle = statistics.median(taken)
        before, share_before = PUBLISHED[name]
        runs.append(
            {
                "model": name,
                "parameters": sum(p.numel() for p in updates[name].model.parameters()),
                "seconds_an_update": middle,
                "spread": [min(taken), max(taken)],
                "updates_per_s": 1 / middle,
                "operations": flops[name],
                "gemm_share": flops[name] / middle / rate,
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
