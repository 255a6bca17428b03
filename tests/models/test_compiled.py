"""Compiled layers are the same layers. In a process of its own: types are not checked there."""

import json
import shutil
import subprocess
import sys

import pytest


@pytest.mark.slow
@pytest.mark.skipif(shutil.which("g++") is None, reason="no C++ compiler")
def test_compiled_layers_give_the_same_step_and_gradients() -> None:
    command = [sys.executable, "-m", "tests.models.compiled_worker"]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    found = json.loads(done.stdout)
    assert found["deviation"] < 1e-4
    # With and without gradient; one compilation serves all layers of both levels.
    assert found["graphs"] == 2
