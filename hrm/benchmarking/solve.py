"""The engine against solving each puzzle alone, and against the fastest plain loop of fixed depth.

The loop is not the engine with halting switched off: it is the bare recursion over full batches
that lie on the device, with one set of heads and one argmax at the end, at the batch size that is
fastest on this machine. What the engine saves by halting has to beat that.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence
from functools import partial
from typing import Any

import numpy as np
import torch
from torch import Tensor

from hrm.benchmarking.measure import in_turns, seconds, with_spread
from hrm.data.base import IGNORE, PuzzleSplit, spread
from hrm.evaluation import accuracy, exact_accuracy
from hrm.inference.engine import Answers, Engine
from hrm.inference.evaluate import check_fits
from hrm.inference.loop import evaluating, solve
from hrm.models import ACTModel
from hrm.models.base import token_model

BATCH_SIZES = (16, 32, 64, 128, 256, 512, 1024, 2048, 4096)
"""Tried for the loop, and for the engine's slots unless they are given."""
TRIES = 2
"""Calls by which the fastest size is chosen."""
SHOWN = 20
"""Mismatches that are told of one by one."""

Batch = Mapping[str, Tensor]


@torch.inference_mode()
def fixed_depth(model: ACTModel, batches: Sequence[Batch]) -> list[Tensor]:
    """The bare recursion: all steps of every batch, then its heads and an argmax."""
    whole, answers = token_model(model), []
    inner = whole.inner
    for batch in batches:
        everyone = torch.ones(len(batch["inputs"]), dtype=torch.bool, device=inner.H_init.device)
        latents = inner.empty_latents(len(everyone), everyone.device)
        latents = inner.reset_latents(latents, everyone)
        with inner.casted():
            x = whole.input_of(batch)
            for _ in range(model.halting.max_steps):
                latents = inner.recur(latents, x)
            answers.append(inner.heads(latents.z_H)["logits"].argmax(-1))
    return answers


@torch.inference_mode()
def bare_steps(model: ACTModel, batches: Sequence[Batch]) -> None:
    """`model(carry, batch)` and nothing else: what a step costs before any engine."""
    for batch in batches:
        carry = model.initial_carry(batch, seed=0)
        for _ in range(model.halting.max_steps):
            carry, outputs = model(carry, batch)
        outputs["logits"].argmax(-1)


def bench_solving(
    model: ACTModel,
    split: PuzzleSplit,
    *,
    count: int,
    repeats: int,
    slots: int | None = None,
    check: int | None = None,
) -> dict[str, Any]:
    """Solve `count` rows, spread evenly over the split, in each of these ways, in turns.

    Args:
        slots: of the engine; None: the fastest of `BATCH_SIZES` for adaptive halting.
        check: rows that are also solved alone; None: all.

    Returns:
        `puzzles_per_s` of the engine where the policy halts, `puzzles_per_s_max_steps` with every
        sequence to the last step, `fixed_puzzles_per_s` of the loop; `ratio` of the first to the
        last, turn by turn; each with its `_spread`. `mean_steps`, `accuracy` and `exact_accuracy`
        where the policy halts, `fixed_accuracy` and `fixed_exact_accuracy` of the loop (None
        without labels). `identical`: whether answers and step counts are those of each row alone;
        if not, `mismatches` and the first of them in `mismatch_details`.
        `engine_overhead_s_per_step`, at full batches, over `model(carry, batch)`, and as a share of
        it.

    Raises:
        UserError: the data do not fit the model.
    """
    check_fits(model, split)
    rows = spread(len(split), count)
    taken = split.take(rows)
    labels = taken.pop("labels")
    device = next(model.parameters()).device
    on_device = {name: torch.from_numpy(values).to(device) for name, values in taken.items()}
    last = model.halting.max_steps

    def batches_of(size: int) -> list[Batch]:
        """Full batches only: a short last one would be the loop's loss."""
        starts = range(0, len(rows) - size + 1, size)
        return [{k: v[i : i + size] for k, v in on_device.items()} for i in starts]

    def serve(engine: Engine, upto: int | None = None) -> Answers:
        return engine.solve_all({name: values[:upto] for name, values in taken.items()})

    with evaluating(model):
        sizes = [size for size in BATCH_SIZES if size <= len(rows)] or [len(rows)]
        # One batch tells: in the loop all are alike.
        batches = {n: partial(fixed_depth, model, batches_of(n)[:1]) for n in sizes}
        size = fastest(batches, device, lambda n: n)
        if slots is None:
            engines = {n: partial(serve, Engine(model, slots=n)) for n in sizes}
            slots = fastest(engines, device, lambda _: len(rows))
        # More slots than rows are never filled.
        slots = min(slots, len(rows))
        full, in_loop = len(rows) // slots * slots, len(rows) // size * size
        adaptive, plain = Engine(model, slots=slots), Engine(model, slots=slots, adaptive=False)
        works: dict[str, Callable[[], object]] = {
            "fixed": partial(fixed_depth, model, batches_of(size)),
            "adaptive": lambda: serve(adaptive),
            "bare": partial(bare_steps, model, batches_of(slots)),
            "max_steps": lambda: serve(plain, full),
        }
        answers = serve(adaptive)
        answers.refuse_errors()
        for work in works.values():
            work()
        times = in_turns(works, repeats, device)
        whole = [
            {k: v[i : i + size] for k, v in on_device.items()} for i in range(0, len(rows), size)
        ]
        fixed = torch.cat(fixed_depth(model, whole)).cpu().numpy()
        checked = len(rows) if check is None else min(check, len(rows))
        mismatches = differences(model, on_device, answers, checked)

    served = [len(rows) / t for t in times["adaptive"]]
    looped = [in_loop / t for t in times["fixed"]]
    steps = full // slots * last
    bare = [t / steps for t in times["bare"]]
    overhead = [t / steps - b for t, b in zip(times["max_steps"], bare, strict=True)]
    shares = [extra / b for extra, b in zip(overhead, bare, strict=True)]
    return {
        "identical": not mismatches,
        "checked": checked,
        "mismatches": len(mismatches),
        "mismatch_details": mismatches[:SHOWN],
        **with_spread("puzzles_per_s", served),
        **with_spread("puzzles_per_s_max_steps", [full / t for t in times["max_steps"]]),
        **with_spread("fixed_puzzles_per_s", looped),
        **with_spread("ratio", [a / b for a, b in zip(served, looped, strict=True)]),
        "mean_steps": float(answers.steps.mean()),
        "max_steps": last,
        **_accuracies("", answers.predictions, labels),
        **_accuracies("fixed_", fixed, labels),
        **with_spread("engine_overhead_s_per_step", overhead),
        **with_spread("engine_overhead_share", shares),
        "count": len(rows),
        "slots": slots,
        "fixed_batch_size": size,
        "dtype": model.config.forward_dtype,
        "threads": torch.get_num_threads(),
        "repeats": repeats,
    }


