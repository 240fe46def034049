"""What an ensemble of parameters says: one model called with many parameters at once."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor

from fdnn import tree
from fdnn.model import Model
from fdnn.types import Buffers, Params, Tree

__all__ = ["deep_ensemble", "linearized_ensemble", "regroup"]


def deep_ensemble(
    model: Model,
    params: Params,
    buffers: Buffers,
    *inputs: Any,
    chunk_size: int | None = None,
    **keywords: Any,
) -> Any:
    r"""Compute the outputs of every member of an ensemble: $f(x; \theta_m)$, $m = 1 \dots M$.

    The members are runs from different keys, trained at once (`vmap(step)`, `fdnn.study`); or
    parameters that `snapshots`, `swag_sample` or `laplace_sample` give. Eval mode.

    A tensor that all members share may be left unstacked: buffers that no sample changes, or all
    but the last layer. What depends on shared tensors alone is computed once.

    Args:
        model: from `functionalize`.
        params: $\theta$ by dotted name, stacked: `(members, ...)`, or shared.
        buffers: buffers by dotted name, stacked or shared.
        *inputs: what the module's `forward` takes, the same for all members.
        chunk_size: how many members at once, to save memory; all if None.
        **keywords: keyword arguments of `forward`.

    Returns:
        The outputs as they are (logits; means in regression), `(members, batch, ...)`.

    Raises:
        ValueError: nothing in `params` or `buffers` is stacked, or a tensor has another number of
            dimensions than the module's own, with or without one for the members; or as
            `Model.apply`.

    Example:
        >>> from torch import nn, vmap
        >>> from fdnn import functionalize, random
        >>> model = functionalize(nn.Linear(4, 3))
        >>> params, buffers = vmap(model.init)(random.split(random.key(0), 5))
        >>> deep_ensemble(model, params, buffers, torch.ones(2, 4)).shape
        torch.Size([5, 2, 3])

    References:
        Lakshminarayanan, Pritzel, Blundell (2017), "Simple and scalable predictive uncertainty
        estimation using deep ensembles". Without the adversarial training.
    """
    in_dims = _members("params", model.params, params), _members("buffers", model.buffers, buffers)
    if not any(dim == 0 for dims in in_dims for dim in dims.values()):
        raise ValueError(
            "`params` must be stacked, one more dimension in front than the module's own; got "
            "those of one run"
        )

    def member(params: Params, buffers: Buffers) -> Any:
        return model.apply(params, buffers, *inputs, **keywords)[0]

    return torch.vmap(member, in_dims, chunk_size=chunk_size)(params, buffers)


def linearized_ensemble(
    model: Model,
    params: Params,
    buffers: Buffers,
    samples: Params,
    *inputs: Any,
    chunk_size: int | None = None,
    **keywords: Any,
) -> Any:
    r"""Compute the outputs of an ensemble by the model's linear part around some parameters.

    $f(x; \theta) + \nabla_\theta f(x; \theta)^\top (\theta_m - \theta)$. A Laplace approximation
    takes the model for linear, so its samples fit this better than the model itself, above all in
    full networks, where `deep_ensemble` of them can be far too unsure. Eval mode.

    Args:
        model: from `functionalize`.
        params: $\theta$, the parameters of one run.
        buffers: the buffers of that run.
        samples: $\theta_m$, stacked: some or all of the names in `params`, as `laplace_sample`
            gives them under vmap over keys.
        *inputs: what the module's `forward` takes, the same for all members.
        chunk_size: how many members at once, to save memory; all if None.
        **keywords: keyword arguments of `forward`.

    Returns:
        The outputs, `(members, batch, ...)`.

    Raises:
        ValueError: `samples` has a name that `params` lacks, or is not stacked.

    Example:
        >>> from torch import nn
        >>> from fdnn import functionalize
        >>> model = functionalize(nn.Linear(1, 1))
        >>> samples = {"bias": model.params["bias"] + torch.tensor([[0.0], [1.0]])}
        >>> output = linearized_ensemble(model, model.params, {}, samples, torch.ones(3, 1))
        >>> (output[1] - output[0]).flatten()
        tensor([1., 1., 1.])

    References:
        Immer, Korzepa, Bauer (2021), "Improving predictions of Bayesian neural nets via local
        linearization".
    """
    unknown = [name for name in samples if name not in params]
    if unknown or not samples:
        raise ValueError(f"`samples` must have some of the names of `params`, got {list(samples)}")
    center = {name: params[name] for name in samples}
    if any(dim is None for dim in _members("samples", center, samples).values()):
        raise ValueError(
            "`samples` must be stacked, one more dimension in front than `params`; got one sample"
        )

    def output(chosen: Params) -> Any:
        return model.apply({**params, **chosen}, buffers, *inputs, **keywords)[0]

    # J v by two backward passes, J^T u and then its transpose in u: no forward-mode rules needed.
    value, transposed = torch.func.vjp(output, center)[:2]
    product = torch.func.vjp(lambda u: transposed(u)[0], tree.zeros_like(value))[1]

    def member(sample: Params) -> Any:
        change = {name: sample[name] - center[name] for name in center}
        return tree.map(torch.add, value, product(change)[0])

    return torch.vmap(member, chunk_size=chunk_size)(samples)


def regroup(stacked: Tree, members: int) -> Tree:
    """Divide the lanes of a stacked tree into ensembles: `(S * M, ...)` becomes `(S, M, ...)`.

    So runs that were trained together are S ensembles of M, one to learn how good an ensemble is
    and another S - 1 to learn how sure that is.

    Args:
        stacked: parameters, buffers or a whole state.
        members: M, the runs in an ensemble: lanes 0 ... M - 1 are the first one.

    Returns:
        The tree so divided.

    Raises:
        ValueError: `members` is not positive or does not divide the number of lanes.

    Example:
        >>> regroup({"w": torch.zeros(6, 4)}, 3)["w"].shape
        torch.Size([2, 3, 4])
    """

    def divide(path: str, leaf: Tensor) -> Tensor:
        lanes = leaf.shape[0] if leaf.ndim else 0
        if members < 1 or lanes == 0 or lanes % members:
            raise ValueError(
                f"`members` must divide the number of lanes, {lanes} at path {path!r}, "
                f"got {members}"
            )
        return leaf.reshape(lanes // members, members, *leaf.shape[1:])

    return tree.map_with_path(divide, stacked)


def _members(
    argument: str, own: dict[str, Tensor], given: dict[str, Tensor]
) -> dict[str, int | None]:
    """Say which tensors are stacked: 0 for the dimension of the members, None for none."""
    for name, tensor in given.items():
        if name in own and tensor.ndim not in (own[name].ndim, own[name].ndim + 1):
            raise ValueError(
                f"`{argument}` at path {name!r}: expected shape {tuple(own[name].shape)}, with or "
                f"without a dimension of members in front, found {tuple(tensor.shape)}"
            )
    return {
        name: 0 if name in own and tensor.ndim > own[name].ndim else None
        for name, tensor in given.items()
    }
