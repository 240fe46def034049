"""Normalization folded into the layer before or behind it, once a network is trained."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Sequence
from typing import Any, NamedTuple

import torch
from torch import Tensor, nn

from fdnn.compress.chains import CONVS, IDENTITIES, Link, chains, check_plain
from fdnn.compress.following import NORMS, pads_zeros
from fdnn.model import Model, functionalize
from fdnn.types import Buffers, Params

__all__ = ["fold_batch_norm", "fold_layer_norm"]

Fold = Callable[[Params, Buffers], tuple[Params, Buffers]]
"""`fold(params, buffers) -> (params, buffers)`: values of the folded model from the first one's."""


def fold_batch_norm(model: Model) -> tuple[Model, Fold]:
    r"""Fold batch norm, as it is in eval mode, into the layer before it or behind it.

    With $s = \gamma / \sqrt{\sigma^2 + \epsilon}$ and $t = \beta - s \mu$, batch norm is
    $s x + t$. Behind $W x + b$ it is folded to $\text{diag}(s) W$ and $s b + t$; before it, to
    $W \text{diag}(s)$ and $b + W t$.

    Looked at are `nn.Sequential` (`fdnn.nn.MLP` too), wherever in the model they are: batch norm
    directly behind `nn.Linear` (then of inputs of shape (N, features)) or `nn.Conv1d`, `2d`, `3d`,
    otherwise directly before one, with `nn.Flatten` between or not; dropout is passed over. Before
    a convolution that pads with zeros it cannot be folded and stays, as it does anywhere else, and
    where it has no running statistics.

    Args:
        model: from `functionalize`, not frozen in part.

    Returns:
        `(folded, fold)`. `folded` is a model with `nn.Identity` in the place of each batch norm
        that could be folded, its `params` and `buffers` those of `model`, folded. `fold(params,
        buffers)` folds others, trained ones, a stacked run under `vmap`.

    Raises:
        ValueError: there is no batch norm that could be folded, or the model is frozen in part.

    Example:
        >>> net = nn.Sequential(nn.Linear(4, 8, bias=False), nn.BatchNorm1d(8), nn.ReLU())
        >>> model, x = functionalize(net), torch.ones(2, 4)
        >>> folded, fold = fold_batch_norm(model)
        >>> params, buffers = fold(model.params, model.buffers)
        >>> {name: tuple(value.shape) for name, value in params.items()}, buffers
        ({'0.weight': (8, 4), '0.bias': (8,)}, {})
        >>> before, _ = model.apply(model.params, model.buffers, x)
        >>> torch.allclose(folded.apply(params, buffers, x)[0], before, atol=1e-6)
        True

    References:
        Jacob et al. (2018), "Quantization and training of neural networks for efficient
        integer-arithmetic-only inference". `torch.nn.utils.fusion.fuse_conv_bn_eval`, for the layer
        before.
    """
    return _fold(
        model,
        _batch_norm_at,
        "no batch norm directly behind or before a linear layer or "
        "a convolution (without zero padding, if before)",
    )


def fold_layer_norm(model: Model) -> tuple[Model, Fold]:
    r"""Fold the weight and bias of layer norm into the linear layer behind it.

    $W (\gamma \odot \hat x + \beta) + b = W \text{diag}(\gamma) \hat x + (b + W \beta)$; the
    normalization itself, $\hat x$, stays. Looked at are chains as in `fold_batch_norm`:
    `nn.LayerNorm` over the last dimension, or `nn.RMSNorm`, directly before an `nn.Linear`.

    Args:
        model: from `functionalize`, not frozen in part.

    Returns:
        `(folded, fold)`, as of `fold_batch_norm`. The norms have `elementwise_affine=False`.

    Raises:
        ValueError: there is no layer norm that could be folded, or the model is frozen in part.

    Example:
        >>> net = nn.Sequential(nn.LayerNorm(4), nn.Linear(4, 3))
        >>> folded, fold = fold_layer_norm(functionalize(net))
        >>> list(folded.params)
        ['1.weight', '1.bias']

    References:
        Ashkboos et al. (2024), "SliceGPT: compress large language models by deleting rows and
        columns".
    """
    return _fold(model, _layer_norm_at, "no layer norm with weights directly before a linear layer")


class _Step(NamedTuple):
    """One norm that goes into one layer.

    Attributes:
        norm: its dotted name.
        into: the layer's.
        affine: gives scale and shift from the norm's tensors, by their own names.
        is_behind: whether the norm is behind the layer.
        repeat: how many inputs of the layer belong to one feature, if it is before.
        groups: those of the layer.
        left: what takes the place of the norm.
    """

    norm: str
    into: str
    affine: Callable[[dict[str, Tensor]], tuple[Tensor, Tensor | None]]
    is_behind: bool
    repeat: int
    groups: int
    left: nn.Module


Find = Callable[[Sequence[Link], int], _Step | None]


