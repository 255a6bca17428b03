"""The document's decision tree on runs that nobody trained."""

from typing import Any

import pytest

from hrm.compare.figures import RunFigures, by_experiment
from hrm.compare.plan import SERIES, Round, check_series, lead, rounds_and_choices
from hrm.errors import UserError
from tests.compare.synthetic import run, seeds

ALL = ("O", "L", "E")


def rounds(runs: list[RunFigures], series: Any = ALL, everything: bool = False) -> list[Round]:
    return rounds_and_choices(by_experiment(runs), series, everything)[0]


GOOD_O = seeds("O1", [0.95, 0.96])
GOOD_L = seeds("L1", [0.95, 0.96], half_at=50.0)
BAD_O = seeds("O1", [0.3, 0.4], q=(0.5, 0.6))
BAD_L = seeds("L1", [0.3, 0.4])


def test_the_first_round_is_the_two_baselines() -> None:
    assert rounds([]) == [Round(("O1", "L1"))]
    assert rounds(GOOD_O) == [Round(("O1", "L1"))]


def test_original_leads_and_its_exploration_is_explored() -> None:
    assert rounds(GOOD_O + BAD_L)[-1] == Round(("O2", "O3"))


def test_online_leads_and_its_steps_are_explored() -> None:
    assert rounds(BAD_O + GOOD_L)[-1] == Round(("L2", "L3"))


def test_the_encoders_take_the_mode_of_the_leaders_best() -> None:
    runs = GOOD_O + BAD_L + seeds("O2", [0.97, 0.98]) + seeds("O3", [0.9, 0.9])
    assert rounds(runs)[-1] == Round(SERIES["E"], mode_of="O2")
    runs = BAD_O + GOOD_L + seeds("L2", [0.9, 0.9]) + seeds("L3", [0.99, 0.99])
    assert rounds(runs)[-1] == Round(SERIES["E"], mode_of="L3")


def test_with_everything_both_branches_run_and_the_leader_still_counts() -> None:
    assert rounds(GOOD_O + BAD_L, everything=True)[-1] == Round(("O2", "O3", "L2", "L3"))
    better = [r for name in ("O2", "O3") for r in seeds(name, [0.5, 0.5])]
    best = [r for name in ("L2", "L3") for r in seeds(name, [0.99, 0.99])]
    runs = GOOD_O + BAD_L + better + best
    assert rounds(runs, everything=True)[-1].mode_of == "O1"


def test_nothing_more_runs_after_the_encoders() -> None:
    runs = GOOD_O + BAD_L
    for name in ("O2", "O3", "E1", "E2", "E3"):
        runs = runs + seeds(name, [0.5, 0.5])
    assert len(rounds(runs)) == 3


def test_a_series_by_itself_is_run_whole() -> None:
    assert rounds([], ("O",)) == [Round(("O1", "O2", "O3"))]
    assert rounds([], ("E",)) == [Round(("E1", "E2", "E3"))]
    done = [r for name in SERIES["L"] for r in seeds(name, [0.5, 0.6])]
    assert rounds(done, ("L", "E"))[-1].mode_of in SERIES["L"]


def test_without_a_finished_seed_the_other_one_leads() -> None:
    dead = [run("O1", 0, status="failed")]
    choice = lead(by_experiment(dead)["O1"], by_experiment(BAD_L)["L1"])
    assert choice.answer == "L1"
    assert "no seed of the other finished" in choice.why


def test_where_nothing_finished_the_tree_stops() -> None:
    dead = [run("O1", 0, status="failed"), run("L1", 0, status="failed")]
    found, choices = rounds_and_choices(by_experiment(dead), ALL)
    assert found == [Round(("O1", "L1"))]
    assert choices[0].answer == "neither"


def test_equal_runs_explore_both_branches() -> None:
    # The Q-head's vote goes to L1, so O1 needs one: it converges sooner; accuracy is equal.
    original = seeds("O1", [0.5, 0.5], q=(0.5, 0.6), half_at=200.0)
    online = seeds("L1", [0.5, 0.5], half_at=200.0)
    for log in original:
        log.reached[0.5] = log.reached[0.25] = {"updates": 1.0, "samples": 1.0, "seconds": 1.0}
        log.figures["exact"] = 0.5
    for log in online:
        log.figures["exact"] = 0.5
    choice = lead(by_experiment(original)["O1"], by_experiment(online)["L1"])
    assert choice.answer == "both"
    assert rounds(original + online)[-1] == Round(("O2", "O3", "L2", "L3"))


def test_where_nothing_is_left_to_predict_the_q_head_votes_for_nobody() -> None:
    def vote(exact: float, q: float) -> str:
        original, online = seeds("O1", [exact] * 2, q=(q, q)), seeds("L1", [exact] * 2)
        why = lead(by_experiment(original)["O1"], by_experiment(online)["L1"]).why
        return next(text for text in why if "q_halt_accuracy" in text)

    # As good as a constant answer that is right in 98 %.
    assert vote(1.0, 0.98).endswith("which leaves nothing to predict: tie")
    assert vote(0.7, 0.9).endswith(": O1")
    assert vote(0.85, 0.82).endswith(": L1")


def test_an_unknown_series_is_refused() -> None:
    assert check_series(["E", "O"]) == ("O", "E")
    with pytest.raises(UserError, match=r"--series X: unknown .*O, L, E"):
        check_series(["X"])
