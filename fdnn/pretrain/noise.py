"""Inputs spoilt at random, by key: what a denoising autoencoder is given."""

from __future__ import annotations

from collections.abc import Callable

from torch import Tensor

from fdnn import random
from fdnn.losses.check import at_least_0
from fdnn.pretrain.masks import random_mask
from fdnn.types import Key, Scalar

__all__ = ["Perturbation", "gaussian_noise", "masking_noise"]

Perturbation = Callable[[Key, Tensor], Tensor]
"""`perturb(key, inputs) -> inputs`, of the same shape: a corruption, or an augmentation."""


def gaussian_noise(std: Scalar) -> Perturbation:
    r"""Add noise: $\tilde x = x + \sigma \epsilon$ with $\epsilon$ standard normal.

    Args:
        std: $\sigma$ = `std`, in units of the inputs.

    Returns:
        `perturb(key, inputs)`, for inputs of any shape.

    Raises:
        ValueError: `std` is negative.

    Example:
        >>> import torch
        >>> noisy = gaussian_noise(0.1)(random.key(0), torch.zeros(10_000))
        >>> 0.095 < noisy.std() < 0.105
        tensor(True)

    References:
        Vincent, Larochelle, Lajoie, Bengio, Manzagol (2010), "Stacked denoising autoencoders".
    """
    at_least_0(std=std)

    def perturb(key: Key, inputs: Tensor) -> Tensor:
        return inputs + std * random.normal(key, inputs.shape, inputs.dtype)

    return perturb


def masking_noise(rate: Scalar) -> Perturbation:
    r"""Set each element to 0 with the probability $\nu$ = `rate`, and leave the others as they are.

    Unlike dropout it does not enlarge what is left: the clean input is what is to be found.

    Args:
        rate: $\nu$, in [0, 1].

    Returns:
        `perturb(key, inputs)`, for inputs of any shape.

    Raises:
        ValueError: `rate` is not in [0, 1].

    Example:
        >>> import torch
        >>> masking_noise(0.5)(random.key(0), torch.arange(1.0, 7))
        tensor([1., 2., 0., 0., 5., 0.])

    References:
        Vincent, Larochelle, Bengio, Manzagol (2008), "Extracting and composing robust features with
        denoising autoencoders", which hides a fixed number of elements, $\nu d$ of $d$.
    """
    hide = random_mask(rate)
    return lambda key, inputs: inputs.masked_fill(hide(key, inputs), 0)
