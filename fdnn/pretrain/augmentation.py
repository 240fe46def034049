"""Images changed at random, by key: views of one picture.

Every function here makes an `augment(key, images)` for images of shape `(n, ..., h, w)`, each of
which has its own draw, the same for all its channels. They vmap and compile; shapes stay.
"""

from __future__ import annotations

import math

import torch
from torch import Tensor

from fdnn import random
from fdnn.losses.check import in_0_1
from fdnn.pretrain.noise import Perturbation
from fdnn.types import Key, Scalar

__all__ = [
    "compose",
    "random_erasing",
    "random_horizontal_flip",
    "random_resized_crop",
    "random_shift",
]


def compose(*augmentations: Perturbation) -> Perturbation:
    """Put augmentations one after the other, each with a key of its own.

    Args:
        *augmentations: `augment(key, inputs)`, in order; noises too.

    Returns:
        `augment(key, inputs)`.

    Example:
        >>> from fdnn import pretrain
        >>> augment = compose(random_shift(2), pretrain.gaussian_noise(0.1))
        >>> augment(random.key(0), torch.ones(5, 8, 8)).shape
        torch.Size([5, 8, 8])
    """

    def augment(key: Key, inputs: Tensor) -> Tensor:
        for i, one in enumerate(augmentations):
            inputs = one(random.fold_in(key, i), inputs)
        return inputs

    return augment


def random_shift(max_shift: int) -> Perturbation:
    """Move each image by whole pixels, and fill with zeros: torchvision's padded `RandomCrop`.

    Args:
        max_shift: the largest shift in each direction, in pixels.

    Returns:
        `augment(key, images)`.

    Raises:
        ValueError: `max_shift` is negative; or, when called, `images` is not of shape
            `(n, ..., h, w)`.

    Example:
        >>> random_shift(1)(random.key(0), torch.eye(3)[None])
        tensor([[[0., 1., 0.],
                 [0., 0., 1.],
                 [0., 0., 0.]]])
    """
    if max_shift < 0:
        raise ValueError(f"`max_shift` must be at least 0, got {max_shift}")

    def augment(key: Key, images: Tensor) -> Tensor:
        n, height, width = _sizes(images)
        offset = random.randint(key, (2, n, 1), -max_shift, max_shift + 1).to(images.dtype)
        return _resample(
            images, offset[0] + _pixels(height, images), offset[1] + _pixels(width, images)
        )

    return augment


def random_horizontal_flip(p: Scalar = 0.5) -> Perturbation:
    """Mirror each image, left to right, with a probability.

    Args:
        p: the probability, in [0, 1].

    Returns:
        `augment(key, images)`.

    Raises:
        ValueError: `p` is not in [0, 1]; or, when called, `images` is not of shape
            `(n, ..., h, w)`.

    Example:
        >>> random_horizontal_flip(1.0)(random.key(0), torch.tensor([[[1, 2, 3]]]))
        tensor([[[3, 2, 1]]])
    """
    in_0_1(p=p)

    def augment(key: Key, images: Tensor) -> Tensor:
        flipped = random.bernoulli(key, p, (_sizes(images)[0],))
        return torch.where(_per_image(flipped, images), images.flip(-1), images)

    return augment


def random_resized_crop(
    scale: tuple[float, float] = (0.08, 1.0), ratio: tuple[float, float] = (3 / 4, 4 / 3)
) -> Perturbation:
    r"""Cut a rectangle out of each image, and stretch it to the image's size, bilinearly.

    Its area is the share $a \sim U$(`scale`) of the image's, its width over its height
    $\log r \sim U(\log$ `ratio`$)$ times the image's, each side cut down to the image's; its place
    is uniform.

    Args:
        scale: the least and the largest share of the area.
        ratio: the least and the largest ratio of width and height.

    Returns:
        `augment(key, images)`.

    Raises:
        ValueError: `scale` is not in (0, 1] or `ratio` not positive, or a range is in the wrong
            order; or, when called, `images` is not of shape `(n, ..., h, w)`.

    Example:
        >>> images = torch.arange(16.0).reshape(1, 4, 4)
        >>> whole = random_resized_crop((1.0, 1.0), (1.0, 1.0))
        >>> torch.equal(whole(random.key(0), images), images)
        True

    References:
        Szegedy et al. (2015), "Going deeper with convolutions"; torchvision's `RandomResizedCrop`,
        which draws again where a side is too long, has whole pixels, and smooths where it shrinks.
    """
    _check_ranges(scale, ratio)

    def augment(key: Key, images: Tensor) -> Tensor:
        _, height, width = _sizes(images)
        top, left, tall, wide = _rectangle(key, images, scale, ratio)
        rows = top + (_pixels(height, images) + 0.5) * (tall / height) - 0.5
        columns = left + (_pixels(width, images) + 0.5) * (wide / width) - 0.5
        return _resample(images, rows.clamp(0, height - 1), columns.clamp(0, width - 1))

    return augment


