"""Two processes under DDP equal one process on the whole batch."""

import os
import subprocess
import sys
from pathlib import Path

import pytest
import torch

from tests.models.ddp_worker import main

ROOT = Path(__file__).parents[2]


@pytest.mark.slow
def test_two_processes_equal_one(tmp_path: Path) -> None:
    environment = {**os.environ, "OMP_NUM_THREADS": "1", "PYTHONPATH": str(ROOT)}
    environment.pop("WORLD_SIZE", None)
    command = [sys.executable, "-m", "torch.distributed.run", "--standalone"]
    command += ["--nproc-per-node", "2", "-m", "tests.models.ddp_worker", str(tmp_path / "two.pt")]
    done = subprocess.run(
        command, cwd=ROOT, env=environment, capture_output=True, text=True, check=False
    )
    assert done.returncode == 0, done.stderr[-3000:]
    main(str(tmp_path / "one.pt"))
    one, two = (torch.load(tmp_path / f"{n}.pt", weights_only=True) for n in ("one", "two"))

    # Local rows stay local: each process kept the identifiers of its own slots.
    assert torch.equal(one["ids_and_steps"], two["ids_and_steps"])
    ids, steps = one["ids_and_steps"]
    assert any(len(row.unique()) > 1 for row in steps)  # slots did not march in step
    touched = one["state"]["inner.puzzle_emb.weights"].any(1)
    assert touched.tolist() == [row in ids for row in range(6)]
    assert not touched[0]
    assert touched.sum() > 3
    assert one["state"].keys() == two["state"].keys()
    for name, weight in one["state"].items():
        torch.testing.assert_close(two["state"][name], weight, atol=1e-6, rtol=1e-4, msg=name)
