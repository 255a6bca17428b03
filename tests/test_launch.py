"""Of several processes the first one speaks, and another only of what happened to itself."""

import sys
import warnings

import pytest

from hrm import launch
from hrm.cli import guarded
from hrm.errors import UserError

TOLD = ("RANK", "WORLD_SIZE", "MASTER_ADDR", "LOCAL_RANK", "LOCAL_WORLD_SIZE")


@pytest.fixture
def become(monkeypatch: pytest.MonkeyPatch):  # type: ignore[no-untyped-def]
    """`become(RANK=1, ...)`: a process to which a launcher told that, and nothing else."""

    def tell(**told: int | str) -> None:
        for name in TOLD:
            monkeypatch.delenv(name, raising=False)
        for name, value in told.items():
            monkeypatch.setenv(name, str(value))

    return tell


def here() -> tuple[int, int, int, int]:
    return launch.rank(), launch.count(), launch.local_rank(), launch.local_count()


def test_only_what_torchrun_has_started_is_one_of_several(become) -> None:  # type: ignore[no-untyped-def]
    become()
    assert here() == (0, 1, 0, 1)
    become(WORLD_SIZE=2)  # As a batch system may say to a single process.
    assert here() == (0, 1, 0, 1)
    become(RANK=3, WORLD_SIZE=4, MASTER_ADDR="a", LOCAL_RANK=1, LOCAL_WORLD_SIZE=2)
    assert here() == (3, 4, 1, 2)


def speak(_: list[str]) -> int:
    print("figures")
    warnings.warn_explicit("odd", UserWarning, "hrm/x.py", 1, module="hrm.x")
    print("done", file=sys.stderr)
    return 0


def fail(_: list[str]) -> int:
    raise UserError("data.path: is not here")


def test_the_first_one_speaks_and_another_only_of_its_own_fault(
    become,  # type: ignore[no-untyped-def]
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    waited: list[float] = []
    monkeypatch.setattr(launch.time, "sleep", waited.append)
    statuses = []
    for rank in (0, 1):
        become(RANK=rank, WORLD_SIZE=2, MASTER_ADDR="a")
        statuses += [guarded(speak, []), guarded(fail, []), guarded(lambda _: 1, [])]
    assert statuses == [0, 2, 1] * 2
    out, err = capsys.readouterr()
    assert out == "figures\n"
    assert err.splitlines() == [
        "hrm: warning: odd",
        "done",
        "hrm: data.path: is not here",
        "hrm: process 1: data.path: is not here",
    ]
    # torchrun ends it meanwhile, where the first one failed alike.
    assert waited == [launch.GRACE_S] * 2