def random_erasing(
    p: Scalar = 0.5,
    scale: tuple[float, float] = (0.02, 0.33),
    ratio: tuple[float, float] = (0.3, 3.3),
) -> Perturbation:
    """Set a rectangle of each image to 0, with a probability.

    Args:
        p: the probability, in [0, 1].
        scale: the least and the largest share of the image's area, as in `random_resized_crop`.
        ratio: the least and the largest ratio of width and height.

    Returns:
        `augment(key, images)`. The rectangle holds the pixels whose centres are in it.

    Raises:
        ValueError: `p` is not in [0, 1], `scale` not in (0, 1] or `ratio` not positive, or a range
            is in the wrong order; or, when called, `images` is not of shape `(n, ..., h, w)`.

    Example:
        >>> random_erasing(1.0, (0.25, 0.25), (1.0, 1.0))(random.key(0), torch.ones(1, 4, 4)).sum()
        tensor(12.)

    References:
        Zhong, Zheng, Kang, Li, Yang (2020), "Random erasing data augmentation", which fills with
        noise by default; here with 0, as torchvision's `RandomErasing`.
    """
    in_0_1(p=p)
    _check_ranges(scale, ratio)

    def augment(key: Key, images: Tensor) -> Tensor:
        n, height, width = _sizes(images)
        key_whether, key_where = random.split(key)
        top, left, tall, wide = _rectangle(key_where, images, scale, ratio)
        rows, columns = _pixels(height, images) + 0.5 - top, _pixels(width, images) + 0.5 - left
        inside = _outer((rows >= 0) & (rows < tall), (columns >= 0) & (columns < wide), images)
        erased = _per_image(random.bernoulli(key_whether, p, (n,)), images)
        return images.masked_fill(inside & erased, 0)

    return augment


def _sizes(images: Tensor) -> tuple[int, int, int]:
    if images.ndim < 3:
        raise ValueError(f"`images` must have shape (n, ..., h, w), got {tuple(images.shape)}")
    return images.shape[0], images.shape[-2], images.shape[-1]


def _check_ranges(scale: tuple[float, float], ratio: tuple[float, float]) -> None:
    if not 0 < scale[0] <= scale[1] <= 1:
        raise ValueError(f"`scale` must be a range in (0, 1], got {scale}")
    if not 0 < ratio[0] <= ratio[1]:
        raise ValueError(f"`ratio` must be a range above 0, got {ratio}")


def _pixels(size: int, images: Tensor) -> Tensor:
    return torch.arange(size, dtype=images.dtype, device=images.device)


def _per_image(values: Tensor, images: Tensor) -> Tensor:
    """Shape one value for each image so that it broadcasts to the images."""
    return values.reshape(-1, *(1 for _ in images.shape[1:]))


def _outer(rows: Tensor, columns: Tensor, images: Tensor) -> Tensor:
    """Both of a row's and a column's flags, `(n, h)` and `(n, w)`, broadcasting to the images."""
    both = rows[:, :, None] & columns[:, None, :]
    return both.reshape(len(images), *(1 for _ in images.shape[1:-2]), *both.shape[1:])


def _rectangle(
    key: Key, images: Tensor, scale: tuple[float, float], ratio: tuple[float, float]
) -> tuple[Tensor, Tensor, Tensor, Tensor]:
    """Draw top, left, height and width for each image, in pixels, of shape `(n, 1)`."""
    n, height, width = _sizes(images)
    area, log_ratio, down, right = random.uniform(key, (4, n, 1), images.dtype).unbind()
    area = scale[0] + (scale[1] - scale[0]) * area
    low, high = math.log(ratio[0]), math.log(ratio[1])
    stretch = torch.exp(0.5 * (low + (high - low) * log_ratio))
    tall = (height * area.sqrt() / stretch).clamp(max=height)
    wide = (width * area.sqrt() * stretch).clamp(max=width)
    return down * (height - tall), right * (width - wide), tall, wide


def _resample(images: Tensor, rows: Tensor, columns: Tensor) -> Tensor:
    """Read images between pixels, at rows `(n, h)` and columns `(n, w)`; outside is 0.

    Bilinear interpolation is linear in each direction, so it is a matrix product from either side:
    the weight of a pixel at distance d is max(0, 1 - d).
    """

    def weights(places: Tensor, size: int) -> Tensor:
        near = (1 - (places[:, :, None] - _pixels(size, images)).abs()).clamp_min(0)
        return near.reshape(len(images), *(1 for _ in images.shape[1:-2]), *near.shape[1:])

    _, height, width = _sizes(images)
    return weights(rows, height) @ images @ weights(columns, width).mT
