"""How near to its product rate a machine could come at an update: the floor under it.

    python benchmarks/step_floor.py

An update of each model is run once and all its matrix products are written down, forward and
backward, with their shapes, strides and types. Then, in turns: the bare product that `gemm_share`
is measured against; all of the update's products with nothing between them; AdamW alone; one pass
over each product's result (read it, change it, write it), the least that any norm, gate, rotary
turn, softmax or sum behind it takes unless it is part of the product itself; and the whole update,
eager. Full-size models in bfloat16, small presets as they are, in float32. Writes
results/step_floor.{json,md}.
"""

from __future__ import annotations

import argparse
import json
import statistics
from collections.abc import Callable
from pathlib import Path
from typing import Any

import torch
from full_size_step import Update, models
from machine import stamp
from torch import Tensor
from torch.utils._python_dispatch import TorchDispatchMode

from hrm.benchmarking.measure import in_turns
from hrm.benchmarking.products import Product, count_products
from hrm.config import build_model, compose
from hrm.models import ACTModel

RESULTS = Path(__file__).parent.parent / "results"
CPU = torch.device("cpu")
PRESETS = ("sudoku_4x4", "sudoku_4x4_hrm", "sudoku_6x6")
SETS = 3
"""Tensors of each shape that take turns, so that a product does not find its factors in a cache
where the update would not."""
Call = tuple[Any, tuple[Any, ...], dict[str, Any]]


class Products(TorchDispatchMode):
    """Every matrix product as its function and arguments, tensors as `(shape, stride, dtype)`."""

    KINDS = frozenset(
        getattr(torch.ops.aten, name)
        for name in (
            "mm",
            "addmm",
            "bmm",
            "baddbmm",
            "_scaled_dot_product_flash_attention_for_cpu",
            "_scaled_dot_product_flash_attention_for_cpu_backward",
        )
    )

    def __init__(self) -> None:
        super().__init__()
        self.calls: list[Call] = []

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        kwargs = kwargs or {}
        if func.overloadpacket in self.KINDS:
            spec = tuple(
                (tuple(a.shape), a.stride(), a.dtype) if isinstance(a, Tensor) else a for a in args
            )
            self.calls.append((func, spec, kwargs))
        return func(*args, **kwargs)


class Replay:
    """The calls again, on random tensors of the same layout; `results` are those of the last."""

    def __init__(self, calls: list[Call]) -> None:
        known: dict[str, list[tuple[Any, ...]]] = {}
        self.calls = []
        for i, (func, spec, kwargs) in enumerate(calls):
            sets = known.setdefault(f"{func} {spec}", [])
            if len(sets) < SETS:
                sets.append(tuple(_random(a) if _is_tensor(a) else a for a in spec))
            self.calls.append((func, sets[i % len(sets)], kwargs))

    @torch.no_grad()
    def __call__(self) -> None:
        for func, arguments, kwargs in self.calls:
            func(*arguments, **kwargs)

    @torch.no_grad()
    def passes(self) -> Callable[[], None]:
        """One pass over each call's result."""
        sets: dict[tuple[Any, ...], list[Tensor]] = {}
        order = []
        for i, (func, arguments, kwargs) in enumerate(self.calls):
            key = (func, *(a.shape for a in arguments if isinstance(a, Tensor)))
            mine = sets.setdefault(key, [])
            if len(mine) < SETS:
                result = func(*arguments, **kwargs)
                mine.append(result if isinstance(result, Tensor) else result[0])
            order.append(mine[i % len(mine)])

        def run() -> None:
            for result in order:
                result.mul_(1.0)

        return run


def _is_tensor(argument: Any) -> bool:
    return isinstance(argument, tuple) and isinstance(argument[-1], torch.dtype)


def _random(spec: tuple[tuple[int, ...], tuple[int, ...], torch.dtype]) -> Tensor:
    shape, stride, dtype = spec
    return torch.empty_strided(shape, stride, dtype=dtype).normal_(std=0.1)


