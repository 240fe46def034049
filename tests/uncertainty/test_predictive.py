"""Predictive distributions against their formulas, NumPy, and torch.distributions."""

from __future__ import annotations

import math
from typing import Any

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from torch import Tensor

from fdnn import random, uncertainty
from fdnn.uncertainty import categorical, gaussian, model_precision, predictive_log_likelihood

DOUBLE = {"rtol": 1e-12, "atol": 1e-12}


def draw(*shape: int, seed: int = 0, dtype: torch.dtype = torch.float64) -> Tensor:
    return 3 * random.normal(random.key(seed), shape, dtype)


sizes = st.integers(2, 5)


@given(samples=sizes, batch=st.integers(1, 4), classes=sizes, seed=st.integers(0, 99))
def test_categorical_is_its_formulas(samples: int, batch: int, classes: int, seed: int) -> None:
    logits = draw(samples, batch, classes, seed=seed)
    raw = logits.numpy()
    powers = np.exp(raw - raw.max(-1, keepdims=True))
    probs = powers / powers.sum(-1, keepdims=True)
    found = categorical(logits)
    np.testing.assert_allclose(found.probs, probs.mean(0), **DOUBLE)
    np.testing.assert_allclose(found.std, probs.std(0, ddof=1), rtol=1e-9, atol=1e-12)
    entropy = -(probs * np.log(probs)).sum(-1).mean(0)
    np.testing.assert_allclose(found.expected_entropy, entropy, rtol=1e-10, atol=1e-12)
    geometric = np.exp(np.log(probs).mean(0))
    other = categorical(logits, "logits")
    np.testing.assert_allclose(
        other.probs, geometric / geometric.sum(-1, keepdims=True), rtol=1e-10, atol=1e-12
    )
    assert torch.equal(other.std, found.std)


def test_categorical_has_what_the_scores_of_its_members_have() -> None:
    logits = draw(7, 4, 3)
    found, members = categorical(logits), logits.softmax(-1)
    torch.testing.assert_close(found.std, uncertainty.predictive_std(members), **DOUBLE)
    information = uncertainty.predictive_entropy(found.probs) - found.expected_entropy
    torch.testing.assert_close(information, uncertainty.mutual_information(members), **DOUBLE)


@given(samples=st.integers(1, 6), out=st.lists(st.integers(1, 3), max_size=2))
def test_gaussian_is_the_mixtures_moments(samples: int, out: list[int]) -> None:
    """As torch.distributions has them, of Gaussians of one precision."""
    means, tau = draw(samples, 4, *out), 0.7
    found = gaussian(means, tau)
    components = torch.distributions.Normal(means.movedim(0, -1), tau**-0.5)
    weights = torch.distributions.Categorical(torch.ones(*means.shape[1:], samples).double())
    mixture = torch.distributions.MixtureSameFamily(weights, components)
    torch.testing.assert_close(found.mean, mixture.mean, **DOUBLE)
    torch.testing.assert_close(found.variance, mixture.variance, **DOUBLE)
    torch.testing.assert_close(
        found.variance - gaussian(means).variance, torch.full_like(found.mean, 1 / tau), **DOUBLE
    )


@given(samples=st.integers(1, 6), out=st.lists(st.integers(1, 3), max_size=2))
def test_log_likelihood_is_the_mixtures(samples: int, out: list[int]) -> None:
    means, y, tau = draw(samples, 4, *out), draw(4, *out, seed=1), 0.7
    log_probs = torch.distributions.Normal(means, tau**-0.5).log_prob(y).reshape(samples, 4, -1)
    expected = log_probs.sum(-1).logsumexp(0) - math.log(samples)
    found = predictive_log_likelihood(means, y, tau)
    torch.testing.assert_close(found, expected, **DOUBLE)


def test_log_likelihood_is_finite_far_away() -> None:
    """A density of exp(-5e5) has a logarithm."""
    found = predictive_log_likelihood(torch.zeros(3, 1), torch.tensor([1000.0]), 1.0)
    torch.testing.assert_close(found, torch.tensor([-5e5 - 0.5 * math.log(2 * math.pi)]))


