"""A winner needs accuracy, a gap beyond the seeds' spread, and halting that is alive."""

import pytest

from hrm.compare.figures import RunFigures, by_experiment
from hrm.compare.winner import winner
from tests.compare.synthetic import run, seeds

STUCK = (0, 0, 0, 20)


def checks(runs: list[RunFigures]) -> tuple[str | None, list[bool | None]]:
    found = winner(by_experiment(runs))
    return found.mode, [check.passed for check in found.checks]


def test_a_mode_wins_if_everything_holds() -> None:
    runs = seeds("O1", [0.5, 0.52, 0.51]) + seeds("L1", [0.95, 0.96, 0.97])
    assert checks(runs) == ("online", [True, True, True, True])
    runs = seeds("L1", [0.5, 0.52, 0.51]) + seeds("O1", [0.95, 0.96, 0.97])
    assert checks(runs) == ("original", [True, True, True, True])


@pytest.mark.parametrize(
    ("runs", "failing"),
    [
        (seeds("O1", [0.5, 0.52]) + seeds("L1", [0.88, 0.89]), 0),
        (seeds("O1", [0.85, 0.97]) + seeds("L1", [0.95, 0.96]), 1),
        (seeds("O1", [0.5, 0.52]) + seeds("L1", [0.95, 0.96], histogram=STUCK), 2),
        (seeds("O1", [0.5, 0.52]) + seeds("L1", [0.95, 0.96]) + [run("L1", 2, status="failed")], 3),
    ],
    ids=["not accurate", "gap within the spread", "halting is dead", "a seed failed"],
)
def test_a_winner_is_refused(runs: list[RunFigures], failing: int) -> None:
    mode, passed = checks(runs)
    assert mode is None
    assert [i for i, holds in enumerate(passed) if not holds] == [failing]


def test_halting_must_be_alive_in_every_seed() -> None:
    runs = [*seeds("O1", [0.5, 0.52]), run("L1", 0), run("L1", 1, histogram=STUCK)]
    assert checks(runs) == (None, [True, True, False, True])


def test_one_seed_shows_no_spread() -> None:
    runs = seeds("O1", [0.2]) + seeds("L1", [0.99])
    assert checks(runs) == (None, [True, None, True, True])


def test_without_the_other_mode_there_is_no_winner() -> None:
    assert checks(seeds("L1", [0.99, 0.98])) == (None, [True, None, True, False])
    assert checks([]) == (None, [False])
    assert checks([run("O1", 0, status="failed")]) == (None, [False])