def measure(name: str, update: Update, repeats: int) -> dict[str, Any]:
    """Medians of one model, in seconds, and what they are of the product rate."""
    update()
    counted = count_products(update)
    with Products() as seen:
        update()
    replay = Replay(seen.calls)
    product = Product(counted.largest, counted.dtype, CPU)
    product.warm_up()
    gradients = [(p, torch.zeros_like(p)) for p in update.model.parameters()]

    def optimize() -> None:
        for parameter, gradient in gradients:
            parameter.grad = gradient
        update.optimizer.step()
        update.optimizer.zero_grad()

    works: dict[str, Callable[[], object]] = {
        "product": product,
        "products": replay,
        "passes": replay.passes(),
        "optimizer": optimize,
        "update": update,
    }
    in_turns(works, 1, CPU)
    times = in_turns(works, repeats, CPU)
    rates = [product.operations / t for t in times["product"]]
    shares = {
        key: statistics.median(
            counted.operations / sum(parts) / rate
            for *parts, rate in zip(*columns, rates, strict=True)
        )
        for key, columns in {
            "products": [times["products"]],
            "floor": [times["products"], times["optimizer"], times["passes"]],
            "update": [times["update"]],
        }.items()
    }
    return {
        "model": name,
        "products": len(seen.calls),
        "operations": counted.operations,
        "rate": statistics.median(rates),
        "seconds": {key: statistics.median(t) for key, t in times.items() if key != "product"},
        "spread": {key: [min(t), max(t)] for key, t in times.items() if key != "product"},
        "share": shares,
        "could_be": statistics.median(
            whole / sum(parts)
            for *parts, whole in zip(
                *(times[k] for k in ("products", "optimizer", "passes", "update")), strict=True
            )
        ),
    }


def preset(name: str) -> ACTModel:
    """The model of an experiment, for boards of its size."""
    config = compose([f"experiment={name}"])
    side = int(name.split("_")[1][0])
    torch.manual_seed(0)
    return build_model(
        config.arch,
        seq_len=side * side,
        vocab_size=side + 2,
        num_puzzle_identifiers=1,
        batch_size=config.global_batch_size,
    )


def report(record: dict[str, Any]) -> str:
    """The table."""
    lines = [
        "# The floor under an update",
        "",
        f"`{record['command']}` at commit {record['commit']}, {record['date']},",
        f"{record['machine']}, {record['threads']} threads. Medians of {record['repeats']} turns.",
        "",
        "Shares are of the rate of the update's largest product alone, in the same turn.",
        "*Products*: all of the update's products with nothing between them. *Floor*: they, AdamW,",
        "and one pass over each product's result. The last column is how many times as fast as now",
        "the update would be at that floor.",
        "",
        "| model | products | ms: products | one pass each | AdamW | whole update |"
        " share: products | floor | whole update | could be |",
        "|" + "---|" * 10,
    ]
    for run in record["runs"]:
        parts = ("products", "passes", "optimizer", "update")
        told = [f"{run['seconds'][k] * 1e3:.4g}" for k in parts]
        told += [f"{run['share'][k]:.2f}" for k in ("products", "floor", "update")]
        told.append(f"{run['could_be']:.2f}")
        lines.append(f"| {run['model']} | {run['products']} | " + " | ".join(told) + " |")
    return "\n".join(lines) + "\n"


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--repeats", type=int, default=9)
    parser.add_argument("--threads", type=int, default=2)
    options = parser.parse_args()
    torch.set_num_threads(options.threads)
    updates = [(name, Update(model)) for name, model in models().items()]
    updates += [(name, Update(preset(name), "softmax")) for name in PRESETS]
    runs = [measure(name, update, options.repeats) for name, update in updates]
    command = f"python benchmarks/step_floor.py --repeats {options.repeats}"
    if options.threads != 2:
        command += f" --threads {options.threads}"
    record = {
        "command": command,
        **stamp(),
        "threads": options.threads,
        "repeats": options.repeats,
        "runs": runs,
    }
    (RESULTS / "step_floor.json").write_text(json.dumps(record, indent=1) + "\n")
    (RESULTS / "step_floor.md").write_text(report(record))
    print(report(record))


if __name__ == "__main__":
    main()
