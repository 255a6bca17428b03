"""Each claim's three rulings, on runs that nobody trained."""

from collections.abc import Callable, Sequence
from typing import Any

import pytest

from hrm.compare import criteria, expected, hypotheses
from hrm.compare.comparing import higher, no_worse
from hrm.compare.figures import RunFigures, Values, by_experiment
from hrm.compare.modes import reference_of
from hrm.compare.verdict import Verdict
from hrm.compare.verdicts import verdicts
from hrm.compare.work import Work
from tests.compare.synthetic import evaluation, run, seeds

Runs = list[RunFigures]
TASKS = [float(i) for i in range(10)]


def ruled(claim: Callable[..., Verdict], runs: Runs) -> str:
    found = claim(by_experiment(runs))
    assert found.figure
    assert found.rule.endswith(".") or found.rule.endswith(")")
    return found.ruling


def with_auroc(name: str, values: list[float], **told: Any) -> Runs:
    return [
        run(name, i, evaluations={"train": evaluation(auroc=a)}, **told)
        for i, a in enumerate(values)
    ]


def held(name: str, values: list[float], by_step: Sequence[float] = (), **told: Any) -> Runs:
    return [
        run(name, i, evaluations={"test": evaluation(exact=e, by_step=by_step)}, **told)
        for i, e in enumerate(values)
    ]


def by_task(name: str, steps: list[list[float]]) -> Runs:
    right = [1 + t for t in TASKS]
    return [
        run(name, i, evaluations={"train": evaluation(steps_by_task=s, first_right=right)})
        for i, s in enumerate(steps)
    ]


