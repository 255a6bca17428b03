"""The engine against solving each puzzle alone, on a model with known answers and on real ones.

Both are compared in float32. At the same place of a batch of the same size they must agree bit for
bit (`same_bits`). In other batches kernels round differently: there a difference must have a margin
(of the best token over the next, or of halting over going on) below 1e-4, and is counted
(`agreement`).
"""

from __future__ import annotations

import dataclasses
import itertools
from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from types import SimpleNamespace
from typing import Any, NamedTuple

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor, nn

from hrm.carry import Carry
from hrm.data.base import Metadata, PuzzleSplit
from hrm.errors import UserError
from hrm.evaluation import summarise
from hrm.halting import Halting, HaltOnly
from hrm.inference import Answers, Engine, Result, solve
from hrm.inference import engine as engine_module
from hrm.inference.evaluate import evaluate_split
from hrm.models import TRM, ACTUNet, HRMACTv1
from hrm.models.act import Column
from hrm.rng import slot_states
from tests.models.helpers import (
    SMALL,
    awaken,
    image_batch,
    small_batch,
    small_hrm,
    small_trm,
    small_unet,
)

Row = dict[str, Any]
LENGTH, VOCAB, LIMIT, IDS = 3, 7, 5, 4


class FirstToken(Halting):
    """Halts at the step whose number is the first token; counts the steps itself."""

    def fresh_memory(self, slots: int, device: torch.device) -> dict[str, Tensor]:
        return {"seen": torch.zeros(slots, dtype=torch.int32, device=device)}

    def wish(
        self, outputs: dict[str, Tensor], extra: dict[str, Tensor]
    ) -> tuple[Tensor, dict[str, Tensor]]:
        seen = extra["seen"] + 1
        return seen >= outputs["q_halt_logits"], {**extra, "seen": seen}

    def losses(self, outputs: Any, correct: Tensor, counted: Tensor) -> dict[str, Tensor]:
        raise NotImplementedError


class Count(NamedTuple):
    count: Tensor


class CountingModel(nn.Module):
    """After n steps each token has grown by n and the identifier; `expected` says so without it."""

    def __init__(self, limit: int = LIMIT) -> None:
        super().__init__()
        self.config = SimpleNamespace(label_len=LENGTH, classes=VOCAB)
        self.columns = {"inputs": Column((LENGTH,), VOCAB), "puzzle_identifiers": Column((), IDS)}
        self.weight = nn.Parameter(torch.zeros(1))
        self.puzzle_emb = SimpleNamespace(check_ids=True)
        self.halting: Halting = FirstToken(limit)
        self.batch_sizes: list[int] = []

    def initial_carry(self, batch: dict[str, Tensor], seed: int, *, halting: Halting) -> Carry:
        slots = len(batch["inputs"])
        return Carry(
            inner_carry=Count(torch.full((slots,), 99)),
            steps=torch.zeros(slots, dtype=torch.int32),
            halted=torch.ones(slots, dtype=torch.bool),
            current_data={k: torch.zeros_like(v) for k, v in batch.items()},
            rng=slot_states(seed, slots),
            extra=halting.fresh_extra(slots, torch.device("cpu")),
        )

    def forward(
        self,
        carry: Carry,
        batch: dict[str, Tensor],
        *,
        adaptive: bool,
        halting: Halting,
        decode: bool,
    ) -> tuple[Carry, dict[str, Tensor]]:
        assert not self.training
        assert not self.puzzle_emb.check_ids
        self.batch_sizes.append(len(carry.steps))
        fresh = halting.fresh_extra(len(carry.steps), torch.device("cpu"))
        carry = carry.refill(batch, lambda z, where: Count(torch.where(where, 0, z.count)), fresh)
        count = carry.inner_carry.count + 1
        tokens = carry.current_data["inputs"]
        grown = tokens + (count + carry.current_data["puzzle_identifiers"])[:, None]
        outputs = {
            "logits": nn.functional.one_hot(grown.long() % VOCAB, VOCAB).float(),
            "q_halt_logits": tokens[:, 0].float(),
            "q_continue_logits": count.float(),
        }
        steps = carry.steps + 1
        decision = halting.decide(
            outputs, steps, carry.rng, carry.extra, training=self.training, adaptive=adaptive
        )
        carry = dataclasses.replace(
            carry, inner_carry=Count(count), steps=steps, **decision._asdict()
        )
        return carry, outputs

    def decode(self, carry: Carry, outputs: dict[str, Tensor], slots: Tensor) -> Tensor:
        return outputs["logits"].index_select(0, slots)


def counting_engine(model: CountingModel | None = None, **options: Any) -> Engine:
    return Engine(model or CountingModel(), **options)  # type: ignore[arg-type]


