"""The engine: a stream through a fixed number of slots; where a sequence halts the next moves in.

The answers are those of solving each puzzle alone (`hrm.inference.loop.solve`, which does not know
this file). Per step the host waits for the device once, to learn who halted. While the next step
runs it hands out the answers of the one before and reads ahead.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager, nullcontext
from dataclasses import dataclass, field, fields, replace
from typing import Any, Literal

import numpy as np
import torch
from jaxtyping import Float, Int, Integer
from torch import Tensor

from hrm.data.base import PuzzleSplit
from hrm.errors import UserError
from hrm.halting import Halting
from hrm.inference.loop import Trajectory, evaluating
from hrm.inference.stream import BatchSource, Columns, RowSource, Source, as_batches
from hrm.models import ACTModel

Order = Literal["input", "finished"]
NO_TOKEN = -1
"""What stands in the predictions of a row that failed."""


@dataclass(frozen=True)
class Result:
    """One puzzle's answer, or why there is none."""

    index: int
    """The row's place in the stream, from 0."""
    predictions: Int[np.ndarray, " length"] | None
    """int32 tokens; None if the row failed."""
    steps: int
    """Steps taken; 0 if the row failed."""
    q_halt: float
    """The two values as logits where it halted; nan if the row failed."""
    q_continue: float
    error: str | None = None
    """One sentence on what is wrong with the row."""


@dataclass(frozen=True)
class Answers:
    """Rows that are done, as arrays. A row that failed is -1 throughout, with 0 steps and nan."""

    index: Int[np.ndarray, " rows"]
    """Places in the stream, from 0."""
    predictions: Int[np.ndarray, "rows length"]
    """int32 tokens."""
    steps: Int[np.ndarray, " rows"]
    q_halt: Float[np.ndarray, " rows"]
    """The values as logits at the last step."""
    q_continue: Float[np.ndarray, " rows"]
    predictions_by_step: Integer[np.ndarray, "rows steps length"] | None = None
    """Recorded only if asked for, as are the two below. After a row's last step: anything."""
    q_halt_by_step: Float[np.ndarray, "rows steps"] | None = None
    q_continue_by_step: Float[np.ndarray, "rows steps"] | None = None
    errors: Mapping[int, str] = field(default_factory=dict, kw_only=True)
    """By index a sentence on each row that failed."""

    def __len__(self) -> int:
        return len(self.index)

    def results(self) -> Iterator[Result]:
        """Row by row."""
        columns = (self.index, self.steps, self.q_halt, self.q_continue)
        rows = zip(*(c.tolist() for c in columns), self.predictions, strict=True)
        for index, steps, q_halt, q_continue, predictions in rows:
            error = self.errors.get(index)
            yield Result(index, None if error else predictions, steps, q_halt, q_continue, error)

    def refuse_errors(self) -> None:
        """Raises UserError on the first row that failed."""
        if self.errors:
            index, sentence = min(self.errors.items())
            raise UserError(f"row {index}: {sentence}")


