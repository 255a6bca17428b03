"""`hrm bench`: what is counted, what is compared, and what is said. No test asserts a time."""

import json
import statistics
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
import torch.nn.functional as F

from hrm.benchmarking import solve as bench_solve
from hrm.benchmarking.measure import PeakMemory, in_turns, with_spread
from hrm.benchmarking.products import Product, Shape, count_products
from hrm.benchmarking.train import synthetic_split
from hrm.cli import main
from hrm.commands.bench import compose_for_bench, rows_to_train
from hrm.inference.engine import Answers, Engine
from hrm.inference.loop import solve
from tests.conftest import Run
from tests.models.helpers import awaken, small_batch, small_hrm, small_trm
from tests.training.conftest import SMALL

TINY = ("arch.hidden_size=16", "arch.num_heads=2", "arch.ffn_multiple=8", "global_batch_size=4")
CPU = torch.device("cpu")


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A data set in `4`, and a run on it in `run`."""
    root = tmp_path_factory.mktemp("bench")
    counts = ["--count", "20", "--val-count", "4", "--test-count", "9"]
    where = ["--size", "4", "--out", str(root / "4")]
    assert main(["prepare", "sudoku", *where, *counts, "--quiet"]) == 0
    assert main(["train", *SMALL, f"data.path={root / '4'}", f"out={root / 'run'}"]) == 0
    return root


# -- what a piece of work multiplies


def test_products_are_counted_with_their_largest_shape() -> None:
    a, b, c = (torch.ones(s, dtype=torch.bfloat16) for s in ((2, 3), (3, 4), (4, 9)))
    counted = count_products(lambda: a @ b @ c)
    # 2 * (2 * 3 * 4) + 2 * (2 * 4 * 9)
    assert counted == (192, Shape(2, 4, 9), torch.bfloat16)


def test_among_equals_the_frequent_product_is_the_largest() -> None:
    a, b = torch.ones(2, 4), torch.ones(4, 3)
    counted = count_products(lambda: (b.T @ a.T, a @ b, a @ b))
    assert counted.largest == Shape(2, 4, 3)


def test_attention_counts_on_a_cpu_too() -> None:
    q, k, v = torch.randn(3, 2, 4, 5, 8, requires_grad=True).unbind(0)
    x = torch.ones(1, 1)

    def forward() -> torch.Tensor:
        return F.scaled_dot_product_attention(q, k, v).sum() + (x @ x).sum()

    # Two products of (5, 8) x (8, 5) for each of 2 * 4 heads, and the one that is 1 x 1.
    products = 2 * 8 * (2 * 5 * 8 * 5)
    assert count_products(forward).operations == products + 2
    # Backward: the scores again, and two for each of the two products.
    both = count_products(lambda: forward().backward()).operations
    assert both == products + products // 2 * 5 + 2


def test_work_without_products_is_refused() -> None:
    with pytest.raises(ValueError, match="no matrix product"):
        count_products(lambda: torch.ones(2) + 1)


def test_an_update_has_the_operations_of_a_count_by_hand(hrm: Run) -> None:
    sizes = ("--length", "6", "--vocab", "7", "--repeats", "1", "--threads", "1", "--json")
    arch = ("arch=trm_mlp", "arch.L_layers=1", "arch.H_cycles=2", "arch.L_cycles=2")
    status, out, _ = hrm("bench", "train", *arch, *TINY, *sizes, "compile=false")
    figures = json.loads(out)
    assert status == 0
    slots, length, width, vocab = 4, 6, 16, 7
    # round(2/3 * 4 * width) rounded up to 8: 48 for features, 16 for positions.
    features = 2 * slots * length * (width * 2 * 48 + 48 * width)
    positions = 2 * slots * width * (length * 2 * 16 + 16 * length)
    heads = 2 * slots * (length * width * vocab + width * 2)
    # Low, low, high, twice; the last three carry gradient, which is two more products for each.
    assert figures["operations_per_update"] == (features + positions) * (6 + 2 * 3) + heads * 3
    # Gate and up over features, (slots * length) x width by width x (2 * 48).
    assert figures["gemm_shape"] == [24, 16, 96]


def test_bootstrapping_costs_a_second_forward() -> None:
    def operations(target: str) -> int:
        model, batch = small_hrm(continue_target=target).train(), small_batch()
        carry = model.initial_carry(batch, seed=0)

        def step() -> None:
            model(carry, batch)

        return count_products(step).operations

    second = operations("bootstrap") - operations("none")
    # All of a forward but 4 * 6 tokens' logits, 16 wide of 11 values, and most of one layer.
    without_logits = operations("none") - 2 * 4 * 6 * 16 * 11
    assert 0.8 * without_logits < second < without_logits


# -- measuring


def test_turns_alternate() -> None:
    seen: list[str] = []
    works = {name: lambda name=name: seen.append(name) for name in "ab"}
    times = in_turns(works, 3, CPU)
    assert "".join(seen) == "ababab"
    assert [len(times[name]) for name in "ab"] == [3, 3]


def test_spread_is_least_and_largest() -> None:
    assert with_spread("x", [3.0, 1.0, 2.0]) == {"x": 2.0, "x_spread": [1.0, 3.0]}


def test_peak_memory_sees_what_was_freed_again() -> None:
    memory = PeakMemory(CPU)
    np.ones(1 << 25)  # 256 MiB, gone at once.
    assert (taken := memory.read()) is not None
    assert 250 * 2**20 < taken < 600 * 2**20


def test_a_product_counts_its_repetitions() -> None:
    product = Product(Shape(2, 3, 5), torch.float32, CPU)
    assert product.operations == 60
    product.warm_up(long_enough=1e-3)
    assert product.repeats > 1
    assert product.operations == 60 * product.repeats
    torch.testing.assert_close(product(), product.x @ product.weight.T)


# -- the commands


def test_gemm_prints_one_object(hrm: Run) -> None:
    command = ("--dtype", "float32", "--threads", "1", "--repeats", "2", "--json")
    status, out, err = hrm("bench", "gemm", *command)
    figures = json.loads(out)
    assert (status, err) == (0, "")
    assert (figures["dtype"], figures["threads"], figures["repeats"]) == ("float32", 1, 2)
    first = figures["products"][0]
    assert first["operations"] == 2 * 16 * 81 * 512 * 2 * 1536
    assert figures["operations_per_s"] == first["operations_per_s"] > 0
    low, high = figures["operations_per_s_spread"]
    assert low <= figures["operations_per_s"] <= high


def test_train_prints_one_object(hrm: Run, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)  # Where the experiment's data are not.
    command = ("experiment=sudoku_6x6", *TINY, "--repeats", "3", "arch.H_cycles=1", "--json")
    status, out, err = hrm("bench", "train", *command)
    figures = json.loads(out)
    assert (status, err) == (0, "")
    sizes = {"batch_size": 4, "seq_len": 36, "vocab_size": 8, "repeats": 3, "dtype": "bfloat16"}
    assert {key: figures[key] for key in sizes} == sizes
    assert (figures["arch"], figures["data"]) == ("trm", "synthetic")
    for name in ("samples_per_s", "updates_per_s", "gemm_operations_per_s", "gemm_share"):
        low, high = figures[f"{name}_spread"]
        assert 0 < low <= figures[name] <= high
    assert figures["samples_per_s"] == pytest.approx(4 * figures["updates_per_s"])
    assert figures["memory_bytes"] > 0


def test_tables_name_the_figures(hrm: Run) -> None:
    small = ("arch=hrm", *TINY, "--length", "6", "--vocab", "7", "--repeats", "1")
    status, out, err = hrm("bench", "train", *small, "arch.L_layers=1", "compile=false")
    assert status == 0
    assert "share of that rate" in out
    assert "medians of 1" in err


def test_nothing_given_is_the_full_size_step() -> None:
    config, given = compose_for_bench(["arch=hrm"])
    rows = rows_to_train(config, given, None, None)
    assert (config.arch["hidden_size"], config.global_batch_size) == (512, 16)
    assert (rows.metadata.seq_len, rows.metadata.vocab_size) == (81, 11)
    assert compose_for_bench(["global_batch_size=8"])[0].global_batch_size == 8


def test_rows_are_those_of_the_data_where_they_are_there(folder: Path) -> None:
    settings = ["experiment=sudoku_9x9", f"data.path={folder / '4'}"]
    config, given = compose_for_bench(settings)
    assert rows_to_train(config, given, None, None).metadata.seq_len == 16
    assert rows_to_train(config, given, 7, 3).metadata.seq_len == 7


def test_random_rows_hold_no_padding_and_repeat() -> None:
    rows, again = synthetic_split(5, 4, rows=200), synthetic_split(5, 4, rows=200)
    assert len(rows) == rows.groups == 200
    assert set(np.unique(rows.inputs)) == set(np.unique(rows.labels)) == {1, 2, 3}
    assert np.array_equal(rows.inputs, again.inputs)
    assert not np.array_equal(rows.inputs, rows.labels)


def test_solve_prints_one_object(hrm: Run, folder: Path) -> None:
    status, out, err = hrm("bench", "solve", folder / "run", "--repeats", "1", "--json")
    figures = json.loads(out)
    assert (status, err) == (0, "")
    assert figures["identical"] is True
    assert (figures["checked"], figures["mismatches"], figures["count"]) == (9, 0, 9)
    for name in ("puzzles_per_s", "puzzles_per_s_max_steps", "fixed_puzzles_per_s", "ratio"):
        assert figures[name] > 0
    quotient = figures["puzzles_per_s"] / figures["fixed_puzzles_per_s"]
    assert figures["ratio"] == pytest.approx(quotient)
    adaptive = json.loads(hrm("evaluate", folder / "run", "--halting", "adaptive", "--json")[1])
    full = json.loads(hrm("evaluate", folder / "run", "--json")[1])
    assert figures["mean_steps"] == pytest.approx(adaptive["mean_steps"])
    for name in ("accuracy", "exact_accuracy"):
        assert figures[name] == pytest.approx(adaptive[name])
        assert figures[f"fixed_{name}"] == pytest.approx(full[name])


def test_the_loop_of_fixed_depth_gives_the_last_step_of_each_row() -> None:
    for model in (small_hrm(), small_trm(mlp_t=True, pos_encodings="none")):
        awaken(model)
        batches = [small_batch(slots=n, seed=n) for n in (3, 4)]
        found = bench_solve.fixed_depth(model.eval(), batches)
        for batch, answers in zip(batches, found, strict=True):
            assert torch.equal(answers.int(), solve(model, batch).predictions[-1])


def test_rows_that_halt_at_different_steps_are_those_of_each_alone() -> None:
    model = small_trm()
    awaken(model)
    with torch.no_grad():
        model.inner.q_head.bias.zero_()
    figures = bench_solve.bench_solving(
        model, synthetic_split(6, 11, rows=20), count=20, repeats=1, slots=4
    )
    assert 1 < figures["mean_steps"] < figures["max_steps"] == 3
    assert figures["identical"]
    assert (figures["slots"], figures["fixed_batch_size"], figures["count"]) == (4, 16, 20)


class Faulty(Engine):
    """One token of row 2 and the number of steps of row 5 are wrong."""

    def solve_all(self, *given: Any, **settings: Any) -> Answers:
        answers = super().solve_all(*given, **settings)
        predictions, steps = answers.predictions.copy(), answers.steps.copy()
        if len(steps) > 5:
            predictions[2, 3] = (predictions[2, 3] + 1) % 6
            steps[5] -= 1
        return replace(answers, predictions=predictions, steps=steps)


def test_a_wrong_answer_and_a_wrong_step_are_found(
    hrm: Run, folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(bench_solve, "Engine", Faulty)
    command = ("bench", "solve", folder / "run", "--repeats", "1", "--slots", "4")
    figures = json.loads(hrm(*command, "--json")[1])
    assert (figures["identical"], figures["mismatches"], figures["slots"]) == (False, 2, 4)
    token, step = figures["mismatch_details"]
    assert (token["row"], token["tokens"], token["steps"]["engine"]) == (
        2,
        1,
        token["steps"]["alone"],
    )
    assert token["token_lead"] > 0
    assert (step["row"], step["tokens"], step["token_lead"]) == (5, 0, 0.0)
    assert step["steps"]["engine"] == step["steps"]["alone"] - 1
    # Only so many rows are looked at.
    assert json.loads(hrm(*command, "--check", "2", "--json")[1])["identical"] is True
    status, out, _ = hrm(*command)
    assert status == 0
    assert "2 of 9 rows differ" in out


def test_the_fastest_size_is_by_rows() -> None:
    def slow() -> None:
        statistics.fmean(range(300_000))

    # Both take the same; one does a thousand times as many rows.
    works = {1: slow, 1000: slow}
    assert bench_solve.fastest(works, CPU, lambda size: size) == 1000
    assert bench_solve.fastest({7: slow}, CPU, lambda size: size) == 7


@pytest.mark.parametrize(
    ("arguments", "told"),
    [
        ("tran", "did you mean 'train'"),
        ("gemm --dtype int8", "--dtype"),
        ("gemm --repeats 0", "--repeats: got 0, but it is at least 1"),
        ("gemm --threads 0", "--threads: got 0"),
        ("gemm --device tpu", "device: tpu is not here"),
        ("train arch=hrmm", "did you mean 'hrm'"),
        ("train arch.hidden_size", "settings are given as key=value"),
        ("train arch.hiden_size=4", "arch.hidden_size"),
        ("train data.path=nowhere", "data.path: nowhere does not exist"),
        ("train experiment=sudoku_extreme data.path=none", "data.path: none does not exist"),
        ("train experiment=sudoku_6x6 --vocab 5", "give --length too"),
        ("train --length 0", "--length: got 0"),
        ("train --repeats x", "invalid int value"),
        ("solve nowhere", "nowhere"),
        ("solve nowhere --count 0", "--count: got 0"),
        ("solve nowhere --slots 0", "--slots: got 0"),
        ("solve", "RUN"),
    ],
)
def test_bad_input_is_one_sentence(hrm: Run, arguments: str, told: str) -> None:
    status, out, err = hrm("bench", *arguments.split())
    assert (status, out) == (2, "")
    assert told in err
    assert err.startswith("hrm: ")
    assert err.count("\n") == 1


def test_data_of_another_size_are_refused(hrm: Run, folder: Path, tmp_path: Path) -> None:
    counts = ["--count", "4", "--val-count", "2", "--test-count", "2"]
    six = tmp_path / "6"
    assert hrm("prepare", "sudoku", "--size", "6", "--out", six, *counts, "--quiet")[0] == 0
    status, _, err = hrm("bench", "solve", folder / "run", "--data", six)
    assert status == 2
    assert "seq_len is 36, but the model's is 16" in err