def _fold(model: Model, find: Find, missing: str) -> tuple[Model, Fold]:
    check_plain(model)
    net = model.to_module(model.params, model.buffers)
    steps = []
    for chain in chains(net):
        for i, link in enumerate(chain):
            step = find(chain, i)
            if step is None:
                continue
            steps.append(step)
            net.set_submodule(step.norm, step.left)
            chain[i] = Link(link.path, step.left, shared=False)
    if not steps:
        raise ValueError(f"`model` has nothing to fold: {missing}")
    for step in steps:
        layer = net.get_submodule(step.into)
        if layer.bias is None:
            weight: Any = layer.weight
            layer.bias = nn.Parameter(weight.new_zeros(len(weight)))
    made = functionalize(net)

    def fold(params: Params, buffers: Buffers) -> tuple[Params, Buffers]:
        values = {**params, **buffers}
        for step in steps:
            _apply(step, values)
        return (
            {name: values[name] for name in made.params},
            {name: values[name] for name in made.buffers},
        )

    params, buffers = fold(model.params, model.buffers)
    return dataclasses.replace(made, params=params, buffers=buffers), fold


def _apply(step: _Step, values: dict[str, Tensor]) -> None:
    """Fold one norm, in place in a dict of values."""
    own = {
        name.removeprefix(f"{step.norm}."): value
        for name, value in values.items()
        if name.startswith(f"{step.norm}.")
    }
    scale, shift = step.affine(own)
    weight, bias = values[f"{step.into}.weight"], values.get(f"{step.into}.bias")
    if step.is_behind:
        rows = (-1,) + (1,) * (weight.ndim - 1)
        new, offset = weight * scale.reshape(rows), None if bias is None else bias * scale
    else:
        scale = scale.repeat_interleave(step.repeat)
        new = _by_input(weight, scale, step.groups)
        offset = bias
        if shift is not None:
            shift = shift.repeat_interleave(step.repeat)
            shift = _by_input(weight, shift, step.groups).flatten(1).sum(1)
    total = [x for x in (offset, shift) if x is not None]
    values[f"{step.into}.weight"] = new
    values[f"{step.into}.bias"] = sum(total[1:], total[0]) if total else torch.zeros_like(new[:, 0])


def _by_input(weight: Tensor, factor: Tensor, groups: int) -> Tensor:
    """Multiply what reads an input by the factor of that input."""
    parts = torch.unflatten(weight, 0, (groups, -1))  # (groups, outputs, inputs, kernel)
    shape = (groups, 1, -1) + (1,) * (weight.ndim - 2)
    product: Tensor = (parts * factor.reshape(shape)).flatten(0, 1)
    return product


def _batch_norm_at(chain: Sequence[Link], i: int) -> _Step | None:
    norm: Any = chain[i].layer
    if chain[i].kind not in NORMS or norm.running_mean is None:
        return None
    dims, eps, path = NORMS[chain[i].kind], norm.eps, chain[i].path

    def affine(own: dict[str, Tensor]) -> tuple[Tensor, Tensor]:
        scale = torch.rsqrt(own["running_var"] + eps)
        scale = scale * own["weight"] if "weight" in own else scale
        shift = -own["running_mean"] * scale
        return scale, shift + own["bias"] if "bias" in own else shift

    before, _ = _neighbour(chain, i, -1)
    if before is not None:
        layer: Any = before.layer
        fits = before.kind is nn.Linear and dims == 1 and layer.out_features == norm.num_features
        if fits or CONVS.get(before.kind) == dims:
            return _Step(path, before.path, affine, True, 1, 1, nn.Identity())
    behind, is_flat = _neighbour(chain, i, 1)
    if behind is None:
        return None
    layer = behind.layer
    if CONVS.get(behind.kind) == dims and not is_flat and not pads_zeros(layer):
        return _Step(path, behind.path, affine, False, 1, layer.groups, nn.Identity())
    if behind.kind is nn.Linear and (is_flat or (dims == 1 and not _on_maps(chain, i))):
        repeat = layer.in_features // norm.num_features
        if repeat * norm.num_features == layer.in_features and (is_flat or repeat == 1):
            return _Step(path, behind.path, affine, False, repeat, 1, nn.Identity())
    return None


def _layer_norm_at(chain: Sequence[Link], i: int) -> _Step | None:
    norm: Any = chain[i].layer
    if chain[i].kind not in (nn.LayerNorm, nn.RMSNorm) or norm.weight is None:
        return None
    behind, is_flat = _neighbour(chain, i, 1)
    if behind is None or behind.kind is not nn.Linear or is_flat:
        return None
    if tuple(norm.normalized_shape) != (behind.layer.in_features,):
        return None

    def affine(own: dict[str, Tensor]) -> tuple[Tensor, Tensor | None]:
        return own["weight"], own.get("bias")

    plain = chain[i].kind(norm.normalized_shape, eps=norm.eps, elementwise_affine=False)
    return _Step(chain[i].path, behind.path, affine, False, 1, 1, plain.eval())


def _neighbour(chain: Sequence[Link], i: int, direction: int) -> tuple[Link | None, bool]:
    """The next layer that does something, and whether a flattening lies on the way to it."""
    is_flat, k = False, i + direction
    while 0 <= k < len(chain):
        layer: Any = chain[k].layer
        if chain[k].kind is nn.Flatten and direction > 0:
            if (layer.start_dim, layer.end_dim) != (1, -1):
                return None, is_flat
            is_flat = True
        elif chain[k].kind not in IDENTITIES:
            return chain[k], is_flat
        k += direction
    return None, is_flat


def _on_maps(chain: Sequence[Link], i: int) -> bool:
    """Tell whether a batch norm stands in the convolutional part of a chain."""
    for link in reversed(chain[:i]):
        if link.kind in (nn.Linear, nn.Flatten):
            return False
        if link.kind in CONVS:
            return True
    return False
