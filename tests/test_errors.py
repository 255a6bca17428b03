"""What is said about bad input: one sentence, from whatever a validation found first."""

from typing import Any

import pytest
from pydantic import BaseModel, ConfigDict, Field, ValidationError, model_validator

from hrm.errors import nearest, sentence


class Inner(BaseModel):
    model_config = ConfigDict(extra="forbid")
    low: int = Field(ge=1)
    high: int = 9

    @model_validator(mode="after")
    def _check(self) -> "Inner":
        if self.low > self.high:
            raise ValueError(f"low: got {self.low}, but high is {self.high}")
        return self


class Outer(BaseModel):
    inner: Inner
    rates: list[float] = []


@pytest.mark.parametrize(
    ("values", "expected"),
    [
        ({"inner": {"low": 0}}, "inner.low: got 0, but input should be greater than or equal to 1"),
        ({"inner": {"low": 10}}, "inner.low: got 10, but high is 9"),
        ({"inner": {"high": 3}}, "inner.low: is missing"),
        ({}, "inner: is missing"),
        ({"inner": {"low": 1, "lo": 2}}, "inner.lo: unknown key (inner.lo)"),
        ({"inner": {"low": 1}, "rates": [1, "x"]}, "rates.1: got 'x', but input should be a valid"),
        ([], "the whole: got [], but input should be a valid dictionary"),
    ],
)
def test_the_first_fault_names_its_key(values: Any, expected: str) -> None:
    with pytest.raises(ValidationError) as caught:
        Outer.model_validate(values)
    assert sentence(caught.value, hint=lambda where: f" ({where})").startswith(expected)
    if isinstance(values, dict):
        assert sentence(caught.value, "arch").startswith(f"arch.{expected.partition(' (')[0]}")


def test_a_word_most_like_it_is_offered() -> None:
    assert nearest("halt_max_step", ["halting", "halt_max_steps"]) == (
        "; did you mean 'halt_max_steps'?"
    )
    assert nearest("zzz", ["halting"]) == ""