class Engine:
    """Solves streams of puzzles; slots are refilled as sequences halt.

    It reads no further ahead than it has free slots, and `read_ahead` rows more. When the stream
    has ended, the batch shrinks to the first of `slots`, `slots / 2`, `slots / 4`, ..., 1 (rounded
    up) that holds what still runs, so that few shapes are ever compiled.

    In float32 a token model's answer equals, bit for bit, that of the same puzzle without the
    others, at the same place of a batch of as many rows. Kernels round by place and size of the
    batch: elsewhere, and with a model that encodes new rows apart, an answer differs only where two
    tokens, or halting and going on, are all but tied.

    Only answers that leave are decoded (`ACTModel.decode`), unless every step is recorded.

    Args:
        model: used in eval mode; between steps it is in the mode that it was in.
        slots: rows of the batch.
        halting: a policy in place of the model's own.
        adaptive: let the policy halt; False: every sequence takes the policy's `max_steps`.
        shrink: False keeps the batch at `slots` rows to the end.
        read_ahead: rows kept ready while a step runs; None: a quarter of `slots`. 0 suits a stream
            that is slow to give its next row.

    Raises:
        UserError: `slots` is below 1, or `read_ahead` below 0.

    Example:
        >>> engine = Engine(model, slots=256)
        >>> for result in engine.solve({"inputs": puzzle} for puzzle in puzzles):
        ...     print(result.index, result.predictions, result.steps, result.error)
    """

    def __init__(
        self,
        model: ACTModel,
        slots: int = 256,
        halting: Halting | None = None,
        *,
        adaptive: bool = True,
        shrink: bool = True,
        read_ahead: int | None = None,
    ) -> None:
        for name, value, least in (("slots", slots, 1), ("read_ahead", read_ahead, 0)):
            if value is not None and value < least:
                raise UserError(f"{name}: got {value}, but it is at least {least}")
        self.model = model
        self.policy = halting or model.halting
        self.adaptive = adaptive
        self.device = next(model.parameters()).device
        self.sizes = list(_halvings(slots)) if shrink else [slots]
        """Rows that a batch may have, from the most to the fewest."""
        self.read_ahead = slots // 4 if read_ahead is None else read_ahead
        self.columns = model.columns

    @property
    def slots(self) -> int:
        return self.sizes[0]

    def solve(self, rows: Iterable[Columns], order: Order = "input") -> Iterator[Result]:
        """The results of a stream of any length, as it is read.

        Args:
            rows: each with `inputs` (seq_len,) and, if the model has puzzle embeddings,
                `puzzle_identifiers` (); other keys are ignored. Arrays, tensors or lists.
            order: `input` holds a result back until those before it are there; `finished` gives
                each as it is done.

        Raises:
            UserError: `order` is neither. A row that the model cannot read is a result with an
                `error` and disturbs no other.
        """
        if order not in ("input", "finished"):
            raise UserError(f"order: got {order!r}, but it is 'input' or 'finished'")
        finished = (r for part in self._run(RowSource(self.columns, rows)) for r in part.results())
        return _in_order(finished) if order == "input" else finished

    def solve_batches(
        self, batches: Columns | PuzzleSplit | Iterable[Columns], *, record: bool = False
    ) -> Iterator[Answers]:
        """Arrays of answers as they finish, without any work per row on the host.

        Args:
            batches: `inputs` (rows, seq_len) and so on; a split (memory-mapped, read as slots get
                free); or a stream of batches of any sizes, numbered on from one to the next.
            record: keep every step of every row, not only the last.

        Raises:
            UserError: a batch has no `inputs`, or its columns differ in length.
        """
        return self._run(BatchSource(self.columns, as_batches(batches)), record)

    def solve_all(
        self, batches: Columns | PuzzleSplit | Iterable[Columns], *, record: bool = False
    ) -> Answers:
        """`solve_batches` in one piece and in the order of the input."""
        parts = list(self.solve_batches(batches, record=record))
        return _joined([self._failures({}, record), *parts])

    def trajectory(self, batches: Columns | PuzzleSplit | Iterable[Columns]) -> Trajectory:
        """Every step of every row, on the CPU; `wants` is where a row was halted, by the policy or
        by the limit, and after.

        Raises:
            UserError: the model cannot read a row.
        """
        done = self.solve_all(batches, record=True)
        done.refuse_errors()
        rows, step = np.arange(len(done)), np.arange(self.policy.max_steps)[:, None]
        # After its end a row's last step stands.
        at = np.minimum(step, done.steps - 1)

        def steps_first(values: np.ndarray | None) -> Tensor:
            assert values is not None
            return torch.from_numpy(values[rows, at])

        return Trajectory(
            predictions=steps_first(done.predictions_by_step).to(torch.int32),
            q_halt=steps_first(done.q_halt_by_step),
            q_continue=steps_first(done.q_continue_by_step),
            wants=torch.from_numpy(step >= done.steps - 1),
            stopped_at=torch.from_numpy(done.steps),
        )

    @torch.inference_mode()
    def _run(self, source: Source, record: bool = False) -> Iterator[Answers]:
        slots = _Slots(self, record)
        left: _Leaving | None = None
        while True:
            slots.admit(source)
            if source.ended:
                slots.shrink()
            if slots.busy:
                slots.step()
            if left is not None:
                yield left.answers()
            if source.failed:
                yield self._failures(source.failed, record)
                source.failed = {}
            if slots.busy:
                source.read_ahead(self.read_ahead)
                left = slots.leave()
            elif source.ended:
                return
            else:
                left = None

    @contextmanager
    def _serving(self) -> Iterator[None]:
        """The model in eval mode, and without its check of identifiers, which the engine has made
        and which costs a transfer a step."""
        puzzles = "puzzle_identifiers" in self.columns
        table: Any = self.model.puzzle_emb if puzzles else None
        checked = table is not None and table.check_ids
        try:
            if table is not None:
                table.check_ids = False
            # Walking all modules takes a while, and most callers have done so already.
            with evaluating(self.model) if self.model.training else nullcontext():
                yield
        finally:
            if table is not None:
                table.check_ids = checked

    def _failures(self, errors: Mapping[int, str], record: bool) -> Answers:
        rows, length = len(errors), self.model.config.label_len
        steps = self.policy.max_steps
        nan = np.full((rows, steps), np.nan, dtype=np.float32)
        predictions = np.full((rows, length), NO_TOKEN, dtype=np.int32)
        by_step = np.repeat(predictions[:, None], steps, axis=1)
        return Answers(
            np.fromiter(errors, np.int64, rows),
            predictions,
            np.zeros(rows, dtype=np.int32),
            nan[:, 0],
            nan[:, 0],
            *((by_step, nan, nan) if record else ()),
            errors=errors,
        )


