"""Noises and masks: their laws, shapes and limits."""

from __future__ import annotations

import math
from typing import Any

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from fdnn import pretrain, random

N = 100_000


def test_gaussian_noise_has_its_deviation() -> None:
    noise = pretrain.gaussian_noise(torch.tensor(0.3))(random.key(0), torch.full((N,), 2.0)) - 2
    assert noise.mean().abs() < 4 * 0.3 / math.sqrt(N)
    assert (noise.std() - 0.3).abs() < 4 * 0.3 / math.sqrt(2 * N)


@pytest.mark.parametrize("rate", [0.0, 0.2, 0.75, 1.0])
def test_masks_hide_their_share(rate: float) -> None:
    inputs = torch.arange(1.0, N + 1)
    hidden = pretrain.random_mask(rate)(random.key(1), inputs)
    error = math.sqrt(rate * (1 - rate) / N)
    assert (hidden.double().mean() - rate).abs() <= 4 * error
    spoilt = pretrain.masking_noise(rate)(random.key(1), inputs)
    assert torch.equal(spoilt, torch.where(hidden, 0, inputs))


@pytest.mark.parametrize("dtype", [torch.float64, torch.float16])
def test_dtypes_stay(dtype: torch.dtype) -> None:
    inputs = torch.ones(2, 4, 4, dtype=dtype)
    for perturb in (
        pretrain.gaussian_noise(0.1),
        pretrain.masking_noise(0.5),
        pretrain.random_shift(1),
        pretrain.random_erasing(),
    ):
        assert perturb(random.key(0), inputs).dtype == dtype


@settings(max_examples=25, deadline=None)
@given(st.integers(1, 3), st.integers(2, 4), st.integers(1, 4), st.floats(0.3, 0.7), st.data())
def test_patches_are_whole_and_equally_many(
    size: int, rows: int, columns: int, rate: float, data: Any
) -> None:
    channels = data.draw(st.lists(st.integers(1, 3), max_size=1))
    images = torch.zeros(5, *channels, rows * size, columns * size)
    hidden = pretrain.patch_mask(size, rate)(random.key(rows), images)
    assert hidden.shape == (5, *(1 for _ in channels), *images.shape[-2:])
    hidden = hidden.reshape(5, rows, size, columns, size).transpose(2, 3)
    patches = hidden.reshape(5, rows * columns, -1)
    assert torch.equal(patches.any(-1), patches.all(-1))
    assert (patches.all(-1).sum(1) == round(rate * rows * columns)).all()


def test_every_patch_is_hidden_as_often() -> None:
    n = 20_000
    hidden = pretrain.patch_mask(1, 0.5)(random.key(0), torch.zeros(n, 2, 3)).double()
    assert ((hidden.mean(0) - 0.5).abs() < 4 * 0.5 / math.sqrt(n)).all()


def test_what_is_refused() -> None:
    with pytest.raises(ValueError, match="`std` must be at least 0, got -1"):
        pretrain.gaussian_noise(-1.0)
    for make in (pretrain.masking_noise, pretrain.random_mask):
        with pytest.raises(ValueError, match=r"`rate` must be in \[0, 1\], got 1.5"):
            make(1.5)
    with pytest.raises(ValueError, match=r"`rate` must be in \(0, 1\), got 1"):
        pretrain.patch_mask(2, 1.0)
    with pytest.raises(ValueError, match="`size` must be at least 1, got 0"):
        pretrain.patch_mask(0, 0.5)
    with pytest.raises(ValueError, match=r"multiples of 3, got shape \(1, 4, 6\)"):
        pretrain.patch_mask(3, 0.5)(random.key(0), torch.zeros(1, 4, 6))
    with pytest.raises(ValueError, match=r"`rate` hides 0 of 4 patches, got 0.1"):
        pretrain.patch_mask(2, 0.1)(random.key(0), torch.zeros(1, 4, 4))