FLAT: dict[str, Any] = {"steps": (8.0, 8.0)}
AT_ONCE = (20, 0, 0, 0, 0, 0, 0, 0)
CASES: list[tuple[Callable[..., Verdict], dict[str, Runs]]] = [
    (
        criteria.original_knows_when_it_is_right,
        {
            "supported": seeds("O1", [0.7, 0.72], q=(0.6, 0.95)),
            "refuted": seeds("O1", [0.7, 0.72], q=(0.6, 0.75)),
            "inconclusive": seeds("O1", [0.99, 0.99], q=(0.6, 0.95)),
        },
    ),
    (
        criteria.original_steps_not_stuck,
        {
            "supported": seeds("O1", [0.9, 0.9]),
            # In training exploration holds it back; by itself it halts at once.
            "refuted": seeds("O1", [0.9, 0.9], histogram=AT_ONCE, steps=(1.8, 1.8)),
            "inconclusive": [*seeds("O1", [0.9]), run("O1", 1, histogram=AT_ONCE)],
        },
    ),
    (
        criteria.original_comparable,
        {
            "supported": seeds("O1", [0.9, 0.92]) + seeds("L1", [0.9, 0.93]),
            "refuted": seeds("O1", [0.5, 0.52]) + seeds("L1", [0.9, 0.93]),
            # The spread of seeds hides the gap, which makes nothing comparable.
            "inconclusive": seeds("O1", [0.2, 0.9]) + seeds("L1", [0.9, 0.9]),
        },
    ),
    (
        criteria.online_fewer_epochs,
        {
            "supported": seeds("O1", [0.9, 0.92]) + seeds("L1", [0.9, 0.92], steps_a_sample=16.0),
            "refuted": seeds("O1", [0.9, 0.92]) + seeds("L1", [0.9, 0.92], steps_a_sample=1.0),
            "inconclusive": seeds("O1", [0.9, 0.92]) + seeds("L1", [0.9, 0.92]),
        },
    ),
    (
        criteria.online_more_accurate,
        {
            "supported": seeds("O1", [0.5, 0.52]) + seeds("L1", [0.9, 0.93]),
            "refuted": seeds("O1", [0.9, 0.92]) + seeds("L1", [0.5, 0.53]),
            "inconclusive": seeds("O1", [0.8, 0.92]) + seeds("L1", [0.9, 0.93]),
        },
    ),
    (
        criteria.online_generalises,
        {
            "supported": held("O1", [0.1, 0.12]) + held("L1", [0.3, 0.31]),
            "refuted": seeds("O1", [0.9, 0.9], held=0.5) + seeds("L1", [0.9, 0.9], held=0.1),
            # Of one only what was looked at while training is known, so that of both is read.
            "inconclusive": held("O1", [0.1, 0.12]) + seeds("L1", [0.9, 0.9]),
        },
    ),
    (
        expected.steps_vary_in_original,
        {
            "supported": seeds("O1", [0.9, 0.9]),
            "refuted": seeds("O1", [0.9, 0.9], histogram=(0, 0, 0, 20), **FLAT),
            "inconclusive": seeds("O1", [0.9, 0.9], histogram=(0, 0, 0, 20)),
        },
    ),
    (
        expected.steps_fixed_in_online,
        {
            "supported": seeds("L1", [0.9], steps=(4.0, 4.0)),
            "refuted": seeds("L1", [0.9], steps=(4.0, 3.0)),
            "inconclusive": [run("L1", 0, status="failed")],
        },
    ),
    (
        expected.q_halt_improves,
        {
            "supported": seeds("O1", [0.9, 0.9], q=(0.5, 0.9)),
            "refuted": seeds("O1", [0.9, 0.9], q=(0.9, 0.5)),
            "inconclusive": [run("O1", 0, q=(0.5, 0.9)), run("O1", 1, q=(0.7, 0.72))],
        },
    ),
    (
        expected.fewer_steps_on_easy_tasks,
        {
            "supported": by_task("O1", [TASKS, TASKS]) + by_task("L1", [TASKS]),
            "refuted": by_task("O1", [TASKS[::-1], [3.0] * 10]) + by_task("L1", [TASKS]),
            "inconclusive": by_task("O1", [TASKS, TASKS[::-1]]) + by_task("L1", [TASKS]),
        },
    ),
    (
        expected.more_encoder_updates_online,
        {
            "supported": seeds("O1", [0.9, 0.9]) + seeds("L1", [0.9, 0.9]),
            "refuted": seeds("O1", [0.9, 0.9]) + seeds("L1", [0.9, 0.9], encoder_share=0.1),
            "inconclusive": seeds("O1", [0.9, 0.9], encoder_share=1.0) + seeds("L1", [0.9, 0.9]),
        },
    ),
    (
        expected.online_converges_faster,
        {
            "supported": seeds("O1", [0.9, 0.92]) + seeds("L1", [0.9, 0.92], half_at=20.0),
            "refuted": seeds("O1", [0.9, 0.92]) + seeds("L1", [0.9, 0.92], half_at=2000.0),
            # Fewer updates, but each of them multiplies more.
            "inconclusive": seeds("O1", [0.9, 0.92])
            + seeds("L1", [0.9, 0.92], half_at=20.0, work=Work(1e9, 1e12)),
        },
    ),
    (
        hypotheses.o1_works,
        {
            "supported": seeds("O1", [0.7, 0.72]),
            "refuted": seeds("O1", [0.7, 0.72], q=(0.6, 0.7)),
            "inconclusive": seeds("O1", [0.7, 0.72], histogram=(0, 0, 0, 20)),
        },
    ),
    (
        hypotheses.o2_halts_better,
        {
            "supported": with_auroc("O1", [0.7, 0.72]) + with_auroc("O2", [0.9, 0.91]),
            "refuted": with_auroc("O1", [0.9, 0.91]) + with_auroc("O2", [0.7, 0.72]),
            "inconclusive": with_auroc("O1", [0.7, 0.72]) + seeds("O2", [0.9, 0.91]),
        },
    ),
    (
        hypotheses.o3_generalises_better,
        {
            "supported": held("O1", [0.1, 0.1]) + held("O3", [0.3, 0.3], steps=(8.0, 6.0)),
            "refuted": held("O1", [0.1, 0.1]) + held("O3", [0.3, 0.3], steps=(8.0, 2.0)),
            "inconclusive": held("O1", [0.1, 0.1]) + held("O3", [0.1, 0.1], steps=(8.0, 6.0)),
        },
    ),
    (
        hypotheses.e1_deeper_is_better,
        {
            "supported": seeds("O1", [0.5, 0.52]) + seeds("E1", [0.9, 0.92]),
            "refuted": seeds("O1", [0.9, 0.92]) + seeds("E1", [0.5, 0.52]),
            "inconclusive": seeds("L1", [0.5, 0.52]) + seeds("E1", [0.9, 0.92]),
        },
    ),
    (
        hypotheses.e2_kl_helps_halting,
        {
            "supported": with_auroc("E1", [0.7, 0.72]) + with_auroc("E2", [0.9, 0.91]),
            "refuted": with_auroc("E1", [0.9, 0.91]) + with_auroc("E2", [0.7, 0.72]),
            "inconclusive": with_auroc("E1", [0.7, 0.92]) + with_auroc("E2", [0.9, 0.91]),
        },
    ),
    (
        hypotheses.e3_lpn_works,
        {
            "supported": seeds("O3", [0.9, 0.92]) + seeds("E3", [0.9, 0.92]),
            "refuted": seeds("O3", [0.9, 0.92]) + seeds("E3", [0.5, 0.52]),
            "inconclusive": seeds("L3", [0.9, 0.92]) + seeds("E3", [0.9, 0.92], like="L"),
        },
    ),
]


