"""Fewer bits for a trained network: parameters in another dtype, modules that compute in one."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor, nn

from fdnn import tree
from fdnn.compress.masks import chosen
from fdnn.model import Model
from fdnn.types import Buffers, Params, Where

__all__ = ["cast", "cast_module", "check_float"]


def cast(params: Params, dtype: torch.dtype, *, where: Where | None = None) -> Params:
    """Convert some parameters to another floating-point dtype.

    Matrices and kernels are what takes memory and time. Biases, and the weights and statistics of
    norms, stay as they are, as in `train.mixed_precision`, whose models run on the result: their
    matrix products find the weights in the dtype that they convert to.

    Args:
        params: parameters, a tree.
        dtype: a floating-point one; `torch.float64` will do as well.
        where: which leaves: a glob on paths, several globs, or a predicate `(path, leaf)`; those
            of two dimensions or more if left out. `"*"` is all of them (`tree.cast`). Integers
            stay.

    Returns:
        A tree like `params`. It vmaps.

    Raises:
        TypeError: `dtype` is no floating-point one.
        ValueError: a glob matches no path, or nothing is chosen.

    Example:
        >>> params = cast({"weight": torch.ones(1, 2), "bias": torch.ones(1)}, torch.bfloat16)
        >>> params
        {'weight': tensor([[1., 1.]], dtype=torch.bfloat16), 'bias': tensor([1.])}
    """
    check_float(dtype)
    paths = chosen(params, where, None)
    result: Params = tree.map_with_path(
        lambda path, x: x.to(dtype) if path in paths and x.is_floating_point() else x, params
    )
    return result


def cast_module(model: Model, params: Params, buffers: Buffers, dtype: torch.dtype) -> nn.Module:
    """Return an ordinary module that keeps and computes everything in one dtype, to deploy.

    It converts what it is given, and returns float32. Unlike `train.mixed_precision`, norms and
    softmax run in `dtype` too, so that nothing is converted in between: measure the accuracy.

    Args:
        model: from `functionalize`.
        params: parameters of one run.
        buffers: buffers of one run.
        dtype: a floating-point one.

    Returns:
        A module in eval mode, without gradients.

    Raises:
        TypeError: `dtype` is no floating-point one.
        ValueError: as `Model.to_module`.

    Example:
        >>> from fdnn import functionalize
        >>> model = functionalize(nn.Linear(4, 2))
        >>> module = cast_module(model, model.params, {}, torch.bfloat16)
        >>> module(torch.ones(1, 4)).dtype, module.net.weight.dtype
        (torch.float32, torch.bfloat16)
    """
    check_float(dtype)
    net = model.to_module(tree.cast(params, dtype), tree.cast(buffers, dtype))
    return _Cast(net.requires_grad_(False), dtype).eval()


def check_float(dtype: torch.dtype) -> None:
    """Raise unless a dtype is a floating-point one."""
    if not dtype.is_floating_point:
        raise TypeError(f"`dtype` must be a floating-point dtype, got {dtype}")


class _Cast(nn.Module):
    def __init__(self, net: nn.Module, dtype: torch.dtype) -> None:
        super().__init__()
        self.net, self.dtype = net, dtype

    def forward(self, *args: Any) -> Any:
        return _to(torch.float32, self.net(*_to(self.dtype, args)))


def _to(dtype: torch.dtype, values: Any) -> Any:
    def convert(x: Any) -> Any:
        return x.to(dtype) if isinstance(x, Tensor) and x.is_floating_point() else x

    return tree.map(convert, values)