def expected(index: int, row: Row, adaptive: bool = True) -> Result:
    tokens = np.asarray(row["inputs"])
    steps = min(max(int(tokens[0]), 1), LIMIT) if adaptive else LIMIT
    grown = (tokens + steps + int(row["puzzle_identifiers"])) % VOCAB
    return Result(index, grown.astype(np.int32), steps, float(tokens[0]), float(steps))


def assert_equal(result: Result, wanted: Result) -> None:
    assert result.predictions is not None
    assert result.predictions.dtype == np.int32
    np.testing.assert_array_equal(result.predictions, wanted.predictions)
    for name in ("index", "steps", "q_halt", "q_continue", "error"):
        assert getattr(result, name) == getattr(wanted, name), name


def rows_of(tokens: Sequence[Sequence[int]]) -> list[Row]:
    return [{"inputs": list(t), "puzzle_identifiers": sum(t) % IDS} for t in tokens]


ROWS = st.lists(st.lists(st.integers(0, VOCAB - 1), min_size=LENGTH, max_size=LENGTH), max_size=25)
OPTIONS = st.fixed_dictionaries(
    {
        "slots": st.integers(1, 9),
        "shrink": st.booleans(),
        "adaptive": st.booleans(),
        "read_ahead": st.sampled_from([None, 0, 1, 5]),
    }
)


@settings(max_examples=25)
@given(ROWS, OPTIONS, st.sampled_from(["input", "finished"]))
def test_any_stream_is_solved_as_known(
    tokens: list[list[int]], options: dict[str, Any], order: Any
) -> None:
    rows = rows_of(tokens)
    results = list(counting_engine(**options).solve(iter(rows), order))
    if order == "finished":
        results.sort(key=lambda r: r.index)
    assert [r.index for r in results] == list(range(len(rows)))
    for result, row in zip(results, rows, strict=True):
        assert_equal(result, expected(result.index, row, options["adaptive"]))


@settings(max_examples=25)
@given(ROWS, OPTIONS, st.lists(st.integers(0, 6), max_size=4), st.booleans())
def test_batches_of_any_sizes_are_the_rows(
    tokens: list[list[int]], options: dict[str, Any], sizes: list[int], record: bool
) -> None:
    rows = rows_of(tokens)
    cuts = [0, *np.minimum(np.cumsum(sizes), len(rows)).tolist(), len(rows)]
    inputs = np.array(tokens, dtype=np.uint8).reshape(-1, LENGTH)
    identifiers = torch.tensor([r["puzzle_identifiers"] for r in rows], dtype=torch.int64)
    batches = (
        {"inputs": inputs[a:b], "puzzle_identifiers": identifiers[a:b], "labels": None}
        for a, b in itertools.pairwise(cuts)
    )
    answers = counting_engine(**options).solve_all(batches, record=record)
    assert len(answers) == len(rows)
    for result, row in zip(answers.results(), rows, strict=True):
        assert_equal(result, expected(result.index, row, options["adaptive"]))
    assert (answers.predictions_by_step is not None) == record
    if answers.predictions_by_step is not None and answers.q_continue_by_step is not None:
        for i, row in enumerate(rows):
            for step in range(1, answers.steps[i] + 1):
                grown = (np.array(row["inputs"]) + step + row["puzzle_identifiers"]) % VOCAB
                np.testing.assert_array_equal(answers.predictions_by_step[i, step - 1], grown)
                assert answers.q_continue_by_step[i, step - 1] == step


def test_a_row_leaves_as_soon_as_it_is_done() -> None:
    first = [5, 1, 1, 2, 1]
    results = counting_engine(slots=2).solve(rows_of([[t, 0, 0] for t in first]), "finished")
    # Slot 0 works on row 0 for 5 steps; slot 1 on rows 1, 2, 3, 3, 4.
    assert [r.index for r in results] == [1, 2, 3, 0, 4]


def test_slots_are_refilled_at_once() -> None:
    model = CountingModel()
    rows = rows_of([[t, 0, 0] for t in (1, 3, 2, 2, 3, 1)])
    assert len(list(counting_engine(model, slots=2).solve(rows))) == len(rows)
    assert model.batch_sizes == [2] * 6  # No slot was ever idle: 12 steps in all.