def fastest(
    works: Mapping[int, Callable[[], object]], device: torch.device, rows: Callable[[int], int]
) -> int:
    """The size whose work does most rows a second, by the best of `TRIES` calls in turns."""
    if len(works) == 1:
        return next(iter(works))
    best = dict.fromkeys(works, math.inf)
    for _ in range(TRIES):
        for size, work in works.items():
            best[size] = min(best[size], seconds(work, device) / rows(size))
    return min(best, key=lambda size: best[size])


@torch.inference_mode()
def differences(
    model: ACTModel, columns: Batch, answers: Answers, count: int
) -> list[dict[str, Any]]:
    """The rows among the first `count` whose answer or steps are not those of the row alone.

    Each with both numbers of `steps`, how many `tokens` differ, `token_lead`: by how much the
    logit of the row's own token leads that of the engine's, where most; and, of the row alone at
    the step where one of the two halted, `q_halt` and `q_continue`. Small leads are rounding, which
    differs with the batch size.
    """
    found = []
    for row in range(count):
        alone = {name: values[row : row + 1] for name, values in columns.items()}
        done = solve(model, alone, "adaptive")
        steps = int(done.stopped_at[0])
        own, theirs = done.predictions[steps - 1, 0].cpu().numpy(), answers.predictions[row]
        halted = int(answers.steps[row])
        if steps == halted and np.array_equal(own, theirs):
            continue
        first = min(steps, halted) - 1
        found.append(
            {
                "row": row,
                "steps": {"engine": halted, "alone": steps},
                "tokens": int((own != theirs).sum()),
                "token_lead": _token_lead(model, alone, steps, theirs),
                "q_halt": float(done.q_halt[first, 0]),
                "q_continue": float(done.q_continue[first, 0]),
            }
        )
    return found


def _token_lead(model: ACTModel, alone: Batch, steps: int, theirs: np.ndarray) -> float:
    """How far the other answer's tokens lie below the best ones, at most, after `steps` steps."""
    carry = model.initial_carry(alone, seed=0)
    for _ in range(steps):
        carry, outputs = model(carry, alone)
    logits = outputs["logits"][0].float()
    chosen = torch.from_numpy(theirs.astype(np.int64)).to(logits.device)
    return float((logits.max(-1).values - logits.gather(1, chosen[:, None])[:, 0]).max())


def _accuracies(prefix: str, predictions: np.ndarray, labels: np.ndarray) -> dict[str, Any]:
    labelled = bool((labels != IGNORE).any())
    return {
        f"{prefix}{measure.__name__}": measure(predictions, labels) if labelled else None
        for measure in (accuracy, exact_accuracy)
    }
