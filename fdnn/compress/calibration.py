"""Calibration: which range the numbers in a network have, as pure state."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable
from typing import Any, NamedTuple

import torch
from torch import Tensor, nn

from fdnn import tree
from fdnn.compress.chains import check_visible
from fdnn.compress.fake_quantization import QuantizationParams, quantization_params, ranges
from fdnn.model import Model
from fdnn.types import Buffers, Params, Where

__all__ = ["Observer", "RangeState", "calibrate", "min_max_observer", "percentile_observer"]


class RangeState(NamedTuple):
    """The range of the numbers seen.

    Attributes:
        low: its lower end; or the sum of the lower ends of batches.
        high: its upper end; or the sum of the upper ends.
        batches: how many were seen.
    """

    low: Tensor
    high: Tensor
    batches: Tensor


class Observer(NamedTuple):
    """A way to choose scale and zero point from batches: a triple of pure functions.

    Attributes:
        init: `init(x) -> state`, from any batch, of which dtype, device and channels count.
        update: `update(state, x) -> state`.
        compute: `compute(state) -> QuantizationParams`.
    """

    init: Callable[[Tensor], RangeState]
    update: Callable[[RangeState, Tensor], RangeState]
    compute: Callable[[RangeState], QuantizationParams]


def min_max_observer(
    *, num_bits: int = 8, symmetric: bool = True, axis: int | None = None
) -> Observer:
    """Take the smallest and the largest number of all batches: nothing is clamped.

    Args:
        num_bits: at least 2.
        symmetric: whether 0 is the integer 0.
        axis: the dimension of channels, each with its own range; None for one of all.

    Returns:
        An observer that vmaps and compiles.

    Raises:
        ValueError: `num_bits` is below 2, when computed.

    Example:
        >>> observer = min_max_observer()
        >>> state = observer.init(torch.zeros(2))
        >>> for batch in torch.tensor([[1.0, -255.0], [3.0, 0.0]]):
        ...     state = observer.update(state, batch)
        >>> observer.compute(state)
        QuantizationParams(scale=tensor(2.), zero_point=tensor(0.))

    References:
        `torch.ao.quantization.MinMaxObserver`.
    """

    def update(state: RangeState, x: Tensor) -> RangeState:
        low, high = ranges(x, axis)
        return RangeState(
            torch.minimum(state.low, low), torch.maximum(state.high, high), state.batches + 1
        )

    def compute(state: RangeState) -> QuantizationParams:
        return quantization_params(state.low, state.high, num_bits=num_bits, symmetric=symmetric)

    return Observer(lambda x: _nothing(x, axis, torch.inf), update, compute)


def percentile_observer(
    percentile: float = 99.9,
    *,
    num_bits: int = 8,
    symmetric: bool = True,
    axis: int | None = None,
) -> Observer:
    r"""Take percentiles of each batch, and their mean over batches: outliers are clamped.

    The range leaves out $(100 - p) / 2$ per cent at both ends, and is exact for one batch.

    Args:
        percentile: $p$, in (0, 100].
        num_bits: at least 2.
        symmetric: whether 0 is the integer 0.
        axis: the dimension of channels, each with its own range; None for one of all.

    Returns:
        An observer that vmaps and compiles.

    Raises:
        ValueError: `percentile` is outside its range.

    Example:
        >>> observer = percentile_observer(80.0, symmetric=False)
        >>> x = torch.arange(11.0)
        >>> observer.compute(observer.update(observer.init(x), x)).scale * 255  # 0 to 9
        tensor(9.)

    References:
        Wu, Judd, Zhang, Isaev, Micikevicius (2020), "Integer quantization for deep learning
        inference: principles and empirical evaluation". They keep a histogram of all batches.
    """
    if not 0 < percentile <= 100:
        raise ValueError(f"`percentile` must be in (0, 100], got {percentile}")
    outside = (1 - percentile / 100) / 2

    def update(state: RangeState, x: Tensor) -> RangeState:
        flat = x.detach().reshape(-1) if axis is None else x.detach().movedim(axis, 0).flatten(1)
        low, high = (_quantile(flat, at) for at in (outside, 1 - outside))
        return RangeState(state.low + low, state.high + high, state.batches + 1)

    def compute(state: RangeState) -> QuantizationParams:
        low, high = state.low / state.batches, state.high / state.batches
        return quantization_params(low, high, num_bits=num_bits, symmetric=symmetric)

    return Observer(lambda x: _nothing(x, axis, 0.0), update, compute)


def calibrate(
    model: Model,
    params: Params,
    buffers: Buffers,
    batches: Iterable[Any],
    observer: Observer | None = None,
    *,
    where: Where | None = None,
) -> dict[str, QuantizationParams]:
    """Observe what goes into the linear layers of a model, in eval mode.

    Args:
        model: from `functionalize`.
        params: parameters of one run.
        buffers: buffers of one run.
        batches: inputs of the model, a tensor or a tuple of several each; a few hundred examples
            of the training data.
        observer: `min_max_observer()` if left out.
        where: which layers: a glob on dotted names, several globs, or a predicate `(path, layer)`;
            all `nn.Linear` if left out.

    Returns:
        Scale and zero point of the input of each layer, by its dotted name, in a shape of ones
        that broadcasts to it.

    Raises:
        ValueError: there are no batches, a glob matches no layer, a layer was not called, or the
            observer has an axis.
        RuntimeError: called under vmap, grad or the compiler.

    Example:
        >>> from fdnn import functionalize
        >>> model = functionalize(nn.Sequential(nn.Linear(2, 2), nn.ReLU(), nn.Linear(2, 1)))
        >>> x = torch.tensor([[127.5, 1.0]])
        >>> calibrate(model, model.params, {}, [x], where="0")
        {'0': QuantizationParams(scale=tensor([[1.]]), zero_point=tensor([[0.]]))}
    """
    check_visible("calibrate")
    observer = observer or min_max_observer()
    net = model.to_module(params, buffers)
    states: dict[str, RangeState] = {}
    dims: dict[str, int] = {}

    def watch(path: str) -> Callable[..., None]:
        def see(layer: nn.Module, args: tuple[Any, ...]) -> None:
            states[path] = observer.update(states.get(path) or observer.init(args[0]), args[0])
            dims[path] = args[0].ndim

        return see

    names = linear_layers(net, where)
    for path in names:
        net.get_submodule(path).register_forward_pre_hook(watch(path))
    with torch.no_grad():
        for batch in batches:
            net(*(batch if isinstance(batch, tuple) else (batch,)))
    if missing := [path for path in names if path not in states]:
        raise ValueError(f"`batches` must reach every layer, got nothing at {missing}")
    found = {path: observer.compute(states[path]) for path in names}
    return {
        path: QuantizationParams(*(_broadcast(x, dims[path], path) for x in found[path]))
        for path in names
    }


def linear_layers(net: nn.Module, where: Where | None) -> list[str]:
    """Names of the linear layers, those that are chosen."""
    found = {path: layer for path, layer in net.named_modules() if type(layer) is nn.Linear}
    if where is None:
        names = list(found)
    else:
        numbers = {path: torch.tensor(i) for i, path in enumerate(found)}
        names = list(
            tree.select(numbers, where)
            if not callable(where)
            else (path for path, layer in found.items() if where(path, layer))
        )
    if not names:
        raise ValueError(f"`where` must choose a linear layer, got none of {list(found)}")
    return names


def _quantile(x: Tensor, at: float) -> Tensor:
    """A quantile along the last dimension, between neighbours linearly; torch's does not vmap."""
    ordered, place = x.sort(dim=-1).values, at * (x.shape[-1] - 1)
    below = math.floor(place)
    above = min(below + 1, x.shape[-1] - 1)
    return torch.lerp(ordered[..., below], ordered[..., above], place - below)


def _broadcast(value: Tensor, ndim: int, path: str) -> Tensor:
    """Bring the one number of a tensor into a shape that broadcasts to it, as torchao wants it."""
    if value.ndim:
        raise ValueError(
            f"`observer` must have one range for the input of {path!r}, got {len(value)}: leave "
            "`axis` out"
        )
    return value.reshape((1,) * ndim)


def _nothing(x: Tensor, axis: int | None, bound: float) -> RangeState:
    shape = () if axis is None else (x.shape[axis],)
    low = x.new_full(shape, bound)
    return RangeState(low, -low, torch.zeros((), dtype=torch.int64, device=x.device))
