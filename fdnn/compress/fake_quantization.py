"""Fake quantization: numbers rounded to those of few bits, in floating point, with a gradient."""

from __future__ import annotations

from typing import NamedTuple

import torch
from torch import Tensor

from fdnn import tree
from fdnn.compress.masks import chosen
from fdnn.types import Params, Scalar, Where

__all__ = [
    "QuantizationParams",
    "fake_quantize",
    "fake_quantize_params",
    "quantization_params",
    "quantization_range",
    "ranges",
]


class QuantizationParams(NamedTuple):
    """Which real numbers integers stand for: `(q - zero_point) * scale`.

    Attributes:
        scale: the distance of neighbours, above 0; 0-d, or one for each channel.
        zero_point: the integer that stands for 0, of the shape of `scale`, in its dtype.
    """

    scale: Tensor
    zero_point: Tensor


def fake_quantize(
    input: Tensor,
    scale: Scalar,
    zero_point: Scalar = 0,
    *,
    num_bits: int | Tensor = 8,
    axis: int | None = None,
) -> Tensor:
    r"""Round to the numbers that integers of few bits stand for.

    With $q = \mathrm{clamp}(\mathrm{round}(x \cdot \frac{1}{s}) + z, -2^{b-1}, 2^{b-1} - 1)$ the
    result is $s (q - z)$; halves are rounded to the even integer.

    The derivative of rounding is taken to be 1 (straight-through): that in $x$ is 1 where nothing
    was clamped, else 0, as torch's. That in $s$ is $\mathrm{round}(x / s) - x / s$, or $q - z$
    where clamped, so that a scale can be learned.

    Args:
        input: $x$, floating-point.
        scale: $s$, above 0: a number, or a 0-d tensor; with `axis` a tensor of shape `(channels,)`;
            without it also any shape that broadcasts to that of `input`.
        zero_point: $z$, a whole number; as `scale`.
        num_bits: $b$, at least 2; a 0-d tensor to sweep over it by `vmap`.
        axis: the dimension of channels, each of which has its own scale; None for one of all.

    Returns:
        A tensor like `input`.

    Raises:
        TypeError: `input` is not floating-point.
        ValueError: `num_bits` is below 2, `scale` is not positive, or, with `axis`, a tensor has
            not one entry for each channel.

    Example:
        >>> x = torch.tensor([0.26, -0.4, 9.0])
        >>> fake_quantize(x, 0.5, num_bits=4)
        tensor([ 0.5000, -0.5000,  3.5000])
        >>> torch.func.grad(lambda x: fake_quantize(x, 0.5, num_bits=4).sum())(x)
        tensor([1., 1., 0.])

    References:
        Jacob, Kligys, Chen, Zhu, Tang, Howard, Adam, Kalenichenko (2018), "Quantization and
        training of neural networks for efficient integer-arithmetic-only inference".
        `torch.fake_quantize_per_tensor_affine` and `_per_channel_affine`, which have no derivative
        in the scale; that is of Esser, McKinstry, Bablani, Appuswamy, Modha (2020), "Learned step
        size quantization".
    """
    if not input.is_floating_point():
        raise TypeError(f"`input` must be floating-point, got {input.dtype}")
    if not isinstance(scale, Tensor) and not scale > 0:
        raise ValueError(f"`scale` must be positive, got {scale}")
    low, high = quantization_range(num_bits)
    step, zero = (_along(name, v, input, axis) for name, v in _named(scale, zero_point))
    scaled = input * (1 / step)
    q = scaled + (scaled.round() - scaled).detach() + zero
    q = torch.where(q < low, low, torch.where(q > high, high, q))
    return ((q - zero) * step).to(input.dtype)


def quantization_params(
    low: Tensor, high: Tensor, *, num_bits: int | Tensor = 8, symmetric: bool = True
) -> QuantizationParams:
    r"""Choose scale and zero point for numbers between two bounds, 0 among them.

    With $l = \min(\text{low}, 0)$, $h = \max(\text{high}, 0)$ and $n = 2^b - 1$ steps: symmetric $s
    = \max(-l, h) / (n / 2)$, $z = 0$; otherwise $s = (h - l) / n$, $z = -2^{b-1} -
    \mathrm{round}(l / s)$, in the range of the integers. Symmetric, the largest positive number is
    rounded down by half a step.

    Args:
        low: the smallest number, or one for each channel.
        high: the largest, of the shape of `low`.
        num_bits: $b$, at least 2; may be a 0-d tensor.
        symmetric: whether 0 is the integer 0.

    Returns:
        Scale and zero point, of the shape of `low`. The scale is at least 1.2e-7, as in torch. No
        gradient goes through.

    Raises:
        ValueError: `num_bits` is below 2, or the shapes differ.

    Example:
        >>> quantization_params(torch.tensor(-1.0), torch.tensor(3.0), num_bits=2, symmetric=False)
        QuantizationParams(scale=tensor(1.3333), zero_point=tensor(-1.))

    References:
        `torch.ao.quantization.MinMaxObserver` and `torchao`, for int8 with all 256 values.
    """
    if low.shape != high.shape:
        raise ValueError(
            f"`high` must have the shape of `low`, {tuple(low.shape)}, got {tuple(high.shape)}"
        )
    smallest, largest = quantization_range(num_bits)
    low, high = low.detach().clamp(max=0), high.detach().clamp(min=0)
    tiny = torch.finfo(torch.float32).eps
    if symmetric:
        half = (_like(largest, low) - smallest) / 2
        scale = (torch.maximum(-low, high) / half).clamp(min=tiny)
        return QuantizationParams(scale, torch.zeros_like(scale))
    scale = ((high - low) / (_like(largest, low) - smallest)).clamp(min=tiny)
    zero = smallest - (low / scale).round()
    return QuantizationParams(
        scale, torch.minimum(torch.maximum(zero, _like(smallest, low)), _like(largest, low))
    )


