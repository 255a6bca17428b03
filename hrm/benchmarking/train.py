"""Whole updates of a training run, beside the bare products of their largest shape."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import torch

from hrm.benchmarking.measure import PeakMemory, in_turns, with_spread
from hrm.benchmarking.products import Product, count_products
from hrm.config import ExperimentConfig
from hrm.data.base import Metadata, PuzzleSplit, SplitArrays
from hrm.data.feeder import Augmenter
from hrm.device import pick_device
from hrm.training.compiling import compiles
from hrm.training.trainer import Trainer

ENDLESS = 10**9
"""Updates of a run that never ends."""
UNCOUNTED = 2
"""Updates before the first that is timed: they fill optimizer states and caches."""


def synthetic_split(seq_len: int, vocab_size: int, rows: int = 1024) -> PuzzleSplit:
    """Rows of random tokens (never 0, which pads), each a puzzle of its own without identifier."""
    tokens = np.random.default_rng(0).integers(1, vocab_size, (2, rows, seq_len), dtype=np.int32)
    arrays = SplitArrays.from_rows(tokens[0], tokens[1])
    metadata = Metadata(
        pad_id=0,
        ignore_label_id=None,
        blank_identifier_id=0,
        vocab_size=vocab_size,
        seq_len=seq_len,
        num_puzzle_identifiers=1,
        total_groups=rows,
        mean_puzzle_examples=1,
        sets=["all"],
    )
    return PuzzleSplit("train", Path("synthetic/train"), metadata, **vars(arrays))


def bench_training(
    config: ExperimentConfig, rows: PuzzleSplit, repeats: int, augment: Augmenter | None = None
) -> dict[str, Any]:
    """Time `repeats` whole updates as `hrm train` does them: rows drawn, forward, loss, backward,
    check, optimizers, averaging. Nothing is written.

    Returns:
        `samples_per_s` (slots times updates), `updates_per_s`, `seconds_per_update`,
        `operations_per_update` (of matrix products and attention), `gemm_operations_per_s` (the
        rate of the bare product `gemm_shape`, an update's largest, of the same type, timed before
        each update), `gemm_share` (share of that rate that an update reaches), each measured one
        with its `_spread`; `memory_bytes` (what model, optimizers and updates take at most) and
        what was measured.
    """
    device = pick_device(config.device)
    memory = PeakMemory(device)
    # Never over: how long a run is decides about compiling alone.
    endless = config.model_copy(update={"epochs": None, "max_steps": ENDLESS})
    trainer = Trainer(endless, rows, None, Path("benchmark"), augment)
    trainer.compiled = compiles(config, trainer.model, trainer.dynamics.example(), None)
    if config.compile == "auto":
        memory.restart()  # Of the measurement.
    trainer.model.compile_layers(trainer.compiled)

    for _ in range(UNCOUNTED):
        trainer.update()
    taken = memory.read()
    trainer.model.compile_layers(False)  # What compiled layers multiply is not seen.
    counted = count_products(trainer.update)
    trainer.model.compile_layers(trainer.compiled)
    product = Product(counted.largest, counted.dtype, device)
    product.warm_up()
    times = in_turns({"product": product, "update": trainer.update}, repeats, device)
    slots = config.global_batch_size
    rates = [product.operations / t for t in times["product"]]
    shares = [counted.operations / t / rate for t, rate in zip(times["update"], rates, strict=True)]
    return {
        **with_spread("samples_per_s", [slots / t for t in times["update"]]),
        **with_spread("updates_per_s", [1 / t for t in times["update"]]),
        **with_spread("seconds_per_update", times["update"]),
        "operations_per_update": counted.operations,
        **with_spread("gemm_operations_per_s", rates),
        "gemm_shape": list(counted.largest),
        **with_spread("gemm_share", shares),
        "memory_bytes": taken,
        "parameters": sum(p.numel() for p in trainer.model.parameters()),
        "arch": config.arch["name"],
        "dynamics": config.dynamics,
        "optimizer": config.optimizer,
        "compiled": trainer.compiled,
        "batch_size": slots,
        "seq_len": rows.metadata.seq_len,
        "vocab_size": rows.metadata.vocab_size,
        "dtype": str(counted.dtype).removeprefix("torch."),
        "device": device_name(device),
        "threads": torch.get_num_threads(),
        "repeats": repeats,
    }


def device_name(device: torch.device) -> str:
    """The device in words."""
    return torch.cuda.get_device_name(device) if device.type == "cuda" else str(device)
