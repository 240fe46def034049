"""Augmentations, against torch's operations on one image."""

from __future__ import annotations

import math

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor

from fdnn import pretrain, random
from fdnn.pretrain.augmentation import _rectangle

IMAGES = random.normal(random.key(0), (60, 2, 5, 7), torch.float64)


def test_a_shift_is_a_crop_of_the_padded_image() -> None:
    moved = pretrain.random_shift(1)(random.key(1), IMAGES)
    seen = set()
    for image, found in zip(F.pad(IMAGES, (1, 1, 1, 1)), moved, strict=True):
        crops = {(i, j): image[:, i : i + 5, j : j + 7] for i in range(3) for j in range(3)}
        (place,) = (place for place, crop in crops.items() if torch.equal(crop, found))
        seen.add(place)
    assert len(seen) == 9
    assert torch.equal(pretrain.random_shift(0)(random.key(1), IMAGES), IMAGES)


def test_a_flip_is_whole_and_as_likely_as_asked() -> None:
    images = IMAGES[:1].expand(4000, 2, 5, 7)
    flipped = pretrain.random_horizontal_flip(0.3)(random.key(1), images)
    mirrored = (flipped == images.flip(-1)).all(-1).all(-1).all(-1)
    untouched = (flipped == images).all(-1).all(-1).all(-1)
    assert (mirrored ^ untouched).all()
    assert abs(mirrored.double().mean() - 0.3) < 4 * math.sqrt(0.21 / 4000)


def test_a_crop_is_grid_sampled() -> None:
    scale, ratio = (0.1, 0.6), (0.5, 2.0)
    found = pretrain.random_resized_crop(scale, ratio)(random.key(2), IMAGES)
    top, left, tall, wide = _rectangle(random.key(2), IMAGES, scale, ratio)
    whole = torch.zeros(60, 2, 3, dtype=torch.float64)
    whole[:, 0, 0], whole[:, 1, 1] = (wide / 7)[:, 0], (tall / 5)[:, 0]
    whole[:, 0, 2] = ((2 * left + wide) / 7 - 1)[:, 0]
    whole[:, 1, 2] = ((2 * top + tall) / 5 - 1)[:, 0]
    grid = F.affine_grid(whole, [60, 2, 5, 7], align_corners=False)
    expected = F.grid_sample(IMAGES, grid, padding_mode="border", align_corners=False)
    torch.testing.assert_close(found, expected, rtol=1e-12, atol=1e-12)


def test_rectangles_keep_to_their_ranges() -> None:
    images = torch.zeros(5000, 10, 20, dtype=torch.float64)
    top, left, tall, wide = _rectangle(random.key(0), images, (0.1, 0.3), (0.8, 1.25))
    assert (top >= 0).all() and (left >= 0).all()
    assert (top + tall <= 10 + 1e-9).all() and (left + wide <= 20 + 1e-9).all()
    area, ratio = tall * wide / 200, (wide / 20) / (tall / 10)
    assert (area > 0.1 - 1e-9).all() and (area < 0.3 + 1e-9).all()
    assert (ratio > 0.8 - 1e-9).all() and (ratio < 1.25 + 1e-9).all()
    assert abs(area.mean() - 0.2) < 4 * 0.2 / math.sqrt(12 * 5000)


def test_what_is_erased_is_a_rectangle() -> None:
    images = torch.ones(200, 3, 12, 16)
    erased = pretrain.random_erasing(1.0, (0.1, 0.3))(random.key(0), images) == 0
    assert torch.equal(erased[:, 0], erased[:, 2])
    rows, columns = erased[:, 0].any(2), erased[:, 0].any(1)
    assert torch.equal(erased[:, 0], rows[:, :, None] & columns[:, None, :])
    for flags in (rows, columns):
        assert (flags.int().diff(dim=1).clamp(min=0).sum(1) + flags[:, 0] == 1).all()
    assert 0.18 < erased.double().mean() < 0.22
    assert pretrain.random_erasing(0.0)(random.key(0), images).all()


def test_compose_gives_each_its_key() -> None:
    keys: list[Tensor] = []

    def spy(key: Tensor, inputs: Tensor) -> Tensor:
        keys.append(key)
        return inputs + len(keys)

    assert torch.equal(
        pretrain.compose(spy, spy)(random.key(4), torch.zeros(1)), torch.tensor([3.0])
    )
    assert not torch.equal(*keys)
    assert torch.equal(pretrain.compose()(random.key(4), IMAGES), IMAGES)


@pytest.mark.parametrize(
    "augment",
    [
        pretrain.random_shift(1),
        pretrain.random_horizontal_flip(),
        pretrain.random_resized_crop(),
        pretrain.random_erasing(),
    ],
)
def test_images_have_three_dimensions(augment: pretrain.noise.Perturbation) -> None:
    with pytest.raises(
        ValueError, match=r"`images` must have shape \(n, ..., h, w\), got \(4, 5\)"
    ):
        augment(random.key(0), torch.zeros(4, 5))


def test_what_is_refused() -> None:
    with pytest.raises(ValueError, match="`max_shift` must be at least 0, got -1"):
        pretrain.random_shift(-1)
    with pytest.raises(ValueError, match=r"`p` must be in \[0, 1\], got 2"):
        pretrain.random_horizontal_flip(2)
    with pytest.raises(ValueError, match=r"`scale` must be a range in \(0, 1\], got \(0.5, 0.1\)"):
        pretrain.random_resized_crop((0.5, 0.1))
    with pytest.raises(ValueError, match=r"`ratio` must be a range above 0, got \(0, 1\)"):
        pretrain.random_erasing(0.5, ratio=(0, 1))
