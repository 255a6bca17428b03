"""Every command and Python block of the README runs, at a small size."""

import re
import shlex
from pathlib import Path

import numpy as np
import pytest

from hrm.cli import main

README = (Path(__file__).parent.parent / "README.md").read_text()
SMALL_TRAIN = ["max_steps=3", "eval_every_steps=2", "lr_warmup_steps=0", "eval_batch_size=16"]
SMALL_TRAIN += ["arch.hidden_size=16", "arch.num_heads=2", "global_batch_size=8"]
SMALL_DATA = ["+data.prepare.val_count=4", "+data.prepare.test_count=4", "data.prepare.count=20"]
CSV = "source,question,answer,rating\n"


def blocks(language: str) -> list[str]:
    return re.findall(rf"```{language}\n(.*?)```", README, re.DOTALL)


def commands() -> list[list[str]]:
    lines = [line for block in blocks("bash") for line in block.splitlines()]
    return [shlex.split(line)[1:] for line in lines if line.startswith("hrm ")]


def shrunk(command: list[str]) -> list[str]:
    """The same command with sizes that take seconds."""
    if command[0] == "train":
        command = [c for c in command if not c.startswith(("max_steps", "eval_every_steps"))]
        prepares = not any("data.path" in c or "extreme" in c for c in command)
        plots = [] if "out=runs/six" in command else ["plots=false"]  # Pictures take long.
        return [*command, *SMALL_TRAIN, *plots, *(SMALL_DATA if prepares else [])]
    if command[0] == "prepare":
        small = {"--count": "8", "--subsample": "8", "--augmentations": "3"}
        kept = [small.get(before, c) for before, c in zip(["", *command], command, strict=False)]
        return [*kept, "--val-count", "3", "--test-count", "3"]
    return command


def test_every_command_of_the_readme_runs(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    import gzip

    from hrm.data.sudoku import SHAPES, generate, to_text

    puzzles, solutions = generate(SHAPES[9], np.arange(24), seed=0, blanks=(45, 45))
    rows = [f"made,{to_text(p)},{to_text(s)},0\n" for p, s in zip(puzzles, solutions, strict=True)]
    monkeypatch.chdir(tmp_path)
    with gzip.open("puzzles.csv.gz", "wt") as file:
        file.write(CSV + "".join(rows))
    given = commands()
    assert len(given) >= 9
    for command in given:
        assert main(shrunk(command)) == 0, (command, capsys.readouterr().err)
    assert (tmp_path / "runs/hrm/metrics.jsonl").is_file()


@pytest.mark.parametrize("block", blocks("python"))
def test_every_python_block_of_the_readme_runs(block: str) -> None:
    exec(compile(block, "README.md", "exec"), {})


def test_the_make_targets_exist() -> None:
    makefile = (Path(__file__).parent.parent / "Makefile").read_text()
    named = re.findall(r"^make (\w+)", README, re.MULTILINE)
    assert named
    assert all(f"\n{name}:" in makefile for name in named)


def test_every_link_and_file_of_the_readme_is_there() -> None:
    root = Path(__file__).parent.parent
    for link in re.findall(r"\]\(([^)]+)\)", README):
        assert (root / link).exists(), link
