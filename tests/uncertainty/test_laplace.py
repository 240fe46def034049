"""Laplace's approximation: exact where the model is linear, and equal to Hessians elsewhere."""

from __future__ import annotations

import math
from typing import Any

import pytest
import torch
import torch.nn.functional as F
from asserts import assert_close
from hypothesis import given
from hypothesis import strategies as st
from torch import Tensor, nn, vmap

from fdnn import functionalize, random, tree
from fdnn.uncertainty import (
    LaplaceFit,
    LaplacePosterior,
    center_logits,
    laplace_fit,
    laplace_posterior,
    laplace_predictive,
    laplace_sample,
    linearized_ensemble,
    log_marginal_likelihood,
    maximize_marginal_likelihood,
    probit,
)

DRAWS = 20_000
NET = functionalize(nn.Sequential(nn.Linear(3, 4), nn.Tanh(), nn.Linear(4, 3)).double())
PARAMS, _ = NET.init(random.key(0))
X = random.normal(random.key(1), (14, 3), torch.float64)
LABELS = torch.arange(14) % 3
DATA = X, LABELS


def fitted(**options: Any) -> LaplaceFit:
    return laplace_fit(NET, PARAMS, {}, DATA, **options)


# --- Bayesian linear regression, where everything is known -----------------------------------

DELTA, SIGMA = 0.8, 0.5
LINEAR = functionalize(nn.Linear(3, 1).double())
TARGETS = X @ torch.tensor([[1.0], [-2.0], [0.5]], dtype=torch.float64) + 0.3
TARGETS = TARGETS + SIGMA * random.normal(random.key(2), (14, 1), torch.float64)
PHI = torch.cat([torch.ones(14, 1, dtype=torch.float64), X], 1)  # bias first, as `ravel` has it
PRECISION = PHI.mT @ PHI / SIGMA**2 + DELTA * torch.eye(4, dtype=torch.float64)
RIDGE = torch.linalg.solve(PRECISION, PHI.mT @ TARGETS / SIGMA**2).flatten()


def ridge() -> LaplaceFit:
    params = {"bias": RIDGE[:1], "weight": RIDGE[1:].reshape(1, 3)}
    return laplace_fit(LINEAR, params, {}, (X, TARGETS), likelihood="regression", batch_size=5)


def test_linear_regression_posterior_is_exact() -> None:
    posterior = laplace_posterior(ridge(), DELTA, SIGMA)
    torch.testing.assert_close(posterior.scale @ posterior.scale.mT, PRECISION.inverse())
    new = random.normal(random.key(3), (5, 3), torch.float64)
    mean, covariance = laplace_predictive(LINEAR, {}, {}, posterior, new)
    phi = torch.cat([torch.ones(5, 1, dtype=torch.float64), new], 1)
    torch.testing.assert_close(mean.flatten(), phi @ RIDGE)
    variances = torch.einsum("np,pq,nq->n", phi, PRECISION.inverse(), phi)
    torch.testing.assert_close(covariance.flatten(), variances)


def test_linear_regression_evidence_is_exact() -> None:
    found = log_marginal_likelihood(ridge(), DELTA, SIGMA)
    covariance = SIGMA**2 * torch.eye(14, dtype=torch.float64) + PHI @ PHI.mT / DELTA
    law = torch.distributions.MultivariateNormal(covariance.new_zeros(14), covariance)
    torch.testing.assert_close(found, law.log_prob(TARGETS.flatten()))


# --- Curvature --------------------------------------------------------------------------------


def loss_of(names: str) -> tuple[Any, Tensor]:
    """The summed cross entropy as a function of the vector of some parameters."""
    chosen = tree.select(PARAMS, names)
    start, unravel = tree.ravel(chosen)

    def loss(values: Tensor) -> Tensor:
        output = NET.apply({**PARAMS, **unravel(values)}, {}, X)[0]
        return F.cross_entropy(output, LABELS, reduction="sum")

    return loss, start


def test_last_layer_curvature_is_the_hessian() -> None:
    loss, start = loss_of("2.*")
    fit = fitted()
    assert sorted(fit.mean) == ["2.bias", "2.weight"]
    torch.testing.assert_close(fit.curvature, torch.func.jacrev(torch.func.jacrev(loss))(start))
    torch.testing.assert_close(fit.loss, loss(start))
    assert fit.count == 0


def test_curvature_of_all_layers_is_gauss_newton() -> None:
    start, unravel = tree.ravel(PARAMS)
    rows = torch.func.jacrev(lambda v: NET.apply(unravel(v), {}, X)[0])(start)
    share = NET.apply(PARAMS, {}, X)[0].softmax(-1)
    inner = torch.diag_embed(share) - share.unsqueeze(2) * share.unsqueeze(1)
    wanted = torch.einsum("ncp,ncd,ndq->pq", rows, inner, rows)
    torch.testing.assert_close(fitted(where="*").curvature, wanted)
    squares = torch.einsum("ncp,ncp->p", rows, rows)
    regression = laplace_fit(
        NET, PARAMS, {}, (X, X), likelihood="regression", where="*", structure="diagonal"
    )
    torch.testing.assert_close(regression.curvature, squares)
    assert regression.count == 42