@pytest.mark.parametrize("expected", ["supported", "refuted", "inconclusive"])
@pytest.mark.parametrize(("claim", "cases"), CASES, ids=[case[0].__name__ for case in CASES])
def test_a_claim_is(claim: Callable[..., Verdict], cases: dict[str, Runs], expected: str) -> None:
    assert ruled(claim, cases[expected]) == expected


def test_encoders_are_judged_in_their_own_mode_steps_and_exploration() -> None:
    modes: dict[str, dict[str, Any]] = {
        "L1": {"num_act_steps": 4, "stagger": True},
        "L2": {"num_act_steps": 8},
        "O1": {"stagger": True, "arch": {"halt_exploration_prob": 0.5}},
        "O2": {"stagger": True, "arch": {"halt_exploration_prob": 0.3}},
    }
    others = [r for name, mode in modes.items() for r in seeds(name, [0.5, 0.52], config=mode)]
    for name in ("O2", "L2", "L1"):
        e1 = seeds("E1", [0.9, 0.92], like=name[0], config={**modes[name], "stagger": name < "P"})
        figures = by_experiment(others + e1)
        assert reference_of(figures, "E1") == name
        assert f", {name} 0.5" in hypotheses.e1_deeper_is_better(figures).figure
    alone = seeds("E1", [0.9, 0.92], like="L", config={"num_act_steps": 16})
    assert reference_of(by_experiment(others + alone), "E1") is None
    verdict = hypotheses.e1_deeper_is_better(by_experiment(others + alone))
    assert verdict.figure.startswith("no finished run with the shallow encoder has E1's mode")


def test_e2_is_not_judged_by_an_e1_of_another_mode() -> None:
    runs = with_auroc("E1", [0.7, 0.72], like="L") + with_auroc("E2", [0.9, 0.91])
    assert hypotheses.e2_kl_helps_halting(by_experiment(runs)).ruling == "inconclusive"


def test_claims_of_original_mode_are_not_decided_in_another() -> None:
    runs = seeds("L1", [0.5, 0.52]) + with_auroc("E1", [0.7, 0.72], like="L")
    runs += with_auroc("E2", [0.9, 0.91], like="L") + seeds("E3", [0.9, 0.92], like="L")
    found = {verdict.key: verdict for verdict in verdicts(by_experiment(runs))}
    for name in ("E1", "E2", "E3"):
        assert found[name].ruling == "inconclusive"
        assert found[name].claim.endswith("(tried in online mode).")
    for name in ("E1", "E3"):
        assert found[name].figure.endswith(
            "(supported in online mode); original mode was not tried"
        )
    assert "E2 0.905 (0.900 to 0.910), E1 0.710" in found["E2"].figure
    assert "where nothing halts in training" in found["E2"].figure


def stuck(histogram: Sequence[int], **told: Any) -> Verdict:
    arch = {"arch": {"halt_exploration_prob": 0.5}}
    runs = seeds("O1", [0.9, 0.9], histogram=histogram, config=arch, **told)
    return criteria.original_steps_not_stuck(by_experiment(runs))


def test_steps_that_exploration_alone_makes_show_no_learning() -> None:
    found = stuck(AT_ONCE, steps=(1.8, 1.8))
    assert found.ruling == "refuted"
    assert "policy's steps 1.00 (all 2 seeds) of at most 8" in found.figure
    assert "in training 1.80 (all 2 seeds), by exploration alone 1.82" in found.figure
    # A policy that halts every row at the same step knows nothing of them, whichever step it is.
    assert stuck((0, 0, 20, 0, 0, 0, 0, 0)).ruling == "inconclusive"
    assert stuck((0, 0, 0, 0, 0, 0, 0, 20)).ruling == "refuted"
    assert stuck((19, 1, 0, 0, 0, 0, 0, 0)).ruling == "refuted"
    assert stuck((10, 10, 0, 0, 0, 0, 0, 0)).ruling == "supported"


