"""Figures of a run, computed by hand from few rows."""

import math
from typing import Any

import numpy as np
import pytest
import torch

from hrm.compare.comparison import compare
from hrm.compare.figures import (
    Values,
    at_budget,
    by_experiment,
    first_to_level,
)
from hrm.compare.log import read_curves, smoothed
from hrm.compare.reading import figures_of_run
from hrm.compare.work import Work
from hrm.halting import HaltOnly
from tests.compare.synthetic import run, seeds

CONFIG = {
    "experiment_name": "O1",
    "seed": 3,
    "dynamics": "persistent",
    "global_batch_size": 4,
    "arch": {"halt_max_steps": 8},
}


def row(step: int, **told: Any) -> dict[str, Any]:
    values = {f"train/{k}": v for k, v in told.items() if k not in ("samples", "seconds")}
    clocks = {"step": step, "samples": told.get("samples", step), "time/train_s": 0.5 * step}
    return clocks | {"train/count": 1.0} | values


def figures(rows: list[dict[str, Any]], **config: Any) -> dict[str, float | None]:
    return figures_of_run("a", CONFIG | config, rows, status="finished").figures


def test_a_final_figure_weighs_rows_by_the_sequences_that_ended() -> None:
    rows = [row(step, exact_accuracy=0.0) for step in range(10, 100, 10)]
    rows += [row(95, exact_accuracy=0.5, count=30.0), row(100, exact_accuracy=1.0, count=10.0)]
    # The last tenth is (90, 100]: 30 sequences at 0.5 and 10 at 1.
    assert figures(rows)["exact"] == pytest.approx(0.625)


def test_rows_in_which_nothing_ended_count_for_nothing() -> None:
    rows = [row(90, exact_accuracy=0.4), row(100, exact_accuracy=None, count=0.0)]
    assert figures(rows)["exact"] == 0.4
    assert figures([row(10, exact_accuracy=None, count=0.0)])["exact"] is None


def test_a_nan_is_no_number() -> None:
    found = figures([row(10, exact_accuracy=math.nan, loss=math.nan), row(20, loss=1.0)])
    assert found["exact"] is None
    assert found["loss"] == 1.0
    assert figures([])["exact"] is None


def test_the_best_is_a_mean_over_a_tenth_and_no_lucky_row() -> None:
    rows = [row(step, exact_accuracy=0.5) for step in range(1, 101)]
    rows[49]["train/exact_accuracy"] = 1.0
    found = figures(rows)
    assert found["best_exact"] == pytest.approx(0.55)
    assert found["exact"] == pytest.approx(0.5)


def test_the_constant_answer_is_the_more_frequent_one() -> None:
    rows = [row(s, exact_accuracy=0.3, q_halt_accuracy=0.6) for s in range(10, 110, 10)]
    found = figures(rows)
    assert found["q_halt_base_rate"] == pytest.approx(0.3)
    assert found["q_halt_constant"] == pytest.approx(0.7)


def test_q_halt_starts_where_something_is_right() -> None:
    rights = [0.0, 0.0, 0.04, 0.2, 0.5, 0.8, 0.9, 0.9, 0.9, 0.9]
    qs = [1.0, 1.0, 0.9, 0.5, 0.6, 0.7, 0.8, 0.8, 0.8, 0.85]
    rows = [
        row(10 * (i + 1), exact_accuracy=r, q_halt_accuracy=q)
        for i, (r, q) in enumerate(zip(rights, qs, strict=True))
    ]
    found = figures(rows)
    assert found["q_halt_first"] == 0.5
    assert found["q_halt_rise"] == pytest.approx(0.35)
    # A head that says "wrong" of all that is wrong has learned nothing yet.
    assert figures(rows[:3])["q_halt_first"] is None


def test_the_first_lives_of_staggered_slots_do_not_count_as_moving_steps() -> None:
    rows = [row(10, steps=4.0), *(row(step, steps=8.0) for step in range(20, 210, 10))]
    assert figures(rows)["steps_range"] == 0


def test_encoder_passes_follow_the_share_of_slots() -> None:
    rows = [row(10, encoder_share=1.0, samples=4), row(20, encoder_share=0.25, samples=14)]
    found = figures(rows)
    assert found["encoder_forwards"] == pytest.approx(10 * 4 * 1.25)
    assert found["decoder_forwards"] == 80
    assert found["encoder_per_sample"] == pytest.approx(50 / 14)
    # Not told for every row: not known.
    assert "encoder_forwards" not in figures([row(10), rows[1]])


def test_compute_follows_steps_and_the_share_of_slots_that_were_encoded() -> None:
    rows = [row(10, encoder_share=1.0), row(20, encoder_share=0.25)]

    def compute(rows: list[dict[str, Any]], work: Work | None) -> list[float]:
        run_ = figures_of_run("a", CONFIG, rows, status="finished", work=work)
        assert run_.figures["compute"] == (None if np.isnan(run_.curves["compute"][-1]) else 18)
        return list(run_.curves["compute"])

    # 10 updates of 4 slots: 40 * (0.1 + 1 * 0.2), then 40 * (0.1 + 0.25 * 0.2).
    assert compute(rows, Work(step=1e11, encoding=2e11)) == pytest.approx([12, 18])
    assert np.isnan(compute(rows, None)).all()
    # Who was encoded is not told.
    assert np.isnan(compute([row(10), rows[1]], Work(1e11, 2e11))).all()
    assert compute([row(10), row(20)], Work(step=2.25e11, encoding=0.0)) == pytest.approx([9, 18])


