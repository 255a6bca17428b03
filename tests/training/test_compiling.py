"""When layers are compiled: only where it can pay, and the same way when a run is resumed."""

from collections.abc import Callable
from typing import Any

import pytest

from hrm.commands.train import make_trainer
from hrm.config import ExperimentConfig
from hrm.models.base import TokenModel
from hrm.training import compiling, trainer
from tests.models.helpers import small_batch, small_hrm

Config = Callable[..., ExperimentConfig]


def no_measurement(*_: Any) -> Any:
    raise AssertionError("measured")


def test_short_runs_on_a_cpu_are_not_even_measured(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(compiling, "_Timed", no_measurement)
    assert not compiling.decide_compile(small_hrm(), small_batch(), "softmax", 999, 1e9)


class Fake:
    """A model that takes the seconds that it is given."""

    plain, compiled = 1.0, 1.0

    def __init__(self, *_: Any) -> None:
        self.model, self.is_compiled = self, False

    def compile_layers(self) -> None:
        self.is_compiled = True

    def __call__(self) -> None:
        pass

    def seconds(self, times: int) -> float:
        return self.compiled if self.is_compiled else self.plain


@pytest.mark.parametrize(
    ("plain", "compiled", "seconds", "pays"),
    [
        (1.0, 0.5, 1e9, True),
        (1.0, 0.95, 1e9, False),
        (1.0, 0.5, 599, False),
        (0.1, 0.05, 1e9, False),
    ],
)
def test_long_runs_are_compiled_where_it_is_faster(
    plain: float, compiled: float, seconds: float, pays: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(Fake, "plain", plain)
    monkeypatch.setattr(Fake, "compiled", compiled)
    monkeypatch.setattr(compiling, "_Timed", Fake)
    found = compiling.decide_compile(small_hrm(), small_batch(), "softmax", 1000, seconds)
    assert found is pays


def test_no_compiler_is_a_warning_and_not_the_end(monkeypatch: pytest.MonkeyPatch) -> None:
    class Broken(Fake):
        def __call__(self) -> None:
            if self.is_compiled:
                raise RuntimeError("no compiler")

    monkeypatch.setattr(compiling, "_Timed", Broken)
    with pytest.warns(UserWarning, match=r"compile=auto: not used \(RuntimeError\)"):
        assert not compiling.decide_compile(small_hrm(), small_batch(), "softmax", 1000, 1e9)


def test_a_resumed_run_keeps_the_decision(small: Config, monkeypatch: pytest.MonkeyPatch) -> None:
    taken: list[bool] = []
    monkeypatch.setattr(
        TokenModel, "compile_layers", lambda _, compiled=True: taken.append(compiled)
    )
    monkeypatch.setattr(trainer, "compiles", lambda *_: True)
    make_trainer(small("a", "max_steps=4")).run()
    monkeypatch.setattr(trainer, "compiles", no_measurement)
    make_trainer(small("a", "max_steps=8", "resume=true")).run()
    assert taken == [True, True]