@pytest.mark.parametrize("where", ["*", ["0.weight", "2.bias"]])
def test_diagonal_is_that_of_the_full_one(where: Any) -> None:
    full, diagonal = (fitted(where=where, structure=s) for s in ("full", "diagonal"))
    torch.testing.assert_close(diagonal.curvature, full.curvature.diagonal())


def test_batches_add_up() -> None:
    whole = fitted()
    assert_close(fitted(batch_size=4), whole, rtol=1e-10, atol=1e-12)
    loader = [(X[:9], LABELS[:9]), ({"input": X[9:]}, LABELS[9:])]
    assert_close(laplace_fit(NET, PARAMS, {}, loader), whole, rtol=1e-10, atol=1e-12)


# --- The posterior and its samples ------------------------------------------------------------


def test_prior_of_each_parameter() -> None:
    fit = fitted()
    precisions = 0.5 + torch.arange(15, dtype=torch.float64)
    posterior = laplace_posterior(fit, precisions, 0.7)
    wanted = (fit.curvature / 0.49 + torch.diag(precisions)).inverse()
    torch.testing.assert_close(posterior.scale @ posterior.scale.mT, wanted)
    same = log_marginal_likelihood(fit, torch.full((15,), 2.0))
    torch.testing.assert_close(same, log_marginal_likelihood(fit, 2.0))


@pytest.mark.parametrize("structure", ["full", "diagonal"])
def test_samples_have_mean_and_covariance(structure: Any) -> None:
    posterior = laplace_posterior(fitted(structure=structure), 2.0)
    samples = vmap(lambda key: laplace_sample(key, posterior))(random.split(random.key(4), DRAWS))
    draws = vmap(lambda s: tree.ravel(s)[0])(samples)
    scale = posterior.scale if structure == "full" else torch.diag(posterior.scale)
    covariance = scale @ scale.mT
    variances = covariance.diagonal()
    error = (draws.mean(0) - tree.ravel(posterior.mean)[0]).abs()
    assert (error < 5 * (variances / DRAWS).sqrt()).all()
    standard_error = ((torch.outer(variances, variances) + covariance**2) / DRAWS).sqrt()
    assert ((torch.cov(draws.mT) - covariance).abs() < 5 * standard_error).all()


def test_linearized_samples_have_the_closed_form() -> None:
    posterior = laplace_posterior(fitted(where="*"), 2.0)
    mean, covariance = laplace_predictive(NET, PARAMS, {}, posterior, X[:2])
    samples = vmap(lambda key: laplace_sample(key, posterior))(random.split(random.key(4), DRAWS))
    outputs = linearized_ensemble(NET, PARAMS, {}, samples, X[:2])
    for i in range(2):
        variances = covariance[i].diagonal()
        error = (outputs[:, i].mean(0) - mean[i]).abs()
        assert (error < 5 * (variances / DRAWS).sqrt()).all()
        standard_error = ((torch.outer(variances, variances) + covariance[i] ** 2) / DRAWS).sqrt()
        assert ((torch.cov(outputs[:, i].mT) - covariance[i]).abs() < 5 * standard_error).all()


# --- The evidence -----------------------------------------------------------------------------


def evidence(structure: str) -> tuple[LaplaceFit, Any]:
    fit = laplace_fit(
        LINEAR, {"bias": RIDGE[:1], "weight": RIDGE[1:].reshape(1, 3)}, {}, (X, TARGETS),
        likelihood="regression", structure=structure,  # type: ignore[arg-type]
    )  # fmt: skip
    return fit, lambda d, s: log_marginal_likelihood(fit, d.exp(), s.exp())


@pytest.mark.parametrize("structure", ["full", "diagonal"])
def test_maximum_of_the_evidence(structure: str) -> None:
    fit, value = evidence(structure)
    found = [x.log() for x in maximize_marginal_likelihood(fit, 1.0, 1.0)]
    slopes = torch.func.grad(value, argnums=(0, 1))(*found)
    assert max(slope.abs() for slope in slopes) < 1e-9
    for change in (torch.tensor([0.1, 0.0]), torch.tensor([0.0, 0.1])):
        for sign in (1, -1):
            assert value(found[0] + sign * change[0], found[1] + sign * change[1]) < value(*found)


