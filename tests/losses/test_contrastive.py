"""Contrastive losses against the papers' formulas, written out term by term."""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Any

import pytest
import torch
import torch.nn.functional as F
from hypothesis import given
from hypothesis import strategies as st
from torch import Tensor, vmap

from fdnn import losses

Agree = Callable[..., None]


def normal(*shape: int, seed: int = 0) -> Tensor:
    return torch.randn(shape, dtype=torch.float64, generator=torch.Generator().manual_seed(seed))


def info_nce(x1: Tensor, x2: Tensor, tau: float) -> Tensor:
    terms = []
    for i, one in enumerate(x1):
        scores = [(F.cosine_similarity(one, other, dim=0) / tau).exp() for other in x2]
        terms.append(-(scores[i] / sum(scores)).log())
    return torch.stack(terms)


def nt_xent(x1: Tensor, x2: Tensor, tau: float) -> Tensor:
    z, n = torch.cat([x1, x2]), len(x1)

    def term(i: int, j: int) -> Tensor:
        scores = [(F.cosine_similarity(z[i], other, dim=0) / tau).exp() for other in z]
        return -(scores[j] / sum(s for k, s in enumerate(scores) if k != i)).log()

    return torch.stack([(term(i, i + n) + term(i + n, i)) / 2 for i in range(n)])


PAIRS: Any = pytest.mark.parametrize(
    ("ours", "formula"),
    [(losses.info_nce, info_nce), (losses.nt_xent, nt_xent)],
    ids=["info_nce", "nt_xent"],
)


@PAIRS
@pytest.mark.parametrize("tau", [0.1, 1.0])
def test_is_the_formula(agree: Agree, ours: Any, formula: Any, tau: float) -> None:
    x1, x2 = 3 * normal(5, 3), normal(5, 3, seed=1)
    agree(
        lambda a, b: ours(a, b, temperature=tau, reduction="none"),
        lambda a, b: formula(a, b, tau),
        x1,
        x2,
    )
    agree(lambda a, b: ours(a, b, temperature=tau), lambda a, b: formula(a, b, tau).mean(), x1, x2)
    agree(
        lambda a, b: ours(a, b, temperature=tau, reduction="sum"),
        lambda a, b: formula(a, b, tau).sum(),
        x1,
        x2,
    )


@PAIRS
@given(n=st.integers(1, 6), scale=st.floats(0.01, 100))
def test_length_and_order_do_not_matter(ours: Any, formula: Any, n: int, scale: float) -> None:
    x1, x2 = normal(n, 3), normal(n, 3, seed=1)
    terms = ours(x1, x2, reduction="none")
    order = torch.randperm(n, generator=torch.Generator().manual_seed(n))
    moved = ours(scale * x1[order], x2[order] / scale, reduction="none")
    torch.testing.assert_close(moved, terms[order], rtol=1e-9, atol=1e-12)
    assert terms.shape == (n,)
    if n == 1:  # nothing to confuse the partner with
        torch.testing.assert_close(terms, torch.zeros_like(terms), rtol=0, atol=1e-12)


@PAIRS
def test_equal_embeddings_are_a_guess(ours: Any, formula: Any) -> None:
    x = torch.ones(4, 3, dtype=torch.float64)
    others = {losses.info_nce: 4, losses.nt_xent: 7}[ours]
    assert math.isclose(ours(x, x).item(), math.log(others), rel_tol=1e-12)


def test_nt_xent_is_symmetric_and_info_nce_is_not() -> None:
    x1, x2 = normal(5, 3), normal(5, 3, seed=1)
    torch.testing.assert_close(losses.nt_xent(x1, x2), losses.nt_xent(x2, x1), rtol=1e-12, atol=0)
    assert (losses.info_nce(x1, x2) - losses.info_nce(x2, x1)).abs() > 1e-3


@PAIRS
def test_temperature_may_be_a_tensor(ours: Any, formula: Any) -> None:
    x1, x2 = normal(5, 3), normal(5, 3, seed=1)
    taus = torch.tensor([0.1, 0.5, 2.0], dtype=torch.float64)

    def loss(tau: Any) -> Tensor:
        return ours(x1, x2, temperature=tau)

    expected = torch.stack([loss(tau) for tau in taus.tolist()])
    torch.testing.assert_close(vmap(loss)(taus), expected, rtol=1e-12, atol=1e-12)
    assert torch.autograd.gradcheck(loss, taus[1].clone().requires_grad_())


@PAIRS
def test_errors_name_the_argument(ours: Any, formula: Any) -> None:
    x = torch.zeros(3, 2)
    with pytest.raises(ValueError, match="`temperature` must be positive, got 0"):
        ours(x, x, temperature=0)
    with pytest.raises(ValueError, match=r"`input2` .* `input1`, \(3, 2\), got \(2, 2\)"):
        ours(x, x[:2])
    with pytest.raises(ValueError, match=r"`input1` must have shape \(n, d\), got \(2,\)"):
        ours(x[0], x[0])
    with pytest.raises(ValueError, match=r"`reduction` .* got 'average'"):
        ours(x, x, reduction="average")