def test_the_budget_of_a_clock_that_a_run_does_not_know_is_not_known() -> None:
    known = compare(seeds("O1", [0.9]) + seeds("L1", [0.9]))
    # L1's share of encoded slots is 1, O1's is 0.25.
    assert known.budget("compute") == pytest.approx(32 * 1000 * 1.25e9 / 1e12)
    assert compare(seeds("O1", [0.9]) + seeds("L1", [0.9], work=None)).budget("compute") is None


@pytest.mark.parametrize(("chance", "mean"), [(0.3, 1.397), (0.5, 1.818), (0.7, 2.445)])
def test_exploration_alone_makes_these_steps(chance: float, mean: float) -> None:
    arch = {"halt_max_steps": 8, "halt_exploration_prob": chance}
    assert figures([], arch=arch)["steps_by_exploration"] == pytest.approx(mean, abs=1e-3)
    assert figures([], arch=arch, dynamics="online")["steps_by_exploration"] is None
    assert figures([])["steps_by_exploration"] is None


@pytest.mark.parametrize("exploration", ["per_step", "per_episode"])
def test_exploration_alone_is_that_of_the_policies(exploration: Any) -> None:
    slots, limit = 20_000, 5
    policy = HaltOnly(limit, 0.6, exploration)
    outputs = {"q_halt_logits": torch.ones(slots)}  # Wishes to halt, always.
    rng, extra = torch.arange(slots), policy.fresh_extra(slots, torch.device("cpu"))
    ended = torch.zeros(slots)
    for step in range(1, limit + 1):
        steps = torch.full((slots,), step, dtype=torch.int32)
        done, rng, extra = policy.decide(outputs, steps, rng, extra, training=True, adaptive=False)
        ended = torch.where((ended == 0) & done, step, ended)
    arch = {"halt_max_steps": limit, "halt_exploration_prob": 0.6, "exploration": exploration}
    expected = figures([], arch=arch)["steps_by_exploration"]
    assert float(ended.mean()) == pytest.approx(expected, abs=0.03)


def test_a_level_is_reached_by_the_smoothed_curve() -> None:
    rows = [row(s, exact_accuracy=0.0 if s < 60 else 0.6, samples=2 * s) for s in range(1, 101)]
    for log_row in rows:
        log_row["train/encoder_share"] = 0.5
    work = Work(step=1e11, encoding=3e11)  # With 4 slots and half the encodings 1e12 an update.
    run_ = figures_of_run("a", CONFIG, rows, status="finished", work=work)
    # The mean of two updates, 59 and 60, is 0.3; of 60 and 61 it is 0.6.
    at_60 = {"updates": 60, "samples": 120, "compute": pytest.approx(60), "seconds": 30}
    assert run_.reached[0.25] == at_60
    at_61 = {"updates": 61, "samples": 122, "compute": pytest.approx(61), "seconds": 30.5}
    assert run_.reached[0.5] == at_61
    assert run_.reached[0.9] is None
    assert at_budget(run_, "exact", "samples", 121) == pytest.approx(0.3)
    assert at_budget(run_, "exact", "updates", 0.5) is None


def test_smoothing_over_everything_is_the_mean() -> None:
    curves = read_curves([row(1, exact_accuracy=0.2), row(2, exact_accuracy=0.4)])
    assert smoothed(curves, "exact", 1.0)[-1] == pytest.approx(0.3)
    assert np.isnan(smoothed(curves, "kl")).all()


def test_the_histogram_of_training_tasks_comes_before_that_of_the_log() -> None:
    rows = [row(10) | {"eval/policy_steps_histogram": [0, 5]}]
    alone = figures_of_run("a", CONFIG, rows, status="finished")
    assert alone.histogram == (0, 5)
    evaluations = {"train": {"policy_steps_histogram": [3, 2], "exact_accuracy": 0.5}}
    both = figures_of_run("a", CONFIG, rows, status="finished", evaluations=evaluations)
    assert both.histogram == (3, 2)
    assert both.figures["train/exact_accuracy"] == 0.5
    assert figures_of_run("a", CONFIG, [], status="failed").histogram is None


def test_modes_have_the_documents_names() -> None:
    assert figures_of_run("a", CONFIG, [], status="failed").mode == "original"
    online = CONFIG | {"dynamics": "online", "num_act_steps": 4}
    assert figures_of_run("a", online, [], status="failed").max_steps == 4


def test_only_finished_seeds_have_values() -> None:
    runs = [*seeds("O1", [0.8, 0.9]), run("O1", 2, status="failed", exact=0.1)]
    found = by_experiment(runs)["O1"]
    assert len(found.values("exact").values) == 2
    assert not found.complete
    assert found.mode == "original"


def test_the_spread_of_one_seed_is_unknown() -> None:
    assert Values("O1", (0.5,)).spread is None
    assert Values("O1", ()).mean is None
    assert Values("O1", (0.5, 0.7)).spread == pytest.approx(0.2)
    assert Values("O1", (0.5, 0.5)).told() == "0.500 (all 2 seeds)"


def test_the_level_is_the_highest_that_one_of_two_reaches_in_all_seeds() -> None:
    found = by_experiment([*seeds("O1", [0.95, 0.6]), *seeds("L1", [0.8, 0.85])])
    level, original, online = first_to_level(found["O1"], found["L1"], "updates") or (0, None, None)
    assert level == 0.75
    assert original is not None
    assert online is not None
    # The seed that never reaches it counts with its whole length.
    assert max(original.values) == 1000
    assert max(online.values) < 1000
    low = by_experiment([*seeds("O1", [0.05]), *seeds("L1", [0.05])])
    assert first_to_level(low["O1"], low["L1"], "updates") is None
