"""Which part of an input is hidden, by key: True where it is."""

from __future__ import annotations

from collections.abc import Callable

from torch import Tensor

from fdnn import random
from fdnn.losses.check import in_0_1
from fdnn.types import Key, Scalar

__all__ = ["Mask", "patch_mask", "random_mask"]

Mask = Callable[[Key, Tensor], Tensor]
"""`mask(key, inputs) -> hidden`, booleans that broadcast to the inputs."""


def random_mask(rate: Scalar) -> Mask:
    """Hide each element with the probability `rate`, independently.

    Args:
        rate: in [0, 1].

    Returns:
        `mask(key, inputs)`, for inputs of any shape.

    Raises:
        ValueError: `rate` is not in [0, 1].

    Example:
        >>> import torch
        >>> random_mask(0.75)(random.key(0), torch.zeros(4))
        tensor([False, False,  True,  True])
    """
    in_0_1(rate=rate)
    return lambda key, inputs: random.bernoulli(key, rate, inputs.shape)


def patch_mask(size: int, rate: float) -> Mask:
    """Cut each image into square patches, and hide a share of them, as many in every image.

    Args:
        size: the height and width of a patch in pixels; it divides those of the image.
        rate: the share that is hidden, above 0 and below 1; rounded to a number of patches.

    Returns:
        `mask(key, inputs)`, for images of shape `(n, ..., h, w)`. All channels of an image have
        the same patches hidden.

    Raises:
        ValueError: `size` is not positive, or `rate` not in (0, 1); or, when called, the image has
            no whole number of patches, or none or all of them would be hidden.

    Example:
        >>> import torch
        >>> patch_mask(2, 0.5)(random.key(1), torch.zeros(1, 4, 4)).int()
        tensor([[[1, 1, 0, 0],
                 [1, 1, 0, 0],
                 [0, 0, 1, 1],
                 [0, 0, 1, 1]]], dtype=torch.int32)

    References:
        He, Chen, Xie, Li, Dollár, Girshick (2022), "Masked autoencoders are scalable vision
        learners".
    """
    if size < 1:
        raise ValueError(f"`size` must be at least 1, got {size}")
    if not 0 < rate < 1:
        raise ValueError(f"`rate` must be in (0, 1), got {rate}")

    def mask(key: Key, inputs: Tensor) -> Tensor:
        height, width = inputs.shape[-2:]
        if inputs.ndim < 3 or height % size or width % size:
            raise ValueError(
                f"`inputs` must be images of shape (n, ..., h, w), h and w multiples of {size}, "
                f"got shape {tuple(inputs.shape)}"
            )
        n, rows, columns = len(inputs), height // size, width // size
        hidden = round(rate * rows * columns)
        if not 0 < hidden < rows * columns:
            raise ValueError(f"`rate` hides {hidden} of {rows * columns} patches, got {rate}")
        # Where each patch comes in a random order of its image's patches.
        place = random.uniform(key, (n, rows * columns)).argsort(1).argsort(1)
        patches = (place < hidden).reshape(n, *(1 for _ in inputs.shape[1:-2]), rows, columns)
        return patches.repeat_interleave(size, -2).repeat_interleave(size, -1)

    return mask
