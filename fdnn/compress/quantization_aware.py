"""Quantization-aware training: a model that computes as its int8 twin will."""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping
from typing import Any

import torch.nn.functional as F
from torch import Tensor, nn

from fdnn.compress.calibration import linear_layers
from fdnn.compress.chains import check_plain
from fdnn.compress.fake_quantization import (
    QuantizationParams,
    fake_quantize,
    fake_quantize_params,
    quantization_params,
)
from fdnn.model import Model, functionalize
from fdnn.types import Where

__all__ = ["SCHEMES", "check_scheme", "quantization_aware"]

SCHEMES = ("int8_dynamic", "int8_weight_only", "int8_static")
"""What `quantize` and `quantization_aware` know."""


def quantization_aware(
    model: Model,
    scheme: str = "int8_dynamic",
    *,
    calibration: Mapping[str, QuantizationParams] | None = None,
    num_bits: int = 8,
    where: Where | None = None,
) -> Model:
    """Fake-quantize the linear layers of a model, so that training gets used to few bits.

    The names of parameters are the model's, so training starts from a trained model's parameters,
    or from new ones, and `quantize(model, params, buffers, scheme)` of the plain model makes of
    them what was trained for. Gradients are straight-through (`fake_quantize`); scales are taken as
    constant.

    Args:
        model: from `functionalize`; `train.mixed_precision` goes around the result.
        scheme: "int8_dynamic" (weights by output, inputs by row, as they come),
            "int8_weight_only", or "int8_static" (inputs by the scales of `calibration`).
        calibration: from `calibrate`, for "int8_static".
        num_bits: of weights and inputs; other than 8 for studies, since `quantize` makes int8.
        where: which layers: a glob on dotted names, several globs, or a predicate `(path, layer)`;
            all `nn.Linear` if left out.

    Returns:
        An ordinary `Model`, for `train`, under every transform.

    Raises:
        ValueError: `scheme` is unknown, `calibration` is missing, lacks a layer or is not wanted,
            a glob matches no layer, there is no linear layer, or the model is frozen in part.

    Example:
        >>> import torch
        >>> model = functionalize(nn.Linear(2, 1, bias=False))
        >>> aware = quantization_aware(model, "int8_weight_only", num_bits=2)
        >>> output, _ = aware.apply({"weight": torch.tensor([[0.6, 1.0]])}, {}, torch.eye(2))
        >>> output
        tensor([[0.6667],
                [0.6667]])

    References:
        Jacob and others (2018), "Quantization and training of neural networks for efficient
        integer-arithmetic-only inference".
    """
    check_plain(model)
    check_scheme(scheme, calibration)
    if type(model) is not Model:
        raise ValueError(
            "`model` must be the plain one, got a model that computes in mixed precision: "
            "`train.mixed_precision(quantization_aware(model))`"
        )
    net = model.to_module(model.params, model.buffers)
    for path in linear_layers(net, where):
        layer: Any = net.get_submodule(path)
        layer.__class__ = _FakeQuantizedLinear
        layer.num_bits, layer.scheme = num_bits, scheme
        layer.found = None if calibration is None else _of(calibration, path)
    made = functionalize(net)
    return dataclasses.replace(made, _plans=model._plans)


def check_scheme(scheme: str, calibration: Mapping[str, QuantizationParams] | None) -> None:
    """Raise unless a scheme is known and calibrated as it wants to be."""
    if scheme not in SCHEMES:
        raise ValueError(f"`scheme` must be one of {list(SCHEMES)}, got {scheme!r}")
    if (calibration is None) == (scheme == "int8_static"):
        wanted = "must be given" if calibration is None else "must be left out"
        raise ValueError(f"`calibration` {wanted} for the scheme {scheme!r}")


def _of(calibration: Mapping[str, QuantizationParams], path: str) -> tuple[float, float]:
    """The numbers of a layer, which are constants of the model."""
    if path not in calibration:
        raise ValueError(f"`calibration` must name the layer {path!r}, got {list(calibration)}")
    found = calibration[path]
    return found.scale.item(), found.zero_point.item()


class _FakeQuantizedLinear(nn.Linear):
    num_bits: int
    scheme: str
    found: tuple[float, float] | None

    def forward(self, input: Tensor) -> Tensor:
        weight = fake_quantize_params({"": self.weight}, num_bits=self.num_bits)[""]
        if self.found is not None:
            input = fake_quantize(input, *self.found, num_bits=self.num_bits)
        elif self.scheme == "int8_dynamic":
            low, high = input.detach().aminmax(dim=-1, keepdim=True)
            found = quantization_params(low, high, num_bits=self.num_bits)
            input = fake_quantize(input, *found, num_bits=self.num_bits)
        return F.linear(input, weight, self.bias)