def test_seconds_are_no_compute() -> None:
    slow = seeds("L1", [0.9, 0.92], half_at=20.0, seconds=50.0)
    runs = seeds("O1", [0.9, 0.92]) + slow
    found = expected.online_converges_faster(by_experiment(runs))
    assert found.ruling == "supported"
    assert "10^12 multiply-adds to 75%" in found.figure
    # Where the work is not known neither is the ruling.
    unknown = seeds("O1", [0.9, 0.92]) + seeds("L1", [0.9, 0.92], half_at=20.0, work=None)
    found = expected.online_converges_faster(by_experiment(unknown))
    assert found.ruling == "inconclusive"
    assert "10^12 multiply-adds of L1 are not known" in found.figure


def test_too_few_difficulties_are_counted() -> None:
    claim = expected.fewer_steps_on_easy_tasks
    flat = {"train": evaluation(steps_by_task=[1.0] * 10, first_right=[1.0] * 7 + [2.0, 3.0, 4.0])}
    runs = [run("O1", 0, evaluations=flat), run("L1", 0, evaluations=flat)]
    told = claim(by_experiment(runs)).figure
    assert told == "4 different difficulties among 10 tasks, and 8 are needed"
    alone = claim(by_experiment(runs[:1])).figure
    assert alone == "no record by task of other experiments"
    assert claim(by_experiment(seeds("O1", [0.9]))).figure == "no record by task of O1"


def test_what_holds_by_construction_says_so() -> None:
    assert "nearly by construction" in expected.more_encoder_updates_online({}).rule


def test_generalisation_is_told_at_the_steps_trained_with_too() -> None:
    by_step = [0.1, 0.2, 0.3, 0.4, 0.3, 0.3, 0.3, 0.2]
    some = held("O1", [0.2, 0.21], by_step=by_step) + held("L1", [0.2, 0.21], by_step=by_step)
    told = criteria.online_generalises(by_experiment(some)).figure
    assert "after as many steps as in training: L1 0.400 (all 2 seeds) after 4, O1 0.200" in told
    # Older evaluations did not keep it.
    old = by_experiment(held("O1", [0.2, 0.21]) + held("L1", [0.2, 0.21]))
    assert "as in training" not in criteria.online_generalises(old).figure


def test_every_claim_has_its_three_cases() -> None:
    assert len(CASES) == len(verdicts({}))


def test_without_any_run_everything_is_inconclusive() -> None:
    found = verdicts({})
    assert {verdict.ruling for verdict in found} == {"inconclusive"}
    assert all("did not run" in verdict.figure for verdict in found)
    assert len({verdict.key for verdict in found}) == len(found)


def test_with_one_seed_no_comparison_is_decided() -> None:
    runs = seeds("O1", [0.2]) + seeds("L1", [0.95])
    decided = {
        verdict.key for verdict in verdicts(by_experiment(runs)) if verdict.ruling != "inconclusive"
    }
    # What is fixed by construction needs no second seed, nor do the steps of O1 in every seed.
    assert decided <= {"steps.online", "steps.original"}


def test_failed_seeds_are_told_of() -> None:
    runs = seeds("O1", [0.5, 0.52]) + seeds("L1", [0.9, 0.93]) + [run("L1", 2, status="failed")]
    found = criteria.online_more_accurate(by_experiment(runs))
    assert found.ruling == "supported"
    assert "L1: 2 of 3 seeds" in found.figure


def test_equal_values_differ_by_no_rounding() -> None:
    a = Values("a", (0.05, 0.05, 0.05))
    b = Values("b", (0.05, 0.05))
    assert higher(a, b)[0] == "inconclusive"
    assert higher(b, a)[0] == "inconclusive"
    assert no_worse(a, b)[0] == "supported"


@pytest.mark.parametrize(
    ("a", "b", "ruling"),
    [
        ((0.90, 0.92), (0.89, 0.90), "supported"),
        ((0.90, 0.92), (0.93, 0.95), "supported"),
        # A gap within the margin, but seeds that vary more.
        ((0.86, 0.94), (0.93, 0.95), "inconclusive"),
        ((0.2, 0.9), (0.9, 0.9), "inconclusive"),
        ((0.80, 0.82), (0.90, 0.92), "refuted"),
        ((0.90,), (0.5, 0.6), "inconclusive"),
    ],
)
def test_comparable_is_more_than_not_refuted(
    a: tuple[float, ...], b: tuple[float, ...], ruling: str
) -> None:
    assert no_worse(Values("a", a), Values("b", b))[0] == ruling


def test_a_gap_within_the_spread_decides_nothing() -> None:
    a, b = Values("a", (0.5, 0.9)), Values("b", (0.3, 0.4))
    assert higher(a, b)[0] == "inconclusive"
    assert higher(Values("a", (0.8, 0.9)), b)[0] == "supported"
    assert higher(b, Values("a", (0.8, 0.9)))[0] == "refuted"