def test_log_likelihood_of_a_precision_for_each_output() -> None:
    means, y, tau = draw(5, 4, 2), draw(4, 2, seed=1), torch.tensor([0.5, 2.0]).double()
    joint = torch.distributions.Independent(torch.distributions.Normal(means, tau**-0.5), 1)
    expected = joint.log_prob(y).logsumexp(0) - math.log(5)
    torch.testing.assert_close(predictive_log_likelihood(means, y, tau), expected, **DOUBLE)


def test_precision_inverts_the_published_penalty() -> None:
    """`reg = lengthscale**2 * (1 - p) / (2 * N * tau)`, of the published experiments."""
    p, length_scale, n, tau = 0.05, 1e-2, 455, 0.15
    reg = length_scale**2 * (1 - p) / (2 * n * tau)
    assert model_precision(p, length_scale, reg, n) == pytest.approx(tau, rel=1e-12)


def test_precision_is_that_of_ridge_regression() -> None:
    """Without dropout: the prior precision of a weight, 2 N lambda tau = l**2, is Bayes' own.

    The minimizer of the objective is the mean of the posterior under the noise 1 / tau and the
    prior N(0, 1 / l**2) of the weights.
    """
    x, y, length_scale, decay = draw(9, 3), draw(9, 1, seed=1), 1.5, 0.3
    tau = model_precision(0.0, length_scale, decay, len(x))
    eye = torch.eye(3).double()
    minimizer = torch.linalg.solve(x.T @ x / len(x) + 2 * decay * eye, x.T @ y / len(x))
    posterior = torch.linalg.solve(tau * x.T @ x + length_scale**2 * eye, tau * x.T @ y)
    torch.testing.assert_close(minimizer, posterior, **DOUBLE)


def test_extreme_logits_have_finite_derivatives() -> None:
    def total(logits: Tensor) -> Tensor:
        found = categorical(logits)
        return found.expected_entropy.sum() + found.probs[..., 0].sum()

    grads = torch.func.grad(total)(torch.tensor([[[500.0, -500.0]], [[0.0, 1.0]]]))
    assert grads.isfinite().all()


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16, torch.float32, torch.float64])
def test_half_precision_is_raised(dtype: torch.dtype) -> None:
    outputs = draw(5, 4, 3).to(dtype)
    wanted = torch.promote_types(dtype, torch.float32)
    found = (*categorical(outputs), *gaussian(outputs, 1.0))
    assert {part.dtype for part in found} == {wanted}
    likelihood = predictive_log_likelihood(outputs, outputs[0], 1.0)
    assert likelihood.dtype == wanted


@pytest.mark.parametrize(
    ("call", "said"),
    [
        (lambda: categorical(torch.ones(2, 3, 2), "modes"), "`average` must be .* got 'modes'"),
        (lambda: categorical(torch.ones(2, 3, 1)), r"two classes at least, got \(2, 3, 1\)"),
        (lambda: categorical(torch.ones(2)), r"two classes at least, got \(2,\)"),
        (lambda: gaussian(torch.tensor(1.0)), "`outputs` must have a dimension of samples"),
        (lambda: gaussian(torch.ones(2, 1), 0.0), "`tau` must be positive, got 0.0"),
        (
            lambda: predictive_log_likelihood(torch.ones(2, 3, 1), torch.ones(3), 1.0),
            r"expected \(3, 1\), got \(3,\)",
        ),
        (
            lambda: predictive_log_likelihood(torch.ones(2, 3), torch.ones(3), -1.0),
            "`tau` must be positive, got -1.0",
        ),
        (lambda: model_precision(1.0, 1.0, 1.0, 1), r"`p` must be in \[0, 1\), got 1.0"),
        (lambda: model_precision(0.1, 0.0, 1.0, 1), "`length_scale` must be positive, got 0.0"),
        (lambda: model_precision(0.1, 1.0, -1.0, 1), "`weight_decay` must be positive, got -1.0"),
        (lambda: model_precision(0.1, 1.0, 1.0, 0), "`num_examples` must be positive, got 0"),
    ],
)
def test_errors_name_the_argument(call: Any, said: str) -> None:
    with pytest.raises(ValueError, match=said):
        call()
