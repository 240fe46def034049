"""int8 networks, by torchao."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import torch
from torch import nn

from fdnn.compress.calibration import linear_layers
from fdnn.compress.fake_quantization import QuantizationParams
from fdnn.compress.quantization_aware import check_scheme
from fdnn.model import Model
from fdnn.types import Buffers, Params, Where

__all__ = ["quantize"]


def quantize(
    model: Model,
    params: Params,
    buffers: Buffers,
    scheme: str = "int8_dynamic",
    *,
    calibration: Mapping[str, QuantizationParams] | None = None,
    where: Where | None = None,
) -> nn.Module:
    """Return an ordinary module whose linear layers hold int8 weights, by torchao.

    Weights have a scale for each output, symmetric. In "int8_dynamic" the inputs are quantized as
    they come, each row by its own range, and the matrix product is one of integers; in
    "int8_static" all by the range that `calibrate` found; in "int8_weight_only" they stay, and the
    weight is converted back when it is used. Biases and other layers stay in floating point. Fold
    batch norm before, `fold_batch_norm`.

    Args:
        model: from `functionalize`.
        params: parameters of one run: trained as usual (post-training quantization), or by
            `quantization_aware` in the same scheme.
        buffers: buffers of one run.
        scheme: "int8_dynamic", "int8_weight_only" or "int8_static".
        calibration: from `calibrate`, for "int8_static".
        where: which layers: a glob on dotted names, several globs, or a predicate `(path, layer)`;
            all `nn.Linear` if left out.

    Returns:
        A module in eval mode, without gradients. Its weights are torchao's tensors: `torch.compile`
        and `torch.export` take it, `functionalize` and `vmap` do not.

    Raises:
        ImportError: torchao is not installed.
        ValueError: `scheme` is unknown, `calibration` is missing, lacks a layer or is not wanted,
            a glob matches no layer, there is no linear layer; or as `Model.to_module`.

    Example:
        >>> from fdnn import functionalize
        >>> model = functionalize(nn.Linear(4, 2))
        >>> module = quantize(model, model.params, {}, "int8_weight_only")
        >>> wanted, _ = model.apply(model.params, {}, torch.ones(3, 4))
        >>> torch.allclose(module(torch.ones(3, 4)), wanted, atol=0.01)
        True

    References:
        torchao, `quantize_`. Its settings of the compiler, which are global, are left alone.
    """
    check_scheme(scheme, calibration)
    net = model.to_module(params, buffers).requires_grad_(False)
    names = linear_layers(net, where)
    missing = [] if calibration is None else [n for n in names if n not in calibration]
    if missing:
        raise ValueError(f"`calibration` must name the layers {missing}, got {list(calibration)}")  # type: ignore[arg-type]
    ao = _torchao()
    for name in names:
        found = None if calibration is None else calibration[name]
        layer = net.get_submodule(name)
        ao.quantize_(layer, _config(ao, scheme, found), filter_fn=lambda part, path: True)
    return net


def _torchao() -> Any:
    try:
        import torchao.quantization
    except ImportError as error:
        raise ImportError("`quantize` needs torchao: pip install 'fdnn-torch[quantize]'") from error
    return torchao.quantization


def _config(ao: Any, scheme: str, found: QuantizationParams | None) -> Any:
    if scheme == "int8_weight_only":
        return ao.Int8WeightOnlyConfig(set_inductor_config=False)
    if found is None:
        return ao.Int8DynamicActivationInt8WeightConfig(set_inductor_config=False)
    is_symmetric = not bool(found.zero_point.any())
    return ao.Int8StaticActivationInt8WeightConfig(
        act_quant_scale=found.scale,
        act_quant_zero_point=None if is_symmetric else found.zero_point.to(torch.int8),
        act_mapping_type=ao.MappingType.SYMMETRIC if is_symmetric else ao.MappingType.ASYMMETRIC,
        granularity=[ao.PerTensor(), ao.PerRow()],
        set_inductor_config=False,
    )
