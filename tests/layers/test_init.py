"""Truncated-normal initialisation."""

import pytest
import torch

from hrm.layers import trunc_normal_init_


@pytest.mark.parametrize("std", [1.0, 0.05])
def test_standard_deviation_is_what_was_asked_for(std: float) -> None:
    x = trunc_normal_init_(torch.empty(400, 500), std)
    assert x.std() == pytest.approx(std, rel=0.005)
    assert x.mean() == pytest.approx(0, abs=0.01 * std)
    # Cut at two deviations of the uncut normal, whose deviation is std / 0.8796.
    assert x.abs().max() == pytest.approx(2 * std / 0.87962566, rel=1e-3)


def test_zero_deviation_gives_zeros() -> None:
    assert not trunc_normal_init_(torch.ones(3), 0.0).any()
