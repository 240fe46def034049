"""Calibration errors against torchmetrics and plain loops over bins."""

from __future__ import annotations

import math

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor
from torchmetrics.functional.classification import (
    binary_calibration_error,
    multiclass_calibration_error,
)

from fdnn import uncertainty

ERRORS = (
    uncertainty.expected_calibration_error,
    uncertainty.classwise_calibration_error,
    uncertainty.adaptive_calibration_error,
)


def example(n: int, classes: int, seed: int = 0, scale: float = 2.0) -> tuple[Tensor, Tensor]:
    generator = torch.Generator().manual_seed(seed)
    logits = scale * torch.randn(n, classes, generator=generator, dtype=torch.float64)
    return logits.softmax(-1), torch.randint(classes, (n,), generator=generator)


def binned(confidence: np.ndarray, correct: np.ndarray, edges: np.ndarray) -> float:
    """The definition, a bin at a time."""
    total = 0.0
    for b in range(len(edges) - 1):
        last = b == len(edges) - 2
        inside = (confidence >= edges[b]) & ((confidence < edges[b + 1]) | last)
        if inside.any():
            total += inside.mean() * abs(correct[inside].mean() - confidence[inside].mean())
    return total


cases = given(st.integers(1, 60), st.integers(2, 6), st.integers(1, 20), st.integers(0, 99))


@cases
@settings(max_examples=30, deadline=None)
def test_top_label_error_is_torchmetrics(n: int, classes: int, bins: int, seed: int) -> None:
    probs, targets = example(n, classes, seed)
    probs = probs.float()  # as torchmetrics makes them
    found = uncertainty.expected_calibration_error(probs, targets, bins)
    wanted = multiclass_calibration_error(probs, targets, classes, n_bins=bins, norm="l1")
    torch.testing.assert_close(found, wanted)


@cases
@settings(max_examples=10, deadline=None)
def test_classwise_error_is_the_mean_of_torchmetrics(
    n: int, classes: int, bins: int, seed: int
) -> None:
    probs, targets = example(n, classes, seed)
    each = [
        binary_calibration_error(
            probs[:, k].contiguous(), (targets == k).long(), n_bins=bins, norm="l1"
        )
        for k in range(classes)
    ]
    found = uncertainty.classwise_calibration_error(probs, targets, bins)
    torch.testing.assert_close(found, torch.stack(each).mean())


@pytest.mark.parametrize("bins", [1, 2, 5, 10, 15])
def test_edges_belong_to_the_bin_above_and_one_to_the_last(bins: int) -> None:
    top = torch.tensor([0.5, 0.6, 0.8, 1.0, 1.0, 0.9, 0.7], dtype=torch.float64)
    probs, targets = torch.stack([top, 1 - top], -1), torch.tensor([0, 1, 0, 0, 1, 0, 1])
    edges = torch.linspace(0, 1, bins + 1, dtype=torch.float64).numpy()
    wanted = binned(top.numpy(), (targets == 0).numpy().astype(float), edges)
    found = uncertainty.expected_calibration_error(probs, targets, bins)
    assert found.item() == pytest.approx(wanted, abs=1e-14)
    assert uncertainty.reliability(probs, targets, bins).counts[-1] >= 2


@given(st.integers(1, 60), st.integers(1, 12), st.integers(0, 99))
@settings(max_examples=20, deadline=None)
def test_adaptive_error_is_that_of_array_split(n: int, bins: int, seed: int) -> None:
    probs, targets = example(n, 4, seed)
    confidence, predicted = (x.numpy() for x in probs.max(-1))
    order = confidence.argsort()
    correct = (predicted == targets.numpy())[order].astype(float)
    # `array_split` puts larger parts first, ours are spread: the same where bins divide n.
    place = np.arange(n) * bins // n
    parts = [np.flatnonzero(place == b) for b in range(bins)]
    if n % bins == 0:
        wanted_parts = np.array_split(np.arange(n), bins)
        assert all((a == b).all() for a, b in zip(parts, wanted_parts, strict=True))
    assert max(map(len, parts)) - min(map(len, parts)) <= 1
    wanted = sum(
        len(part) / n * abs(correct[part].mean() - confidence[order][part].mean())
        for part in parts
        if len(part)
    )
    found = uncertainty.adaptive_calibration_error(probs, targets, bins)
    assert found.item() == pytest.approx(wanted, abs=1e-12)


@given(st.integers(2, 40), st.integers(0, 99))
@settings(max_examples=20, deadline=None)
def test_order_of_examples_does_not_matter(n: int, seed: int) -> None:
    probs, targets = example(n, 3, seed)
    probs = (probs * 4).round() / 4  # many ties
    order = torch.randperm(n, generator=torch.Generator().manual_seed(seed))
    for error in ERRORS:
        torch.testing.assert_close(error(probs, targets, 4), error(probs[order], targets[order], 4))


def test_reliability_holds_what_the_error_is_made_of() -> None:
    probs, targets = example(200, 3)
    found = uncertainty.reliability(probs, targets, 10)
    gaps = (found.accuracy - found.confidence).abs() * found.counts / 200
    torch.testing.assert_close(
        gaps.nansum(), uncertainty.expected_calibration_error(probs, targets, 10)
    )
    assert torch.equal(found.counts == 0, found.accuracy.isnan())
    assert torch.equal(found.counts == 0, found.confidence.isnan())
    assert found.counts.sum() == 200 and (found.counts[:3] == 0).all()  # of 3 classes, 1/3 at least
    kept = found.counts > 0
    assert (found.confidence >= found.edges[:-1])[kept].all()
    assert (found.confidence <= found.edges[1:])[kept].all()


@pytest.mark.parametrize("error", ERRORS)
def test_right_probabilities_are_nearly_calibrated(error: object) -> None:
    """Labels drawn from the probabilities: the error is that of the frequencies in the bins."""
    n, bins = 20_000, 10
    probs, _ = example(n, 2, scale=1.0)
    generator = torch.Generator().manual_seed(1)
    targets = torch.multinomial(probs, 1, generator=generator).squeeze(1)
    # E|freq - p| in a bin is at most 1 / (2 sqrt(n_b)): in all bins together sqrt(bins / n) / 2.
    bound = 2 * math.sqrt(bins / n) / 2
    assert error(probs, targets, bins) < bound  # type: ignore[operator]
    assert error(probs.pow(3) / probs.pow(3).sum(-1, keepdim=True), targets, bins) > 3 * bound  # type: ignore[operator]


@pytest.mark.parametrize("error", ERRORS)
def test_gradient_is_the_finite_difference(error: object) -> None:
    probs, targets = example(30, 3)
    assert torch.autograd.gradcheck(
        lambda x: error(x, targets, 7),  # type: ignore[operator]
        (probs.requires_grad_(),),
        eps=1e-7,
    )


@pytest.mark.parametrize("function", [*ERRORS, uncertainty.reliability])
def test_arguments_are_checked(function: object) -> None:
    probs, targets = example(5, 3)
    with pytest.raises(ValueError, match="`num_bins` must be a whole number of at least 1, got 0"):
        function(probs, targets, 0)  # type: ignore[operator]
    with pytest.raises(ValueError, match=r"`probs` must have shape \(batch, classes\), got \(5,\)"):
        function(probs[:, 0], targets)  # type: ignore[operator]
    with pytest.raises(ValueError, match=r"`targets` must have shape \(5,\)"):
        function(probs, targets[:3])  # type: ignore[operator]