def test_the_batch_shrinks_in_fixed_sizes() -> None:
    model = CountingModel()
    rows = rows_of([[t, 0, 0] for t in (5, 4, 4, 3, 2, 1, 1)])
    engine = counting_engine(model, slots=7)
    assert engine.sizes == [7, 4, 2, 1]
    assert len(list(engine.solve(rows))) == 7
    # 7, 5, 4, 3 and 1 rows are at work.
    assert model.batch_sizes == [7, 7, 4, 4, 1]
    model.batch_sizes.clear()
    assert len(list(engine.solve(rows[:2]))) == 2
    assert model.batch_sizes == [2, 2, 2, 2, 1]
    model.batch_sizes.clear()
    assert len(list(counting_engine(model, slots=7, shrink=False).solve(rows[:2]))) == 2
    assert model.batch_sizes == [7] * 5


def test_an_empty_stream_has_no_results() -> None:
    model = CountingModel()
    engine = counting_engine(model, slots=3)
    assert list(engine.solve([])) == []
    assert list(engine.solve_batches([])) == []
    nothing = engine.solve_all({"inputs": np.zeros((0, LENGTH), dtype=np.int32)})
    assert len(nothing) == 0
    assert nothing.predictions.shape == (0, LENGTH)
    assert model.batch_sizes == []