class _Slots:
    """What each slot works on, on the host and on the device."""

    def __init__(self, engine: Engine, record: bool) -> None:
        self.engine = engine
        pinned = engine.device.type == "cuda"
        self.staged = {
            name: torch.zeros((engine.slots, *column.shape), dtype=torch.int32, pin_memory=pinned)
            for name, column in engine.columns.items()
        }
        """New rows on the host, on their way to their slots; always readable by the model."""
        self.row = np.full(engine.slots, -1, dtype=np.int64)
        """The index of the row in each slot; -1: empty."""
        self.ghosts = False
        """A slot was empty in the last step. The device ran it along, and may call it running."""
        self.batch = self._upload()
        self.carry = engine.model.initial_carry(self.batch, seed=0, halting=engine.policy)
        self.outputs: dict[str, Tensor] = {}
        self.history = _History(engine) if record else None

    @property
    def busy(self) -> bool:
        return bool((self.row >= 0).any())

    def admit(self, source: Source) -> None:
        """A row for each free slot, as long as there are any."""
        empty = self.row < 0
        free = np.flatnonzero(empty)
        start = 0
        for piece in source.take(len(free)):
            where = free[start : start + len(piece.index)]
            for name, values in piece.data.items():
                self.staged[name].numpy()[where] = values
            self.row[where] = piece.index
            start += len(where)
        if start:
            self.batch = self._upload()
            if self.ghosts:
                halted = torch.from_numpy(empty).to(self.engine.device)
                self.carry = replace(self.carry, halted=halted)
        self.ghosts = start < len(free)

    def shrink(self) -> None:
        """Leave the smallest of the engine's batches that holds all that still runs."""
        busy, empty = np.flatnonzero(self.row >= 0), np.flatnonzero(self.row < 0)
        size = min(s for s in self.engine.sizes if s >= len(busy))
        if size < len(self.row) and len(busy):
            kept = np.concatenate((busy, empty[: size - len(busy)]))
            self.row = self.row[kept]
            rows = torch.from_numpy(kept).to(self.engine.device)
            self.carry = self.carry.gather(rows)
            self.batch = {name: values.index_select(0, rows) for name, values in self.batch.items()}
            if self.history is not None:
                self.history.gather(rows)

    def step(self) -> None:
        """Launch a step of all slots."""
        engine = self.engine
        with engine._serving():
            self.carry, self.outputs = engine.model(
                self.carry,
                self.batch,
                adaptive=engine.adaptive,
                halting=engine.policy,
                decode=self.history is not None,
            )
        if self.history is not None:
            self.history.add(self.outputs, self.carry.steps)

    def leave(self) -> _Leaving | None:
        """Wait for the step and free the slots that halted; None if none did."""
        halted = self.carry.halted.cpu().numpy() & (self.row >= 0)
        slots = np.flatnonzero(halted)
        if not len(slots):
            return None
        results = self.results_of(torch.from_numpy(slots).to(self.engine.device))
        leaving = _Leaving(self.row[slots], results)
        self.row[slots] = -1
        return leaving

    def results_of(self, slots: Tensor) -> list[Tensor]:
        """The tensors of `Answers` for these slots, on the device."""
        with self.engine._serving():
            logits = self.engine.model.decode(self.carry, self.outputs, slots)
        q_halt, q_continue = (
            self.outputs[name].index_select(0, slots)
            for name in ("q_halt_logits", "q_continue_logits")
        )
        steps = self.carry.steps.index_select(0, slots)
        recorded = [] if self.history is None else self.history.of(slots)
        return [logits.argmax(-1).to(torch.int32), steps, q_halt, q_continue, *recorded]

    def _upload(self) -> dict[str, Tensor]:
        return {
            name: values[: len(self.row)].to(self.engine.device, non_blocking=True)
            for name, values in self.staged.items()
        }


