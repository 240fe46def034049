"""Reductions, and losses as criteria of training."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from torch import Tensor, nn

from fdnn import functionalize, losses, random, train

shapes = st.lists(st.integers(1, 4), min_size=1, max_size=4)


def normal(*shape: int, seed: int = 0) -> Tensor:
    return random.normal(random.key(seed), shape, torch.float64)


@given(shape=shapes)
def test_per_example(shape: list[int]) -> None:
    terms = normal(*shape)
    found = losses.per_example(terms)
    assert found.shape == (shape[0],)
    torch.testing.assert_close(found, torch.stack([row.mean() for row in terms]))
    torch.testing.assert_close(found.mean(), terms.mean())


@given(shape=shapes, data=st.data())
def test_weighted_mean(shape: list[int], data: st.DataObject) -> None:
    terms = normal(*shape)
    weight = normal(*shape[: data.draw(st.integers(0, len(shape)))], seed=1).exp()
    spread = weight.reshape(*weight.shape, *[1] * (terms.ndim - weight.ndim)).expand(shape)
    expected = sum((spread * terms).flatten().tolist()) / sum(spread.flatten().tolist())
    assert losses.weighted_mean(terms, weight).item() == pytest.approx(expected, 1e-9, 1e-12)
    even = losses.weighted_mean(terms, torch.full(shape[:1], 3))
    torch.testing.assert_close(even, terms.mean())


def test_a_mask_hides_padding() -> None:
    logits, labels = normal(2, 5, 3), torch.tensor([[0, 1, 4], [2, -100, -100]])
    terms = losses.cross_entropy(logits, labels, reduction="none")
    found = losses.weighted_mean(terms, labels != -100)
    torch.testing.assert_close(found, losses.cross_entropy(logits, labels), rtol=1e-12, atol=0)
    assert losses.weighted_mean(terms, torch.zeros(2)).isnan()


def test_errors_name_the_argument() -> None:
    with pytest.raises(ValueError, match="`terms` must have a dimension of examples"):
        losses.per_example(torch.tensor(1.0))
    for shape in ((2,), (3, 1), (3, 2, 1)):
        with pytest.raises(ValueError, match=r"`weight` .* \(3, 2\), got "):
            losses.weighted_mean(torch.zeros(3, 2), torch.ones(shape))


MODEL = functionalize(nn.Linear(4, 3))
CRITERIA: dict[str, tuple[Any, Any]] = {
    name: (getattr(losses, name), normal(5, 3, seed=1).sigmoid().float())
    for name in (
        "binary_cross_entropy_with_logits",
        "cross_entropy",
        "huber_loss",
        "info_nce",
        "kl_div",
        "l1_loss",
        "mse_loss",
        "nt_xent",
        "sigmoid_focal_loss",
        "smooth_l1_loss",
    )
} | {
    "classes": (losses.cross_entropy, torch.tensor([0, 1, 2, 2, 1])),
    "softmax_focal_loss": (losses.softmax_focal_loss, torch.tensor([0, 1, 2, 2, 1])),
}


@pytest.mark.parametrize(("criterion", "target"), CRITERIA.values(), ids=CRITERIA.keys())
def test_losses_are_criteria(criterion: Any, target: Tensor) -> None:
    loss = train.supervised(MODEL, criterion)
    x = normal(5, 4).float()
    value, _ = loss(MODEL.params, MODEL.buffers, (x, target), random.key(0))
    output, _ = MODEL.apply(MODEL.params, MODEL.buffers, x)
    assert torch.equal(value, criterion(output, target, reduction="mean"))
    with pytest.raises(ValueError, match="`criterion` must return a 0-d tensor"):
        train.supervised(MODEL, lambda *args: criterion(*args, reduction="none"))(
            MODEL.params, MODEL.buffers, (x, target), random.key(0)
        )


def test_weights_of_examples_come_with_the_target() -> None:
    def criterion(output: Tensor, target: tuple[Tensor, Tensor]) -> Tensor:
        labels, weight = target
        terms = losses.cross_entropy(output, labels, reduction="none")
        return losses.weighted_mean(terms, weight)

    x, labels = normal(5, 4).float(), torch.tensor([0, 1, 2, 2, 1])
    loss = train.supervised(MODEL, criterion)
    half = torch.tensor([1.0, 1.0, 0.0, 0.0, 0.0])
    value, _ = loss(MODEL.params, MODEL.buffers, (x, (labels, half)), random.key(0))
    expected, _ = train.supervised(MODEL, losses.cross_entropy)(
        MODEL.params, MODEL.buffers, (x[:2], labels[:2]), random.key(0)
    )
    torch.testing.assert_close(value, expected)