@given(start=st.floats(-12, 12), size=st.floats(-6, 6))
def test_maximum_is_found_from_everywhere(start: float, size: float) -> None:
    """Also where the prior outweighs the data; the distance halves at least at each step."""
    scale = math.exp(size)
    fit = fitted()
    fit = fit._replace(mean=tree.map(lambda x: x * scale, fit.mean))
    delta, sigma = maximize_marginal_likelihood(fit, math.exp(start), num_steps=60)
    assert sigma == 1
    slope = torch.func.grad(lambda d: log_marginal_likelihood(fit, d.exp()))(delta.log())
    assert slope.abs() < 1e-8
    first, _ = maximize_marginal_likelihood(fit, math.exp(start), num_steps=1)
    assert (first / delta).log().abs() <= 0.5 * abs(start - delta.log()) + 1e-9


# --- Classification in closed form ------------------------------------------------------------


def test_probit_is_near_the_integral() -> None:
    """Two classes, of which one logit is normal: the mean of a sigmoid."""
    points = torch.linspace(-9, 9, 2001, dtype=torch.float64)
    weights = torch.exp(-(points**2) / 2)
    weights = weights / weights.sum()
    for mu in (-3.0, -1.0, 0.0, 0.5, 2.0):
        for variance in (0.1, 1.0, 5.0):
            exact = (weights * (mu + math.sqrt(variance) * points).sigmoid()).sum()
            covariance = torch.diag(torch.tensor([variance, 0.0], dtype=torch.float64))
            found = probit(torch.tensor([mu, 0.0], dtype=torch.float64), covariance)
            assert (found[0] - exact).abs() < 0.012
            assert found.sum() == pytest.approx(1)


def test_what_logits_have_in_common_does_not_count() -> None:
    """Without it `probit` is near the mean of the softmax, also where all logits move together."""
    root = random.normal(random.key(6), (5, 3, 3), torch.float64)
    mean, own = random.normal(random.key(7), (5, 3), torch.float64), root @ root.mT
    together = own + 100.0
    draws = random.normal(random.key(8), (DRAWS, 5, 3), torch.float64)
    softmax = (mean + torch.einsum("nij,dnj->dni", root, draws)).softmax(-1).mean(0)
    found = probit(*center_logits(mean, together))
    torch.testing.assert_close(found, probit(*center_logits(mean, own)))
    assert (found - softmax).abs().mean() < 0.04
    assert (probit(mean, together) - softmax).abs().mean() > 0.1
    centered, covariance = center_logits(mean, own)
    projection = torch.eye(3, dtype=torch.float64) - 1 / 3
    torch.testing.assert_close(centered, mean @ projection)
    torch.testing.assert_close(covariance, projection @ own @ projection)


# --- Errors -----------------------------------------------------------------------------------


def test_errors() -> None:
    for options, match in (
        ({"likelihood": "poisson"}, r"`likelihood` must be one of .*, got 'poisson'"),
        ({"structure": "kron"}, r"`structure` must be one of .*, got 'kron'"),
        ({"where": lambda path, leaf: False}, "`where` must choose at least one parameter"),
        ({"where": "9.*"}, "matches no path"),
        ({"likelihood": "regression"}, r"targets of the outputs' shape \(14, 3\), got \(14,\)"),
    ):
        with pytest.raises(ValueError, match=match):
            fitted(**options)
    with pytest.raises(ValueError, match=r"targets of shape \(batch,\).*got \(14, 3\)"):
        laplace_fit(NET, PARAMS, {}, (X, X))
    with pytest.raises(ValueError, match="at least one batch"):
        laplace_fit(NET, PARAMS, {}, iter([]))
    flat = functionalize(nn.Sequential(nn.Linear(3, 1), nn.Flatten(0)).double())
    with pytest.raises(ValueError, match=r"outputs of shape \(batch, outputs\), got \(14,\)"):
        laplace_fit(flat, flat.params, {}, (X, X[:, 0]), likelihood="regression")
    for call in (laplace_posterior, log_marginal_likelihood, maximize_marginal_likelihood):
        with pytest.raises(ValueError, match="`prior_precision` must be positive, got 0"):
            call(fitted(), 0)
        with pytest.raises(ValueError, match="`sigma_noise` must be positive, got -1"):
            call(fitted(), 1.0, -1)
    with pytest.raises(ValueError, match="`num_steps` must be at least 1, got 0"):
        maximize_marginal_likelihood(fitted(), num_steps=0)
    for function in (probit, center_logits):
        with pytest.raises(ValueError, match=r"`covariance` must .* \(2, 3\), .* got \(2, 3\)"):
            function(torch.zeros(2, 3), torch.zeros(2, 3))


def test_posterior_overrules_the_parameters_given() -> None:
    posterior = LaplacePosterior(
        {"2.bias": torch.ones(3, dtype=torch.float64)}, torch.ones(3, dtype=torch.float64)
    )
    mean, covariance = laplace_predictive(NET, PARAMS, {}, posterior, X)
    wanted = NET.apply({**PARAMS, **posterior.mean}, {}, X)[0]
    torch.testing.assert_close(mean, wanted)
    eye = torch.eye(3, dtype=torch.float64)
    torch.testing.assert_close(covariance, eye.expand(14, 3, 3))