class _Leaving:
    """Answers on their way to the host, behind which the next step may already run."""

    def __init__(self, index: np.ndarray, tensors: Sequence[Tensor]) -> None:
        self.index = index
        on_cuda = tensors[0].device.type == "cuda"
        self.tensors = [t.to("cpu", non_blocking=on_cuda) for t in tensors]
        self.arrived = torch.cuda.Event() if on_cuda else None
        if self.arrived is not None:
            self.arrived.record(torch.cuda.current_stream(tensors[0].device))

    def answers(self) -> Answers:
        if self.arrived is not None:
            self.arrived.synchronize()
        return Answers(self.index, *(t.numpy() for t in self.tensors))


class _History:
    """Predictions and values of every step so far of the sequence in each slot."""

    def __init__(self, engine: Engine) -> None:
        config, shape = engine.model.config, (engine.slots, engine.policy.max_steps)
        # A large set is long: a byte a token instead of four.
        kind = torch.uint8 if config.classes <= 256 else torch.int32
        self.predictions = torch.zeros(*shape, config.label_len, dtype=kind, device=engine.device)
        self.values = torch.zeros(*shape, 2, device=engine.device)

    def add(self, outputs: Mapping[str, Tensor], steps: Int[Tensor, " slots"]) -> None:
        at = torch.arange(len(steps), device=steps.device), steps.long() - 1
        self.predictions[at] = outputs["logits"].argmax(-1).to(self.predictions.dtype)
        values = outputs["q_halt_logits"], outputs["q_continue_logits"]
        self.values[at] = torch.stack(values, dim=1)

    def of(self, slots: Tensor) -> list[Tensor]:
        values = self.values.index_select(0, slots)
        return [self.predictions.index_select(0, slots), values[..., 0], values[..., 1]]

    def gather(self, slots: Tensor) -> None:
        self.predictions = self.predictions.index_select(0, slots)
        self.values = self.values.index_select(0, slots)


def _halvings(slots: int) -> Iterator[int]:
    while slots > 1:
        yield slots
        slots = -(-slots // 2)
    yield 1


def _in_order(results: Iterator[Result]) -> Iterator[Result]:
    held: dict[int, Result] = {}
    due = 0
    for result in results:
        held[result.index] = result
        while due in held:
            yield held.pop(due)
            due += 1


def _joined(parts: Sequence[Answers]) -> Answers:
    """As one, by index."""
    order = np.argsort(np.concatenate([p.index for p in parts]))
    arrays = {
        f.name: np.concatenate([getattr(p, f.name) for p in parts])[order]
        for f in fields(Answers)
        if f.name != "errors" and getattr(parts[0], f.name) is not None
    }
    return Answers(**arrays, errors={i: e for p in parts for i, e in p.errors.items()})