def fake_quantize_params(
    params: Params,
    *,
    num_bits: int | Tensor = 8,
    symmetric: bool = True,
    axis: int | None = 0,
    where: Where | None = None,
) -> Params:
    """Fake-quantize parameters, each by its own range: what weights of few bits cost, in one line.

    In a loss it is quantization-aware training of the weights: `loss(fake_quantize_params(params),
    buffers, batch, key)`; the gradient is that of `fake_quantize`, the scale taken as constant.

    Args:
        params: parameters, a tree.
        num_bits: at least 2; a 0-d tensor to sweep over it by `vmap`.
        symmetric: whether 0 is the integer 0, so that pruned weights stay 0 (they do otherwise
            too, but the integer is another).
        axis: the dimension each of whose places has its own scale, such as 0, the outputs of a
            linear layer or convolution; None for one scale for each tensor.
        where: which leaves: a glob on paths, several globs, or a predicate `(path, leaf)`; those
            of two dimensions or more if left out.

    Returns:
        A tree like `params`.

    Raises:
        ValueError: as `fake_quantize`; a glob matches no path, or nothing is chosen.

    Example:
        >>> params = {"weight": torch.tensor([[1.0, 0.3], [10.0, 3.0]]), "bias": torch.ones(1)}
        >>> found = fake_quantize_params(params, num_bits=2)
        >>> found["weight"], found["bias"]
        (tensor([[0.6667, 0.0000],
                [6.6667, 0.0000]]), tensor([1.]))
    """
    paths = chosen(params, where, None)

    def quantized(path: str, x: Tensor) -> Tensor:
        if path not in paths:
            return x
        found = quantization_params(*ranges(x, axis), num_bits=num_bits, symmetric=symmetric)
        return fake_quantize(x, *found, num_bits=num_bits, axis=axis)

    result: Params = tree.map_with_path(quantized, params)
    return result


def quantization_range(num_bits: int | Tensor) -> tuple[int | Tensor, int | Tensor]:
    """Return the smallest and the largest integer of so many bits."""
    if isinstance(num_bits, Tensor):
        top = 2 ** (num_bits - 1)
        return -top, top - 1
    if num_bits < 2 or num_bits != int(num_bits):
        raise ValueError(f"`num_bits` must be a whole number of at least 2, got {num_bits}")
    return -(2 ** (num_bits - 1)), 2 ** (num_bits - 1) - 1


def ranges(x: Tensor, axis: int | None) -> tuple[Tensor, Tensor]:
    """Return the smallest and the largest number, of all or of each channel."""
    flat = x.reshape(-1) if axis is None else x.movedim(axis, 0).flatten(1)
    low, high = flat.detach().aminmax(dim=-1)
    return low, high


def _named(scale: Scalar, zero_point: Scalar) -> tuple[tuple[str, Scalar], ...]:
    return ("scale", scale), ("zero_point", zero_point)


def _along(name: str, value: Scalar, x: Tensor, axis: int | None) -> Tensor:
    """Bring a scale into the shape of the channels of `x`."""
    if not isinstance(value, Tensor):
        return torch.tensor(value, dtype=x.dtype, device=x.device)
    new = value if value.is_floating_point() else value.to(x.dtype)
    if axis is None or not new.ndim:
        return new
    if tuple(new.shape) != (x.shape[axis],):
        raise ValueError(
            f"`{name}` must have one entry for each of the {x.shape[axis]} channels along `axis` "
            f"{axis}, got shape {tuple(new.shape)}"
        )
    return new.reshape([-1 if d == axis % x.ndim else 1 for d in range(x.ndim)])


def _like(value: int | Tensor, x: Tensor) -> Tensor:
    return torch.as_tensor(value, device=x.device).to(x.dtype)
