"""Streams: every column that a model declares arrives, of any shape; wrong rows are named."""

from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from torch import Tensor

from hrm.data import Demonstrations, PuzzleSplit, load_split
from hrm.inference import Engine
from hrm.inference.evaluate import evaluate_split
from hrm.inference.stream import SPLIT_ROWS, BatchSource, RowSource, Source, as_batches
from hrm.models.act import Column
from hrm.models.trm import TRM
from tests.data.test_demonstrations import arrays, write

COLUMNS = {
    "inputs": Column((4,), 9),
    "demo_inputs": Column((3, 4), 9),
    "demo_outputs": Column((3, 4), 9),
    "demo_mask": Column((3,), 2),
}


@pytest.fixture(scope="module")
def split(tmp_path_factory: pytest.TempPathFactory) -> PuzzleSplit:
    root: Path = tmp_path_factory.mktemp("shown") / "set"
    return load_split(write(root, arrays([-1, 0, -1, 1])), "train")


def read(source: Source, count: int) -> dict[str, np.ndarray]:
    pieces = list(source.take(count))
    return {name: np.concatenate([p.data[name] for p in pieces]) for name in source.columns}


def rows_of(split: PuzzleSplit) -> list[dict[str, np.ndarray]]:
    taken = split.take(np.arange(len(split)))
    return [{name: array[row] for name, array in taken.items()} for row in range(len(split))]


@pytest.mark.parametrize("by_row", [True, False])
def test_demonstrations_arrive_as_they_are(split: PuzzleSplit, by_row: bool) -> None:
    source = (
        RowSource(COLUMNS, rows_of(split)) if by_row else BatchSource(COLUMNS, as_batches(split))
    )
    first, rest = read(source, 3), read(source, 9)
    expected = split.take(np.arange(4))
    for name in COLUMNS:
        assert np.array_equal(np.concatenate([first[name], rest[name]]), expected[name]), name
    assert source.ended
    assert not source.failed


@pytest.mark.parametrize(
    ("name", "change", "message"),
    [
        ("demo_mask", lambda a: a + 1, "demo_mask: 2 at position"),
        ("demo_inputs", lambda a: a[:2], r"demo_inputs: has shape (2, 4), but the model reads"),
        ("demo_outputs", None, "demo_outputs: is missing"),
    ],
)
def test_wrong_demonstrations_fail_alone(
    split: PuzzleSplit, name: str, change: object, message: str
) -> None:
    rows = rows_of(split)
    if callable(change):
        rows[1][name] = change(rows[1][name])
    else:
        del rows[1][name]
    source = RowSource(COLUMNS, rows)
    assert len(read(source, 4)["inputs"]) == 3
    assert list(source.failed) == [1]
    assert message in source.failed[1]


def test_a_long_split_is_read_in_pieces(split: PuzzleSplit) -> None:
    many = np.zeros(SPLIT_ROWS + 5, dtype=np.int64)
    shown = split.demonstrations
    assert shown is not None
    long = replace(
        split,
        inputs=split.inputs[many],
        labels=split.labels[many],
        puzzle_identifiers=np.ones(1, dtype=np.int32),
        puzzle_indices=np.array([0, len(many)]),
        group_indices=np.array([0, 1]),
        demonstrations=Demonstrations(shown.inputs, shown.outputs, np.array([0, 2])),
    )
    pieces = list(as_batches(long))
    assert [len(piece["inputs"]) for piece in pieces] == [SPLIT_ROWS, 5]
    source = BatchSource(COLUMNS, as_batches(long))
    assert [len(piece.index) for piece in source.take(10_000)] == [SPLIT_ROWS, 5]


class Reader(TRM):
    """A model that reads demonstrations; here it only records what it is given."""

    seen: list[dict[str, np.ndarray]]

    @property
    def columns(self) -> dict[str, Column]:
        return {**super().columns, **COLUMNS}

    def forward(self, carry, batch: Mapping[str, Tensor], **options):  # type: ignore[no-untyped-def]
        stepped, outputs = super().forward(carry, batch, **options)
        self.seen.append({name: v.numpy().copy() for name, v in stepped.current_data.items()})
        return stepped, outputs


def test_the_engine_carries_demonstrations_to_the_model(split: PuzzleSplit) -> None:
    small = {"H_cycles": 1, "L_cycles": 1, "L_layers": 1, "hidden_size": 8, "num_heads": 2}
    model = Reader(
        {
            **small,
            "batch_size": 4,
            "seq_len": 4,
            "vocab_size": 9,
            "num_puzzle_identifiers": 4,
            "halt_max_steps": 2,
            "ffn_multiple": 8,
            "forward_dtype": "float32",
        }
    )
    model.seen = []
    Engine(model, slots=2, adaptive=False).solve_all(split)
    expected = split.take(np.arange(4))
    for name in COLUMNS:
        assert np.array_equal(model.seen[0][name], expected[name][:2]), name
        assert np.array_equal(model.seen[2][name], expected[name][2:]), name
    for halting in ("max_steps", "adaptive"):
        model.seen = []
        figures = evaluate_split(model, split, batch_size=4, halting=halting)  # type: ignore[arg-type]
        assert figures["count"] == 4
        assert np.array_equal(model.seen[0]["demo_mask"], expected["demo_mask"])
