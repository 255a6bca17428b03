"""Pictures of ACT's two losses for docs/act.md: what each pulls towards, and what the case at the
last step is for.

    python benchmarks/act_pictures.py

Writes docs/act_targets.png.
"""

from __future__ import annotations

from pathlib import Path

import matplotlib

matplotlib.use("Agg")
import matplotlib.pyplot as plt
import torch

from hrm.halting import act_continue, act_halt, continue_target

OUT = Path(__file__).parent.parent / "docs" / "act_targets.png"
BLUE, ORANGE, GREY = "#1f6fb4", "#d9730d", "#777777"


def halting(axes: plt.Axes) -> None:
    q = torch.linspace(-6, 6, 121)
    for right, color, name in ((True, BLUE, "answer right"), (False, ORANGE, "answer wrong")):
        axes.plot(q, act_halt(q, torch.full((121,), right)), color=color, label=name)
    axes.set(xlabel="q_halt (logit)", ylabel="act_halt", title="Halting: am I right?", ylim=(0, 3))
    axes.legend(frameon=False)


def going_on(axes: plt.Axes) -> None:
    next_halt, next_continue = torch.linspace(-6, 6, 121), torch.zeros(121)
    for last, color, name in ((False, BLUE, "before the last step"), (True, ORANGE, "last step")):
        target = continue_target(next_halt, next_continue, torch.full((121,), last))
        axes.plot(next_halt, target, color=color, label=name, linestyle="--" if last else "-")
    axes.annotate("best of both", (-4.5, 0.53), color=BLUE)
    axes.annotate("halting alone", (-1.0, 0.15), color=ORANGE)
    axes.set(
        xlabel="next q_halt (next q_continue = 0)",
        ylabel="target of q_continue",
        title="Going on: what can I still get?",
        ylim=(0, 1),
    )
    axes.legend(frameon=False, loc="upper left")


def drift(axes: plt.Axes) -> None:
    """The value of going on from the last of three steps, where 0.3 is true, learned by table."""
    rates = torch.tensor([0.2, 0.6, 0.3, 0.3])
    for last_case, color, name in ((True, ORANGE, "with"), (False, GREY, "without")):
        for start in (3.0, -1.0):
            torch.manual_seed(0)
            q_halt = torch.zeros(4, requires_grad=True)
            q_go = torch.full((4,), start, requires_grad=True)
            optimizer = torch.optim.SGD([q_halt, q_go], lr=1.0)
            is_last, seen = torch.tensor([False, False, last_case]), []
            for _ in range(800):
                right = torch.rand(64, 4) < rates
                shaken = q_go[1:] + torch.randn(3)  # as values differ from state to state
                loss = act_halt(q_halt.repeat(64), right.flatten()).sum() / 64
                loss = (
                    loss
                    + act_continue(q_go[:3], continue_target(q_halt[1:], shaken, is_last)).sum()
                )
                loss = loss + act_continue(q_go[3:], q_go[2:3].sigmoid()).sum()
                optimizer.zero_grad()
                loss.backward()
                optimizer.step()
                seen.append(float(q_go[2].detach().sigmoid()))
            axes.plot(seen, color=color, label=f"{name} the case" if start == 3.0 else None)
    axes.axhline(0.3, color="black", linewidth=0.8, linestyle=":")
    axes.annotate("true value", (520, 0.24), fontsize=9)
    axes.set(
        xlabel="updates", ylabel="value of going on", title="The case at the last step", ylim=(0, 1)
    )
    axes.legend(frameon=False)


def main() -> None:
    figure, panels = plt.subplots(1, 3, figsize=(12.5, 3.6), constrained_layout=True)
    for draw, axes in zip((halting, going_on, drift), panels, strict=True):
        draw(axes)
        axes.spines[["top", "right"]].set_visible(False)
    figure.savefig(OUT, dpi=110)


if __name__ == "__main__":
    main()
