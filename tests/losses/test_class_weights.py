"""Class weights, against scikit-learn and the sums that define them."""

from __future__ import annotations

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from hypothesis import given
from hypothesis import strategies as st
from sklearn.utils.class_weight import compute_class_weight
from torch import vmap

from fdnn import losses

counts = st.lists(st.integers(1, 40), min_size=1, max_size=6)


def targets_of(counts: list[int], seed: int = 0) -> torch.Tensor:
    labels = np.repeat(np.arange(len(counts)), counts)
    return torch.tensor(np.random.default_rng(seed).permutation(labels))


@given(counts=counts, dtype=st.sampled_from([torch.int64, torch.int32, torch.uint8]))
def test_balanced_is_scikit_learns(counts: list[int], dtype: torch.dtype) -> None:
    targets = targets_of(counts)
    found = losses.class_weights(targets.to(dtype), len(counts))
    wanted = compute_class_weight("balanced", classes=np.arange(len(counts)), y=targets.numpy())
    assert found.dtype == torch.float32
    torch.testing.assert_close(found, torch.tensor(wanted).float(), rtol=1e-6, atol=0)


@given(counts=counts, beta=st.floats(0, 1))
def test_effective_numbers_are_sums_of_powers(counts: list[int], beta: float) -> None:
    targets = targets_of(counts)
    raw = torch.tensor([1 / sum(beta**i for i in range(n)) for n in counts], dtype=torch.float64)
    found = losses.class_weights(targets, len(counts), beta=beta)
    torch.testing.assert_close(found / found.sum(), (raw / raw.sum()).float(), rtol=1e-5, atol=0)
    assert found[targets].double().mean().item() == pytest.approx(1, rel=1e-5)
    given_as_tensor = losses.class_weights(
        targets, len(counts), beta=torch.tensor(beta, dtype=torch.float64)
    )
    torch.testing.assert_close(given_as_tensor, found)


def test_the_ends_of_beta() -> None:
    targets = targets_of([1, 10, 100])
    assert torch.equal(losses.class_weights(targets, 3, beta=0.0), torch.ones(3))
    near = losses.class_weights(targets, 3, beta=1 - 1e-9)
    torch.testing.assert_close(near, losses.class_weights(targets, 3), rtol=1e-5, atol=0)


def test_all_classes_count_alike_in_the_loss() -> None:
    """The weighted mean of the examples' losses is the mean of the classes' mean losses."""
    targets = targets_of([3, 30])
    logits = torch.tensor([[0.5, 0.0], [1.0, 0.0]], dtype=torch.float64)[targets]
    terms = F.cross_entropy(logits, targets, reduction="none")
    by_class = [terms[targets == label].mean() for label in range(2)]
    assert by_class[0] != by_class[1]
    weight = losses.class_weights(targets, 2).double()
    found = losses.cross_entropy(logits, targets, weight=weight)
    torch.testing.assert_close(found, sum(by_class) / 2, rtol=1e-6, atol=0)


def test_any_shape_of_targets() -> None:
    targets = targets_of([4, 2]).reshape(2, 3)
    assert losses.class_weights(targets, 2).tolist() == [0.75, 1.5]


def test_lanes_of_targets_and_of_beta() -> None:
    targets = torch.stack([targets_of([2, 5]), targets_of([6, 1])])
    betas = torch.tensor([0.5, 1.0], dtype=torch.float64)
    found = vmap(lambda t, b: losses.class_weights(t, 2, beta=b))(targets, betas)
    for row, target, beta in zip(found, targets, betas.tolist(), strict=True):
        torch.testing.assert_close(row, losses.class_weights(target, 2, beta=beta))
    empty = vmap(lambda t: losses.class_weights(t, 3))(targets)
    assert empty[:, 2].isinf().all()
    assert empty[:, :2].isfinite().all()


def test_errors_name_the_argument() -> None:
    good = torch.tensor([0, 1, 1])
    for targets, classes, beta, message in (
        (good, 3, 1.0, r"`targets` must have examples of every class, got none of \[2\]"),
        (good[:0], 2, 1.0, r"`targets` must have examples of every class, got none of \[0, 1\]"),
        (good, 1, 1.0, r"`targets` must be in \[0, 1\), got 1"),
        (good - 1, 2, 1.0, r"`targets` must be in \[0, 2\), got -1"),
        (good.float(), 2, 1.0, r"`targets` must hold integers, got torch.float32"),
        (good, 0, 1.0, r"`num_classes` must be at least 1, got 0"),
        (good, 2, 1.5, r"`beta` must be in \[0, 1\], got 1.5"),
    ):
        with pytest.raises(ValueError, match=message):
            losses.class_weights(targets, classes, beta=beta)
