"""The code and the commands of docs/ run, and the guide's table of settings is the schema's."""

import re
import shlex
from pathlib import Path
from typing import Any

import pytest
import torch.distributed as dist

from hrm.models import HRMACTv1, HRMACTv1Config
from tests.conftest import Run

DOCS = Path(__file__).parents[1] / "docs"
GUIDE = DOCS / "guide.md"
SMALL_UNET = ["arch.base_channels=4", "arch.hidden_size=16", "arch.num_heads=2", "max_steps=2"]
SMALL_UNET += ["eval_every_steps=2", "global_batch_size=4", "lr_warmup_steps=0", "plots=false"]
SMALL_MAZES = ["data.prepare.count=12", "data.prepare.size=8"]
SMALL_MAZES += ["+data.prepare.val_count=4", "+data.prepare.test_count=4"]


def run_blocks() -> dict[str, Any]:
    """All blocks in one namespace, as a reader would type them."""
    space: dict[str, Any] = {}
    text = GUIDE.read_text()
    for match in re.finditer(r"```python\n(.*?)```", text, re.DOTALL):
        line = text[: match.start()].count("\n") + 1
        exec(compile("\n" * line + match[1], str(GUIDE), "exec"), space)
    return space


def test_every_block_runs(monkeypatch: pytest.MonkeyPatch) -> None:
    space = run_blocks()
    # `setup` is only defined there: what torchrun would give it stands in for a process group.
    for name, value in {"init_process_group": None, "get_world_size": 2, "get_rank": 1}.items():
        monkeypatch.setattr(dist, name, lambda *_, value=value: value)
    space["DDP"] = lambda model: model
    config = {**space["config"], "puzzle_emb_ndim": 32, "num_puzzle_identifiers": 3}
    model, _, sparse_optimizer, carry = space["setup"](config, 4)
    assert isinstance(model, HRMACTv1)
    assert sparse_optimizer.param_groups[0]["world_size"] == 2
    assert carry.steps.shape == (4,)


def shrunk(command: list[str]) -> list[str]:
    """The same command on images with sizes that take seconds."""
    if command[0] != "train":
        return command
    kept = [word for word in command if not word.startswith(("max_steps=", "eval_every_steps="))]
    mazes = [] if any(word.startswith("data.path=") for word in command) else SMALL_MAZES
    return [*kept, *SMALL_UNET, *mazes]


def test_every_block_about_images_runs(
    hrm: Run, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    text = (DOCS / "act_unet.md").read_text()
    ran = []
    for language, block in re.findall(r"```(\w+)\n(.*?)```", text, re.DOTALL):
        if language == "python":
            exec(compile(block, "act_unet.md", "exec"), {})
            continue
        assert language == "bash"
        for line in block.splitlines():
            name, *words = shlex.split(line)
            assert name == "hrm"
            status, _, error = hrm(*shrunk(words))
            assert status == 0, (line, error)
            ran.append(words[0])
    assert ran == [*["train"] * 4, "evaluate", "prepare", "train", "solve"]
    assert {file.name for file in Path("solved").iterdir()} == {"mask.png", "steps.png"}


def test_every_block_about_arc_runs(
    hrm: Run, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    small = {"--max-eval-groups": "2", "--val-groups": "2", "--eval-augmentations": "1"}
    sizes = ["arch.hidden_size=16", "arch.num_heads=2", "max_steps=2", "eval_count=4", "seed=0"]
    sizes += ["plots=false", "max_train_groups=4"]
    ran = []
    for block in re.findall(r"```bash\n(.*?)```", (DOCS / "arc.md").read_text(), re.DOTALL):
        for line in block.splitlines():
            _, *words = shlex.split(line)
            if words[0] == "prepare":
                words = [small.get(b, w) for b, w in zip(["", *words], words, strict=False)]
            if words[0] == "train":
                words = [*(w for w in words if not w.startswith("max_steps=")), *sizes]
            status, _, error = hrm(*words)
            assert status == 0, (line, error)
            ran.append(words[0])
    assert ran == ["prepare", "train", "evaluate", "evaluate", "solve"]
    assert Path("submission.json").is_file()
    assert list(Path("solved").iterdir())


def test_no_other_document_has_blocks_that_are_not_run() -> None:
    run_here = {"guide.md", "act_unet.md", "arc.md"}
    assert not [
        file.name
        for file in DOCS.glob("*.md")
        if file.name not in run_here and "```" in file.read_text()
    ]


def test_the_table_has_every_setting_with_its_default() -> None:
    rows = re.findall(r"^\| `(\w+)` \| (.+?) \|.*\|.*\| .+ \|$", GUIDE.read_text(), re.MULTILINE)
    documented = {name: default.strip("`") for name, default in rows}
    expected = {}
    for name, field in HRMACTv1Config.model_fields.items():
        default = field.default
        text = f'"{default}"' if isinstance(default, str) else str(default)
        expected[name] = "required" if field.is_required() else text
    assert documented == expected
