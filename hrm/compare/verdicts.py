"""What the figures say of the document's criteria, hypotheses and expected differences.

Every rule is a pure function of figures over seeds. The rules that all of them share:

- A figure of a run is its mean over the last tenth of its updates, unless it says otherwise.
- Of two experiments one is higher if the gap between their means exceeds the spread of their seeds:
  the largest value less the smallest, of whichever has more of it. With one finished seed on either
  side the spread is unknown and the ruling is inconclusive; a failed seed is not a value.
- `supported`: the figure shows what was claimed. `refuted`: it shows the contrary, by the same
  margin. `inconclusive`: anything else, and every case in which a figure is missing.
- The modes are compared by O1 and L1, which have the same settings but for the mode.

`Verdict.rule` is each claim's own rule in words; the report prints it beside the ruling.
"""

from __future__ import annotations

from hrm.compare import criteria, expected, hypotheses
from hrm.compare.comparing import Figures
from hrm.compare.verdict import Verdict


def verdicts(figures: Figures) -> list[Verdict]:
    """All claims, in the document's order; what did not run is missing in `figures`."""
    return [
        criteria.original_knows_when_it_is_right(figures),
        criteria.original_steps_not_stuck(figures),
        criteria.original_comparable(figures),
        criteria.online_fewer_epochs(figures),
        criteria.online_more_accurate(figures),
        criteria.online_generalises(figures),
        expected.steps_vary_in_original(figures),
        expected.steps_fixed_in_online(figures),
        expected.q_halt_improves(figures),
        expected.fewer_steps_on_easy_tasks(figures),
        expected.more_encoder_updates_online(figures),
        expected.online_converges_faster(figures),
        hypotheses.o1_works(figures),
        hypotheses.o2_halts_better(figures),
        hypotheses.o3_generalises_better(figures),
        hypotheses.e1_deeper_is_better(figures),
        hypotheses.e2_kl_helps_halting(figures),
        hypotheses.e3_lpn_works(figures),
    ]
