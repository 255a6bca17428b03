"""docs/guide.md: its code runs, and its table of settings is that of the schema."""

import re
from pathlib import Path
from typing import Any

import pytest
import torch.distributed as dist

from hrm.models import HRMACTv1, HRMACTv1Config

GUIDE = Path(__file__).parents[1] / "docs" / "guide.md"


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


def test_the_table_has_every_setting_with_its_default() -> None:
    rows = re.findall(r"^\| `(\w+)` \| (.+?) \|.*\|.*\| .+ \|$", GUIDE.read_text(), re.MULTILINE)
    documented = {name: default.strip("`") for name, default in rows}
    expected = {}
    for name, field in HRMACTv1Config.model_fields.items():
        default = field.default
        text = f'"{default}"' if isinstance(default, str) else str(default)
        expected[name] = "required" if field.is_required() else text
    assert documented == expected
