"""What becomes of a constant unit on its way from one layer to the next."""

from __future__ import annotations

from typing import Any, NamedTuple

import torch
from torch import Tensor, nn

from fdnn.compress.chains import CONVS, IDENTITIES, Link
from fdnn.nn import ReLUSquared

__all__ = ["NORMS", "Passage", "follow", "pads_zeros"]

ELEMENTWISE = frozenset(
    {
        *(nn.ReLU, nn.ReLU6, nn.LeakyReLU, nn.RReLU, nn.ELU, nn.SELU, nn.CELU, nn.GELU, nn.SiLU),
        *(nn.Mish, nn.Softplus, nn.Softsign, nn.Tanh, nn.Tanhshrink, nn.Hardtanh, nn.Sigmoid),
        *(nn.LogSigmoid, nn.Hardsigmoid, nn.Hardswish, nn.Hardshrink, nn.Softshrink),
        *(nn.Threshold, ReLUSquared),
    }
)
NORMS: dict[type[nn.Module], int] = {nn.BatchNorm1d: 1, nn.BatchNorm2d: 2, nn.BatchNorm3d: 3}
POOLS: dict[type[nn.Module], int] = {
    **{nn.MaxPool1d: 1, nn.MaxPool2d: 2, nn.MaxPool3d: 3},
    **{nn.AvgPool1d: 1, nn.AvgPool2d: 2, nn.AvgPool3d: 3},
    **{nn.AdaptiveMaxPool1d: 1, nn.AdaptiveMaxPool2d: 2, nn.AdaptiveMaxPool3d: 3},
    **{nn.AdaptiveAvgPool1d: 1, nn.AdaptiveAvgPool2d: 2, nn.AdaptiveAvgPool3d: 3},
}


class Passage(NamedTuple):
    """The way from one layer to the next.

    Attributes:
        silent: which units arrive as a constant, of shape `(units,)`.
        value: that constant.
        repeat: how many inputs of the next layer are one unit's.
        per_unit: the layers on the way that hold something for each unit.
        uneven: which units arrive as another number at the border, beside zeros.
    """

    silent: Tensor
    value: Tensor
    repeat: int
    per_unit: list[nn.Module]
    uneven: Tensor


def follow(producer: Link, between: list[Link], consumer: Link, silent: Tensor) -> Passage:
    """Follow the units of `producer` to `consumer`.

    Args:
        producer: a linear layer or a convolution.
        between: the layers between.
        consumer: a linear layer or a convolution.
        silent: which units of `producer` have no weights but 0.

    Raises:
        NotImplementedError: a layer mixes units, or what it does is not known; the message is a
            reason.
    """
    first: Any = producer.layer
    dims = CONVS.get(producer.kind, 0)
    if dims and first.groups != 1:
        raise NotImplementedError("it has groups")
    value = torch.zeros_like(first.weight.flatten(1)[:, 0]) if first.bias is None else first.bias
    per_unit: list[nn.Module] = []
    uneven, is_flat = torch.zeros_like(silent), False
    for link in between:
        layer: Any = link.layer
        kind = link.kind
        if kind in IDENTITIES:
            continue
        if kind in ELEMENTWISE:
            value = layer(value.clone())  # it may work in place
        elif kind is nn.PReLU and (layer.num_parameters == 1 or not is_flat):
            value = torch.where(value > 0, value, layer.weight * value)
            per_unit += [layer] * (layer.num_parameters > 1)
        elif kind in NORMS and not is_flat and _fits(layer, NORMS[kind], dims, len(silent)):
            value, off = _normalized(layer, value)
            silent, uneven = silent | off, uneven & ~off
            per_unit.append(layer)
        elif kind in POOLS and POOLS[kind] == dims and not is_flat:
            if _averages_zeros(layer):
                uneven = uneven | (silent & (value != 0))
            if getattr(layer, "return_indices", False):
                raise NotImplementedError(f"{link.path!r} returns indices")
        elif kind is nn.Flatten and layer.start_dim == 1 and layer.end_dim == -1:
            is_flat = True
        else:
            name = type(layer).__name__
            raise NotImplementedError(f"what {link.path!r}, a {name}, does with units is not known")
    inputs, repeat = _reading(consumer, dims, is_flat, len(silent))
    if repeat < 1 or len(silent) * repeat != inputs:
        raise NotImplementedError(
            f"{consumer.path!r} reads {inputs} inputs, and of {len(silent)} units it is not known "
            "which are theirs"
        )
    last: Any = consumer.layer
    if consumer.kind in CONVS and pads_zeros(last):
        uneven = uneven | (silent & (value != 0))
    return Passage(silent, value, repeat, per_unit, uneven)


def pads_zeros(layer: Any) -> bool:
    """Tell whether a convolution puts zeros around its input."""
    return layer.padding_mode == "zeros" and any(layer._reversed_padding_repeated_twice)


def _fits(layer: Any, norm_dims: int, dims: int, units: int) -> bool:
    has_statistics = layer.running_mean is not None
    return has_statistics and norm_dims == max(dims, 1) and layer.num_features == units


def _normalized(layer: Any, value: Tensor) -> tuple[Tensor, Tensor]:
    """What batch norm makes of constants; and which units it makes constant."""
    normal = (value - layer.running_mean) * torch.rsqrt(layer.running_var + layer.eps)
    if layer.weight is None:
        return normal, torch.zeros_like(normal, dtype=torch.bool)
    off = layer.weight == 0
    shift = 0 if layer.bias is None else layer.bias
    return torch.where(off, shift, normal * layer.weight + shift), off


def _averages_zeros(layer: Any) -> bool:
    padding = getattr(layer, "padding", 0)
    padding = padding if isinstance(padding, tuple) else (padding,)
    if getattr(layer, "divisor_override", None) is not None:
        return True
    return bool(getattr(layer, "count_include_pad", False) and any(padding))


def _reading(consumer: Link, dims: int, is_flat: bool, units: int) -> tuple[int, int]:
    """How many inputs the next layer has, and how many are one unit's (0 if that is unknown)."""
    last: Any = consumer.layer
    if consumer.kind in CONVS:
        fits = CONVS[consumer.kind] == dims and not is_flat and last.groups == 1
        return last.in_channels, int(fits)
    if dims:
        return last.in_features, last.in_features // units if is_flat else 0
    return last.in_features, 1
