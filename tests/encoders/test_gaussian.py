"""The Gaussian latent: divergence by hand, draws that can be repeated, the mean at evaluation."""

import math

import pytest
import torch
from torch import nn

from hrm.encoders.gaussian import LOG_VAR_LIMIT, Gaussian, divergence
from hrm.rng import fork, slot_states
from tests.encoders.helpers import TOKENS, WIDTH, demonstrations, small_encoder

VARIATIONAL = ["hybrid_variational", "lpn_variational"]


def test_the_divergence_by_hand() -> None:
    mean = torch.tensor([[0.0, 0.0], [2.0, -1.0], [0.0, 0.0]])
    log_var = torch.tensor([[0.0, 0.0], [0.0, 0.0], [math.log(4.0), math.log(0.25)]])
    # (m^2 + s^2 - 1 - log s^2) / 2 of each, summed: the last is (3 - log 4 + log 4 - 0.75) / 2.
    torch.testing.assert_close(divergence(mean, log_var), torch.tensor([0.0, 2.5, 1.125]))


def test_the_divergence_is_that_of_torch() -> None:
    mean, log_var = torch.randn(2, 5, 7).unbind()
    theirs = torch.distributions.kl_divergence(
        torch.distributions.Normal(mean, (0.5 * log_var).exp()),
        torch.distributions.Normal(0.0, 1.0),
    )
    torch.testing.assert_close(divergence(mean, log_var), theirs.sum(-1))


def constant(mean: float, log_var: float) -> Gaussian:
    gaussian = Gaussian(2, 3)
    for layer, value in ((gaussian.mean, mean), (gaussian.log_var, log_var)):
        nn.init.zeros_(layer.weight)
        assert layer.bias is not None
        nn.init.constant_(layer.bias, value)
    return gaussian


def test_a_sample_is_the_mean_and_the_deviation_times_the_noise() -> None:
    gaussian, x = constant(1.5, math.log(4.0)), torch.ones(1, 2)
    noise = torch.tensor([[0.0, 1.0, -2.0]])
    assert gaussian(x, noise)[0].tolist() == [[1.5, 3.5, -2.5]]
    assert gaussian(x, None)[0].tolist() == [[1.5, 1.5, 1.5]]


@pytest.mark.parametrize("sign", [-1, 1])
def test_the_log_variance_is_clamped(sign: int) -> None:
    wild, limit = constant(0.0, sign * 1000.0), constant(0.0, sign * LOG_VAR_LIMIT)
    x, noise = torch.ones(1, 2), torch.ones(1, 3)
    for got, expected in zip(wild(x, noise), limit(x, noise), strict=True):
        assert torch.equal(got, expected)
        assert torch.isfinite(got).all()


@pytest.mark.parametrize("kind", VARIATIONAL)
def test_draws_are_the_keys_alone_and_the_mean_at_evaluation(kind: str) -> None:
    encoder, given = small_encoder(kind), demonstrations()
    keys, _ = fork(slot_states(0, 3))
    first, again = encoder(*given, keys).context, encoder(*given, keys).context
    assert torch.equal(first, again)
    others, _ = fork(slot_states(1, 3))
    assert not torch.equal(encoder(*given, others).context, first)
    # A slot draws the same beside others.
    alone = encoder(*(t[1:2] for t in given), keys[1:2]).context
    torch.testing.assert_close(alone, first[1:2])
    torch.manual_seed(0)
    drawn = encoder(*given).context
    assert not torch.equal(drawn, encoder(*given).context)
    encoder.eval()
    assert torch.equal(encoder(*given, keys).context, encoder(*given).context)


@pytest.mark.parametrize("kind", VARIATIONAL)
def test_the_divergence_is_summed_over_the_latent_and_averaged_over_demonstrations(
    kind: str,
) -> None:
    """By hand: with a mean of 1 and a variance of 1 everywhere each number costs half a nat."""
    encoder = small_encoder(kind, latent_dim=6)
    for layer, value in ((encoder.gaussian.mean, 1.0), (encoder.gaussian.log_var, 0.0)):
        nn.init.zeros_(layer.weight)
        nn.init.constant_(layer.bias, value)
    _, kl = encoder(*demonstrations())
    assert kl is not None
    dimensions = 6 * TOKENS if kind == "hybrid_variational" else 6
    assert kl.tolist() == [0.5 * dimensions] * 3


@pytest.mark.parametrize("kind", VARIATIONAL)
def test_gradient_reaches_the_encoder_through_the_sample(kind: str) -> None:
    encoder = small_encoder(kind)
    context, _ = encoder(*demonstrations(), torch.arange(3))
    (context * torch.randn(TOKENS, WIDTH)).sum().backward()
    for layer in (encoder.gaussian.mean, encoder.gaussian.log_var):
        assert layer.weight.grad is not None
        assert layer.weight.grad.any()
