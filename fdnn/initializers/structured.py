"""Initializers that give the whole tensor a structure: orthogonal, sparse, identity maps."""

from __future__ import annotations

import math
from typing import Any

import torch
from torch import Tensor

from fdnn import random
from fdnn.initializers.building import as_scalar, check_not_negative, initializer
from fdnn.types import Initializer, Key, Scalar

__all__ = ["dirac", "identity", "orthogonal", "sparse"]


def orthogonal(gain: Scalar = 1.0) -> Initializer:
    """Draw a (semi-)orthogonal matrix W, uniformly: W W^T or W^T W is gain^2 times the identity.

    A shape of more than 2 dimensions stands for the matrix `(shape[0], prod(shape[1:]))`. Q comes
    from the QR decomposition of a matrix of standard normal numbers, its columns signed so that
    the diagonal of R is positive, which makes its distribution the uniform (Haar) one.

    Args:
        gain: factor on the matrix; see `calculate_gain`.

    Returns:
        An initializer for shapes of at least 2 dimensions; float16 and bfloat16 are decomposed
        in float32.

    Example:
        >>> weight = orthogonal()(random.key(0), (3, 5))
        >>> torch.allclose(weight @ weight.T, torch.eye(3), atol=1e-5)
        True

    References:
        Saxe, McClelland, Ganguli (2014), "Exact solutions to the nonlinear dynamics of learning
        in deep linear neural networks"; Mezzadri (2007), "How to generate random matrices from
        the classical compact groups", for the signs.
    """

    def sample(key: Key, shape: tuple[int, ...], dtype: torch.dtype) -> Tensor:
        if len(shape) < 2:
            raise ValueError(f"`shape` must have at least 2 dimensions, got {shape}")
        rows, columns = shape[0], math.prod(shape[1:])
        tall = random.normal(key, (max(rows, columns), min(rows, columns)), dtype)
        q, r = torch.linalg.qr(tall)
        diagonal = r.diagonal()
        q = q * torch.copysign(torch.ones_like(diagonal), diagonal)
        matrix: Tensor = q if rows >= columns else q.mT
        return matrix.reshape(shape) * as_scalar(gain, key, dtype)

    return initializer(sample)


def sparse(sparsity: float, std: Scalar = 0.01) -> Initializer:
    """Draw a matrix with the same number of zeros in every column, the rest from N(0, std^2).

    ceil(sparsity * rows) entries of each column are zero, at places drawn anew for each: as
    `torch.nn.init.sparse_` does.

    Args:
        sparsity: the fraction of every column that is zero.
        std: standard deviation of the other entries.

    Returns:
        An initializer for shapes of 2 dimensions.

    Raises:
        ValueError: `sparsity` is not in [0, 1], or `std` is negative.

    Example:
        >>> weight = sparse(0.5)(random.key(0), (4, 3))
        >>> (weight == 0).sum(0)
        tensor([2, 2, 2])

    References:
        Martens (2010), "Deep learning via Hessian-free optimization".
    """
    if not 0 <= sparsity <= 1:
        raise ValueError(f"`sparsity` must be in [0, 1], got {sparsity}")
    check_not_negative("std", std)

    def sample(key: Key, shape: tuple[int, ...], dtype: torch.dtype) -> Tensor:
        if len(shape) != 2:
            raise ValueError(f"`shape` must have 2 dimensions, got {shape}")
        key_value, key_place = random.split(key)
        value = random.normal(key_value, shape, dtype) * as_scalar(std, key, dtype)
        rank = torch.arange(shape[0], device=key.device).unsqueeze(1).expand(shape)
        rank = random.permutation(key_place, rank, independent=True)
        return torch.where(rank < math.ceil(sparsity * shape[0]), 0.0, value)

    return initializer(sample)


def dirac(groups: int = 1) -> Initializer:
    """Make a convolution pass its input on: a one at the kernel's centre for each channel.

    Output channel c of every group copies input channel c of that group, as far as there are
    both; the others are zero. The tensor of `torch.nn.init.dirac_`.

    Args:
        groups: the convolution's groups.

    Returns:
        An initializer for shapes `(out, in / groups, *kernel)` of 3 to 5 dimensions. It draws
        nothing.

    Raises:
        ValueError: `groups` is not positive (here), or does not divide the first dimension of a
            shape (when called).

    Example:
        >>> dirac()(random.key(0), (2, 2, 3))
        tensor([[[0., 1., 0.],
                 [0., 0., 0.]],
        <BLANKLINE>
                [[0., 0., 0.],
                 [0., 1., 0.]]])
    """
    if groups < 1:
        raise ValueError(f"`groups` must be positive, got {groups}")

    def sample(key: Key, shape: tuple[int, ...], dtype: torch.dtype) -> Tensor:
        if len(shape) not in (3, 4, 5):
            raise ValueError(f"`shape` must have 3, 4 or 5 dimensions, got {shape}")
        if shape[0] % groups:
            raise ValueError(f"`groups` must divide shape[0] = {shape[0]}, got {groups}")
        kernel = key.new_zeros(shape, dtype=dtype)
        if kernel.numel():
            centre: tuple[Any, ...] = (..., *(size // 2 for size in shape[2:]))
            group = torch.eye(shape[0] // groups, shape[1], dtype=dtype, device=key.device)
            kernel[centre] = group.repeat(groups, 1)
        return kernel

    return initializer(sample)


def identity(gain: Scalar = 1.0) -> Initializer:
    """Fill with `gain` on the diagonal and zeros elsewhere (`torch.nn.init.eye_` at gain 1).

    Args:
        gain: the diagonal.

    Returns:
        An initializer for shapes of 2 dimensions. It draws nothing.

    Example:
        >>> identity()(random.key(0), (2, 3))
        tensor([[1., 0., 0.],
                [0., 1., 0.]])
    """

    def sample(key: Key, shape: tuple[int, ...], dtype: torch.dtype) -> Tensor:
        if len(shape) != 2:
            raise ValueError(f"`shape` must have 2 dimensions, got {shape}")
        diagonal = torch.eye(*shape, dtype=dtype, device=key.device) * as_scalar(gain, key, dtype)
        return key.new_zeros(shape, dtype=dtype) + diagonal

    return initializer(sample)