@pytest.mark.parametrize("order", ["input", "finished"])
@pytest.mark.parametrize("read_ahead", [0, 2])
def test_a_stream_is_read_no_further_than_slots_are_free(order: Any, read_ahead: int) -> None:
    model, slots, steps = CountingModel(), 4, 3
    engine = counting_engine(model, slots=slots, read_ahead=read_ahead)
    ahead = []

    def endless() -> Iterator[Row]:
        for count in itertools.count(1):
            freed = slots * (len(model.batch_sizes) // steps)
            ahead.append(count - freed)
            yield {"inputs": [steps, 0, 0], "puzzle_identifiers": 0}

    results = list(itertools.islice(engine.solve(endless(), order), 22))
    assert [r.index for r in results] == list(range(22))
    assert max(ahead) == slots + read_ahead


def test_batches_are_opened_as_they_are_needed() -> None:
    opened = []

    def batches() -> Iterator[Row]:
        for i in itertools.count():
            opened.append(i)
            yield {"inputs": np.ones((4, LENGTH), np.int8), "puzzle_identifiers": np.zeros(4, int)}

    answers = counting_engine(slots=4, read_ahead=2).solve_batches(batches())
    assert opened == []
    assert next(answers).index.tolist() == [0, 1, 2, 3]
    assert opened == [0, 1]  # 4 rows are done and 4 at work.
    assert next(answers).index.tolist() == [4, 5, 6, 7]
    assert opened == [0, 1, 2]


GOOD: Row = {"inputs": [2, 0, 1], "puzzle_identifiers": 1}
BAD: dict[str, tuple[Any, str]] = {
    "short": ({**GOOD, "inputs": [1, 2]}, "inputs: has shape (2,), but the model reads (3,)"),
    "board": ({**GOOD, "inputs": [[1, 2, 3]]}, "inputs: has shape (1, 3)"),
    "ragged": ({**GOOD, "inputs": [[1], [1, 2]]}, "inputs: cannot be read as an array"),
    "float": ({**GOOD, "inputs": [1.0, 2.0, 3.0]}, "inputs: holds float64"),
    "above": ({**GOOD, "inputs": [1, 2, 7]}, "inputs: 7 at position 2 is not in 0..6"),
    "below": ({**GOOD, "inputs": torch.tensor([1, -1, 7])}, "inputs: -1 at position 1 is not in"),
    "wraps": ({**GOOD, "inputs": np.array([1, 2, 2**32])}, "inputs: 4294967296 at position 2"),
    "identifier": ({**GOOD, "puzzle_identifiers": 4}, "puzzle_identifiers: 4 is not in 0..3"),
    "identifiers": ({**GOOD, "puzzle_identifiers": [1]}, "puzzle_identifiers: has shape (1,)"),
    "none": ({"inputs": [2, 0, 1]}, "puzzle_identifiers: is missing"),
    "no row": ([2, 0, 1], "inputs: cannot be read as an array"),
}


@pytest.mark.parametrize("name", BAD)
def test_a_bad_row_fails_with_a_sentence(name: str) -> None:
    row, sentence = BAD[name]
    results = list(counting_engine(slots=2).solve([GOOD, row, GOOD]))
    assert [r.index for r in results] == [0, 1, 2]
    assert_equal(results[0], expected(0, GOOD))
    assert_equal(results[2], expected(2, GOOD))
    failed = results[1]
    assert failed.error is not None
    assert failed.error.startswith(sentence)
    assert "\n" not in failed.error
    assert failed.predictions is None
    assert failed.steps == 0
    assert np.isnan([failed.q_halt, failed.q_continue]).all()


@settings(max_examples=25)
@given(
    st.lists(st.one_of(st.integers(0, VOCAB - 1), st.sampled_from(sorted(BAD))), max_size=20),
    OPTIONS,
    st.sampled_from(["input", "finished"]),
)
def test_bad_rows_disturb_no_other(
    kinds: list[int | str], options: dict[str, Any], order: Any
) -> None:
    rows = [
        BAD[k][0] if isinstance(k, str) else {"inputs": [k, 1, 2], "puzzle_identifiers": k % IDS}
        for k in kinds
    ]
    results = sorted(
        counting_engine(**options).solve(iter(rows), order),
        key=lambda r: r.index if order == "finished" else 0,  # a stable sort leaves the order
    )
    assert [r.index for r in results] == list(range(len(rows)))
    for result, kind, row in zip(results, kinds, rows, strict=True):
        if isinstance(kind, str):
            assert result.error is not None
            assert result.error.startswith(BAD[kind][1])
        else:
            assert_equal(result, expected(result.index, row, options["adaptive"]))


def test_a_long_run_of_bad_rows_is_reported_as_it_is_read() -> None:
    read = []

    def stream() -> Iterator[Row]:
        for i in itertools.count():
            read.append(i)
            yield {"inputs": [99, 0, 0], "puzzle_identifiers": 0}

    results = counting_engine(slots=4).solve(stream())
    assert next(results).error
    assert len(read) == 4


def test_bad_rows_of_a_batch() -> None:
    inputs = np.array([[1, 0, 0], [1, 0, 9], [2, 0, 0], [1, -4, 8]])
    batch = {"inputs": inputs, "puzzle_identifiers": np.array([0, 0, 9, 0])}
    engine = counting_engine(slots=3)
    for record in (False, True):
        answers = engine.solve_all(batch, record=record)
        assert answers.index.tolist() == [0, 1, 2, 3]
        assert answers.steps.tolist() == [1, 0, 0, 0]
        assert answers.errors == {
            1: "inputs: 9 at position 2 is not in 0..6",
            2: "puzzle_identifiers: 9 is not in 0..3",
            3: "inputs: -4 at position 1 is not in 0..6",
        }
        assert (answers.predictions[1:] == engine_module.NO_TOKEN).all()
    with pytest.raises(UserError, match="row 1: inputs: 9 at position 2"):
        engine.trajectory(batch)
    narrow = {"inputs": inputs[:2, :2], "puzzle_identifiers": np.array([0, 0])}
    answers = engine.solve_all([narrow, {k: v[:1] for k, v in batch.items()}])
    assert answers.steps.tolist() == [0, 0, 1]
    assert answers.errors[1] == "inputs: has shape (2,), but the model reads (3,)"


@pytest.mark.parametrize(
    "batch",
    [
        {},
        {"inputs": np.int32(1)},
        {"inputs": np.ones((2, LENGTH), np.int32), "puzzle_identifiers": np.zeros(3, np.int32)},
    ],
)
def test_a_batch_that_is_none_is_refused(batch: Row) -> None:
    with pytest.raises(UserError, match="from row 1 on holds"):
        counting_engine(slots=2).solve_all([{k: np.array(v)[None] for k, v in GOOD.items()}, batch])


def test_bad_settings_are_refused() -> None:
    with pytest.raises(UserError, match="slots: got 0"):
        counting_engine(slots=0)
    with pytest.raises(UserError, match="read_ahead: got -1"):
        counting_engine(read_ahead=-1)
    with pytest.raises(UserError, match="order: got 'random'"):
        counting_engine().solve([], "random")  # type: ignore[arg-type]


def test_between_results_the_model_is_as_it_was() -> None:
    model = CountingModel()
    model.frozen = nn.Linear(1, 1).eval()
    results = counting_engine(model, slots=1).solve([GOOD, GOOD])
    for _ in range(2):
        next(results)
        assert model.training
        assert not model.frozen.training
        assert model.puzzle_emb.check_ids
    model.eval()
    assert list(counting_engine(model).solve([GOOD]))
    assert not model.training


def test_two_streams_of_one_engine_do_not_meet() -> None:
    engine = counting_engine(slots=2)
    rows = rows_of([[t, t, 0] for t in (3, 1, 4, 2)])
    both = zip(engine.solve(rows), engine.solve(rows[::-1]), strict=True)
    for i, (one, other) in enumerate(both):
        assert_equal(one, expected(i, rows[i]))
        assert_equal(other, expected(i, rows[3 - i]))


# -- real models against the plain loop

THIN = 1e-4


@dataclasses.dataclass
class Alone:
    """One puzzle, solved by the plain loop in a batch of copies."""

    predictions: np.ndarray  # (steps, length)
    q_halt: np.ndarray  # (steps,)
    q_continue: np.ndarray
    leads: np.ndarray  # (steps,): how far halting is preferred
    steps: int
    margins: Callable[[int], np.ndarray]  # after so many steps (length,): best logit - second best


def alone(
    model: HRMACTv1 | TRM | ACTUNet,
    row: Row,
    copies: int,
    policy: Halting,
    adaptive: bool = True,
    at: int = 0,
) -> Alone:
    """What stands at place `at` of the batch."""
    batch = {k: v.expand(copies, *v.shape).contiguous() for k, v in row.items() if k != "labels"}
    done = solve(model, batch, "adaptive" if adaptive else "max_steps", policy=policy)

    @torch.no_grad()
    def margins(steps: int) -> np.ndarray:
        model.eval()
        carry = model.initial_carry(batch, seed=0, halting=policy)
        for _ in range(steps):
            carry, outputs = model(carry, batch, halting=policy)
        best = outputs["logits"][at].topk(2).values
        return (best[:, 0] - best[:, 1]).numpy()

    q_halt, q_continue = done.q_halt[:, at].numpy(), done.q_continue[:, at].numpy()
    leads = q_halt - (policy.cut if isinstance(policy, HaltOnly) else q_continue)
    predictions = done.predictions[:, at].numpy()
    return Alone(predictions, q_halt, q_continue, leads, int(done.stopped_at[at]), margins)


def agreement(result: Result, twin: Alone) -> str:
    """`same`, `thin` (differs where it is all but a tie) or `wrong`."""
    if result.steps != twin.steps:
        # They part at the first step at which only one of them halts.
        return "thin" if abs(twin.leads[min(result.steps, twin.steps) - 1]) < THIN else "wrong"
    differs = result.predictions != twin.predictions[twin.steps - 1]
    if not differs.any():
        return "same"
    return "thin" if (twin.margins(twin.steps)[differs] < THIN).all() else "wrong"


def same_bits(result: Result, twin: Alone) -> bool:
    step = twin.steps - 1
    return (
        result.steps == twin.steps
        and np.array_equal(np.asarray(result.predictions), twin.predictions[step])
        and result.q_halt == float(twin.q_halt[step])
        and result.q_continue == float(twin.q_continue[step])
    )


def solved_with_slots(engine: Engine, rows: Sequence[Row]) -> list[tuple[Result, int]]:
    """Results in the order of the rows, and the slot that each was in."""
    slot_of: dict[int, int] = {}
    sound = engine_module._Slots.results_of

    def results_of(self: Any, slots: Tensor) -> list[Tensor]:
        slot_of.update(zip(self.row[slots.numpy()].tolist(), slots.tolist(), strict=True))
        return sound(self, slots)

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(engine_module._Slots, "results_of", results_of)
        return [(result, slot_of[result.index]) for result in engine.solve(rows)]


def stream(count: int, seed: int, identifiers: int = 1) -> list[dict[str, Tensor]]:
    batch = small_batch(count, seed)
    batch["puzzle_identifiers"] %= identifiers
    return [{k: v[i] for k, v in batch.items()} for i in range(count)]


ONCE = {"H_cycles": 1, "L_cycles": 1}
MODELS: dict[str, Callable[[], HRMACTv1 | TRM]] = {
    "hrm": lambda: small_hrm(**ONCE, halt_max_steps=5),
    "hrm with puzzles": lambda: small_hrm(
        **ONCE, halt_max_steps=4, puzzle_emb_ndim=8, num_puzzle_identifiers=3
    ),
    "trm": lambda: small_trm(**ONCE, halt_max_steps=5, pos_encodings="learned"),
    "trm-mlp": lambda: small_trm(**ONCE, halt_max_steps=4, mlp_t=True),
}


def awake(name: str, seed: int = 0) -> HRMACTv1 | TRM:
    """A model that halts at three steps in ten, by the input."""
    torch.manual_seed(seed)
    model = MODELS[name]()
    awaken(model)
    with torch.no_grad():
        if "puzzles" in name:
            model.puzzle_emb.weights.normal_()
        batch = small_batch(20, seed)
        batch["puzzle_identifiers"] %= 3
        done = solve(model, batch)
        lead = done.q_halt - (done.q_continue if model.halting.values_going_on else 0)
        assert model.inner.q_head.bias is not None
        model.inner.q_head.bias[0] -= lead.quantile(0.7)
    return model


@pytest.mark.parametrize("name", MODELS)
def test_halting_varies_in_these_tests(name: str) -> None:
    steps = {r.steps for r in Engine(awake(name), slots=4).solve(stream(30, 1, identifiers=3))}
    assert len(steps) >= 2


@pytest.mark.parametrize("name", MODELS)
@settings(max_examples=4)
@given(st.integers(0, 8), st.integers(1, 5), st.integers(0, 99), st.booleans())
def test_in_batches_of_the_same_size_the_bits_are_the_same(
    name: str, count: int, slots: int, seed: int, adaptive: bool
) -> None:
    model = awake(name, seed)
    rows = stream(count, seed, identifiers=3)
    engine = Engine(model, slots, adaptive=adaptive, shrink=False)
    for (result, slot), row in zip(solved_with_slots(engine, rows), rows, strict=True):
        assert same_bits(result, alone(model, row, slots, model.halting, adaptive, at=slot))


@pytest.mark.parametrize("name", MODELS)
@settings(max_examples=4)
@given(st.integers(1, 8), st.integers(2, 5), st.integers(0, 99))
def test_in_other_batches_only_ties_may_differ(
    name: str, count: int, slots: int, seed: int
) -> None:
    model = awake(name, seed)
    rows = stream(count, seed, identifiers=3)
    found = Counter(
        agreement(result, alone(model, row, 1, model.halting))
        for result, row in zip(Engine(model, slots).solve(rows), rows, strict=True)
    )
    assert found["wrong"] == 0
    assert found["same"] + found["thin"] == count


def test_another_policy_in_place_of_the_models_own() -> None:
    model, rows = awake("hrm"), stream(12, 2)
    policy = HaltOnly(3)
    batch = {k: torch.stack([row[k] for row in rows]) for k in rows[0]}
    policy.cut = float(solve(model, batch).q_halt.quantile(0.7))
    pairs = solved_with_slots(Engine(model, 4, policy, shrink=False), rows)
    assert all(
        same_bits(result, alone(model, row, 4, policy, at=slot))
        for (result, slot), row in zip(pairs, rows, strict=True)
    )
    steps = [result.steps for result, _ in pairs]
    assert {1, 3} <= set(steps) <= {1, 2, 3}
    assert steps != [result.steps for result in Engine(model, 4).solve(rows)]


# -- a model that encodes new rows apart and decodes those that leave


def awake_unet(seed: int = 0, **changes: Any) -> ACTUNet:
    """Thresholds that differ from image to image, so that steps do."""
    torch.manual_seed(seed)
    model = small_unet(halt_max_steps=6, branch_init_scale=1.0, **changes).eval()
    assert model.threshold is not None
    thresholds: list[Tensor] = []
    hook = model.threshold.last.register_forward_hook(lambda *given: thresholds.append(given[-1]))
    with torch.no_grad():
        solve(model, image_batch(model, 30, seed))
        by_step, bias = torch.stack(thresholds), model.threshold.last.bias
        assert bias is not None
        scale = 2 / by_step.std(1).mean()
        bias.copy_(3 - scale * (by_step.mean() - bias))
        model.threshold.last.weight.mul_(scale)
    hook.remove()
    return model


def images(model: ACTUNet, count: int, seed: int) -> list[Row]:
    batch = image_batch(model, count, seed)
    return [{k: v[i] for k, v in batch.items()} for i in range(count)]


@pytest.mark.parametrize(("decoder", "slots"), [("token", 4), ("full", 3), ("token", 1)])
def test_images_are_answered_as_alone_and_decoded_once(decoder: str, slots: int) -> None:
    model = awake_unet(decoder=decoder)
    rows = images(model, 14, seed=2)
    twins = [alone(model, row, 1, model.halting) for row in rows]
    encoded, decoded = [], []
    model.encoder.register_forward_pre_hook(lambda _, given: encoded.append(len(given[0])))
    model.decoder.register_forward_pre_hook(lambda _, given: decoded.append(len(given[0])))
    engine = Engine(model, slots, shrink=False)
    results = list(engine.solve(rows))
    # Slots that are empty at the end are refilled with what is there.
    assert sum(decoded) == len(rows)
    assert len(rows) <= sum(encoded) < sum(result.steps for result in results)
    assert len({result.steps for result in results}) >= 3
    found = Counter(map(agreement, results, twins))
    assert found["wrong"] == 0
    assert found["same"] >= 13
    for result, twin in zip(results, twins, strict=True):
        assert result.predictions is not None
        assert result.predictions.shape == (64,)
        if result.steps == twin.steps:
            assert result.q_halt == pytest.approx(float(twin.q_halt[twin.steps - 1]), abs=1e-4)


def test_images_in_one_batch_are_answered_as_alone() -> None:
    model = awake_unet()
    rows = images(model, 9, seed=3)
    together = solve(model, {k: torch.stack([r[k] for r in rows]) for k in rows[0]}, "adaptive")
    for i, row in enumerate(rows):
        twin = alone(model, row, 1, model.halting)
        steps = int(together.stopped_at[i])
        predictions = together.predictions[-1, i].numpy()
        assert agreement(Result(i, predictions, steps, 0.0, 0.0), twin) in ("same", "thin")


def test_every_step_of_images_can_be_recorded() -> None:
    model = awake_unet()
    batch = image_batch(model, 8, seed=4)
    answers = Engine(model, 3).solve_all({"inputs": batch["inputs"]}, record=True)
    plain = solve(model, batch, "adaptive")
    np.testing.assert_array_equal(answers.steps, plain.stopped_at)
    assert answers.predictions_by_step is not None
    for i, steps in enumerate(answers.steps):
        for n in range(steps):
            same = answers.predictions_by_step[i, n] == plain.predictions[n, i].numpy()
            assert same.mean() > 0.98
    bad = list(Engine(model, 2).solve([{"inputs": np.full(64, 4)}]))
    assert bad[0].error == "inputs: 4 at position 0 is not in 0..3"


def test_an_unmarked_switch_between_rows_of_new_images_would_be_seen() -> None:
    model = awake_unet()
    rows = images(model, 10, seed=5)
    twins = [alone(model, row, 1, model.halting) for row in rows]
    sound = ACTUNet._admit

    def other_rows(self: ACTUNet, carry: Carry, batch: Any, policy: Halting) -> Carry:
        return sound(self, carry, {k: v.flip(0) for k, v in batch.items()}, policy)

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(ACTUNet, "_admit", other_rows)
        results = list(Engine(model, 4, shrink=False).solve(rows))
    assert Counter(map(agreement, results, twins))["wrong"] > 0


def returns_the_row_of_another_slot(patch: pytest.MonkeyPatch) -> None:
    sound = engine_module._Slots.results_of
    patch.setattr(
        engine_module._Slots,
        "results_of",
        lambda self, slots: sound(self, (slots + 1) % len(self.row)),
    )


def keeps_the_latents_of_the_sequence_before(patch: pytest.MonkeyPatch) -> None:
    sound = engine_module._Slots.step

    def step(self: Any) -> None:
        inner = self.engine.model.inner
        keeps = self.carry.inner_carry.z_H.any()  # The very first sequences have none before.
        with pytest.MonkeyPatch.context() as inside:
            if keeps:
                inside.setattr(inner, "reset_latents", lambda latents, where: latents)
            sound(self)

    patch.setattr(engine_module._Slots, "step", step)


def counts_the_steps_of_the_sequence_before(patch: pytest.MonkeyPatch) -> None:
    sound = engine_module._Slots.step
    refill = Carry.refill

    def counting_on(self: Carry, *arguments: Any) -> Carry:
        return dataclasses.replace(refill(self, *arguments), steps=self.steps)

    def step(self: Any) -> None:
        with pytest.MonkeyPatch.context() as inside:
            inside.setattr(Carry, "refill", counting_on)
            sound(self)

    patch.setattr(engine_module._Slots, "step", step)


def reads_the_outputs_of_the_step_before(patch: pytest.MonkeyPatch) -> None:
    sound = engine_module._Slots.step

    def step(self: Any) -> None:
        sound(self)
        before = getattr(self, "latest", self.outputs)
        self.latest, self.outputs = self.outputs, before

    patch.setattr(engine_module._Slots, "step", step)


FAULTS = [
    returns_the_row_of_another_slot,
    keeps_the_latents_of_the_sequence_before,
    counts_the_steps_of_the_sequence_before,
    reads_the_outputs_of_the_step_before,
]


@pytest.mark.parametrize("fault", FAULTS, ids=lambda f: f.__name__)
def test_a_faulty_engine_is_found_out(
    fault: Callable[[pytest.MonkeyPatch], None], monkeypatch: pytest.MonkeyPatch
) -> None:
    model, rows = awake("hrm"), stream(12, 3)
    pairs = solved_with_slots(Engine(model, 4, shrink=False), rows)
    twins = [
        alone(model, row, 4, model.halting, at=slot)
        for row, (_, slot) in zip(rows, pairs, strict=True)
    ]
    assert all(same_bits(result, twin) for (result, _), twin in zip(pairs, twins, strict=True))

    fault(monkeypatch)
    results = list(Engine(model, 4, shrink=False).solve(rows))
    assert not all(map(same_bits, results, twins))
    assert Counter(map(agreement, results, twins))["wrong"] > 0


def test_thin_margins_are_told_from_wrong_answers() -> None:
    twin = Alone(
        predictions=np.array([[1, 2], [1, 3]]),
        q_halt=np.zeros(2),
        q_continue=np.zeros(2),
        leads=np.array([-5e-5, 0.5]),
        steps=2,
        margins=lambda steps: np.array([5e-5, 0.5]),
    )

    def told(predictions: list[int], steps: int) -> str:
        return agreement(Result(0, np.array(predictions), steps, 0.0, 0.0), twin)

    assert told([1, 3], 2) == "same"
    assert told([0, 3], 2) == "thin"
    assert told([1, 2], 2) == told([0, 2], 2) == "wrong"
    assert told([1, 2], 1) == "thin"
    assert told([1, 3], 3) == "wrong"


# -- what is built on it


def test_a_trajectory_is_that_of_the_plain_loop() -> None:
    model, rows = awake("hrm"), small_batch(9)
    batch = {"inputs": rows["inputs"]}
    mine, plain = Engine(model, 3).trajectory(batch), solve(model, batch, "adaptive")
    np.testing.assert_array_equal(mine.stopped_at, plain.stopped_at)
    assert len(set(mine.stopped_at.tolist())) > 1
    steps = len(plain.wants)  # The loop ends when all rows have.
    torch.testing.assert_close(mine.predictions[:steps], plain.predictions)
    torch.testing.assert_close(mine.q_halt[:steps], plain.q_halt)
    torch.testing.assert_close(mine.q_continue[:steps], plain.q_continue)
    np.testing.assert_array_equal(mine.policy_steps, plain.policy_steps)


def small_split(rows: int) -> PuzzleSplit:
    batch = small_batch(rows)
    labels = batch["labels"].numpy()
    labels[:, 2:] = 0  # Rows are right now and then if only two tokens count.
    metadata = Metadata(
        pad_id=0,
        ignore_label_id=0,
        blank_identifier_id=0,
        vocab_size=SMALL["vocab_size"],
        seq_len=SMALL["seq_len"],
        num_puzzle_identifiers=1,
        total_groups=rows,
        mean_puzzle_examples=1,
        sets=["all"],
    )
    whole = np.arange(rows + 1)
    inputs, none = batch["inputs"].numpy().astype(np.uint8), np.zeros(rows, dtype=np.int32)
    return PuzzleSplit("test", Path("split"), metadata, inputs, labels, none, whole, whole)


def test_a_split_is_a_stream() -> None:
    model, split = awake("trm"), small_split(10)
    answers = Engine(model, 4).solve_all(split)
    results = Engine(model, 4).solve({"inputs": row} for row in split.inputs)
    for mine, result in zip(answers.results(), results, strict=True):
        np.testing.assert_array_equal(mine.predictions, result.predictions)
        assert (mine.steps, mine.q_halt) == (result.steps, result.q_halt)


@pytest.mark.parametrize("batch_size", [4, 7, 99])
def test_an_adaptive_evaluation_has_the_figures_of_the_plain_loop(batch_size: int) -> None:
    model, split = awake("hrm").train(), small_split(30)
    done: list[int] = []
    figures = evaluate_split(
        model, split, count=20, batch_size=batch_size, halting="adaptive", on_batch=done.append
    )
    assert model.training
    assert done[-1] == 20
    assert done == sorted(done)

    taken = split.take(np.unique(np.linspace(0, 29, 20).astype(np.int64)))
    plain = solve(model, {"inputs": torch.from_numpy(taken["inputs"])}, "adaptive")
    wanted = summarise(
        plain.predictions.numpy(),
        plain.q_halt.numpy(),
        taken["labels"],
        plain.stopped_at.numpy(),
        halt_steps=plain.policy_steps.numpy(),
    )
    assert figures["max_steps"] == 5
    assert len(plain.wants) == 5
    assert 0 < figures["accuracy"] < 1
    assert set(figures) == set(wanted)
    for key in set(figures) - {"q_halt_calibration"}:
        assert figures[key] == pytest.approx(wanted[key], abs=1e-5), key


def test_answers_can_be_read_row_by_row() -> None:
    answers = Answers(
        index=np.array([4, 2]),
        predictions=np.array([[1, 2], [-1, -1]], dtype=np.int32),
        steps=np.array([3, 0]),
        q_halt=np.array([0.5, np.nan]),
        q_continue=np.array([-0.5, np.nan]),
        errors={2: "inputs: is missing"},
    )
    good, bad = answers.results()
    assert (good.index, good.steps, good.q_halt, good.q_continue) == (4, 3, 0.5, -0.5)
    assert good.error is None
    assert (bad.index, bad.predictions, bad.error) == (2, None, "inputs: is missing")
    with pytest.raises(UserError, match="row 2: inputs: is missing"):
        answers.refuse_errors()
