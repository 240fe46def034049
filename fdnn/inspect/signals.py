"""How large the signal is in every layer on its way forward, and the gradient on its way back."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, NamedTuple

import torch
from torch import Tensor, nn
from torch._functorch.eager_transforms import _autograd_grad

from fdnn import tree
from fdnn.inspect.layers import intercepted, named_layers, owner, tensors
from fdnn.inspect.norms import norm
from fdnn.model import Model
from fdnn.train.batches import arguments
from fdnn.train.step import scalar_loss
from fdnn.types import Buffers, Key, Params

__all__ = ["LayerSignals", "signal_propagation"]


class LayerSignals(NamedTuple):
    """What `signal_propagation` saw of one call of a layer; 0-d tensors.

    Attributes:
        mean: mean of the output, over examples and units.
        std: standard deviation of the output, over examples and units.
        grad_norm: Euclidean norm of the loss's gradient with respect to the output.
        weight_grad_norm: Euclidean norm of the loss's gradient with respect to the layer's
            weights; 0 if it has none.
        dead: the share of units that are exactly 0 for every example.
        saturated: the share of outputs close to a bound; 0 for a layer without bounds.
    """

    mean: Tensor
    std: Tensor
    grad_norm: Tensor
    weight_grad_norm: Tensor
    dead: Tensor
    saturated: Tensor


def signal_propagation(
    model: Model,
    params: Params,
    buffers: Buffers,
    batch: Any,
    criterion: Callable[[Any, Any], Tensor],
    *,
    key: Key | None = None,
    train: bool = True,
    threshold: float = 0.05,
) -> dict[str, LayerSignals]:
    """Measure the signal in every layer, in one forward and one backward pass.

    With h the output of a layer and L the loss, `mean` and `std` are those of h's entries,
    `grad_norm` is ||dL/dh|| and `weight_grad_norm` is ||dL/dw||, w the parameters in the layer
    (and in no layer further in) but those with "bias" in their name.

    `dead`: a unit is one entry of an example's output (of a convolution: a channel at a place); it
    is dead if it is exactly 0 along the whole first dimension, which is taken to be the batch. It
    speaks of ReLU and its kin: few others give an exact 0.

    `saturated`: of Sigmoid, Hardsigmoid, Tanh, Softsign, Hardtanh and ReLU6, which are bounded by
    a and b, the outputs not above a + `threshold` (b - a) or not below b - `threshold` (b - a).
    With 0.05 these are the sigmoids outside of (0.05, 0.95) and the tanhs outside of (-0.9, 0.9).

    A layer is a module without parts, or one that holds parameters itself. Only modules are
    seen, not functions called in a `forward`. Of an output with several tensors, `mean`, `std`,
    `dead` and `saturated` are of the first, `grad_norm` is of all together.

    Args:
        model: from `functionalize`.
        params: parameters by dotted name.
        buffers: buffers by dotted name.
        batch: `(*inputs, target)`; a mapping in front holds keyword arguments.
        criterion: `criterion(output, target)` gives the loss, a 0-d tensor.
        key: the source of randomness, for a model that draws.
        train: run in train mode, as a training step does.
        threshold: how close to a bound is saturated, as a fraction of the range.

    Returns:
        A dict from the layers' dotted names, in the order of their calls, to their signals. The
        second call of one layer is called "name:2", and so on; each has its own `grad_norm`, the
        `weight_grad_norm` is that of all calls. Under vmap every tensor has one entry a lane.

    Raises:
        ValueError: the criterion does not return a 0-d tensor, `threshold` is not in [0, 0.5], or
            something is drawn and `key` is None.

    Example:
        >>> import torch.nn.functional as F
        >>> from fdnn import functionalize, random
        >>> model = functionalize(nn.Sequential(nn.Linear(4, 8), nn.ReLU(), nn.Linear(8, 2)))
        >>> batch = torch.ones(3, 4), torch.tensor([0, 1, 1])
        >>> def signals(key):
        ...     return signal_propagation(model, *model.init(key), batch, F.cross_entropy)
        >>> list(signals(random.key(0)))
        ['0', '1', '2']
        >>> torch.vmap(signals)(random.split(random.key(0), 5))["1"].dead.shape
        torch.Size([5])

    References:
        Glorot, Bengio (2010), "Understanding the difficulty of training deep feedforward neural
        networks", whose figures show these quantities layer by layer.
    """
    if not 0 <= threshold <= 0.5:
        raise ValueError(f"`threshold` must be in [0, 0.5], got {threshold}")
    *inputs, target = batch
    args, keywords = arguments(inputs)
    layers = named_layers(model.skeleton(train))

    def passes(params: Params, anchor: Tensor) -> tuple[Tensor, dict[str, LayerSignals]]:
        seen: dict[str, tuple[str, list[Tensor]]] = {}

        def see(name: str, compute: Callable[[], Any]) -> Any:
            # The anchor makes an output differentiable that depends on no parameter. What goes on
            # is a copy, for the next layer may write into it.
            output = tree.map(lambda x: x + anchor.to(x.dtype) if _floats(x) else x, compute())
            found = [x for x in tensors(output) if _floats(x)]
            if not found:
                return output
            calls = 1 + sum(layer == name for layer, _ in seen.values())
            seen[name if calls == 1 else f"{name}:{calls}"] = name, found
            return tree.map(lambda x: x.clone() if _floats(x) else x, output)

        with intercepted(layers, see):
            output, _ = model.apply(params, buffers, *args, key=key, train=train, **keywords)
        value = scalar_loss(criterion(output, target))
        outputs = [x for _, found in seen.values() for x in found]
        grads = iter(_autograd_grad((value,), [*params.values(), *outputs]))
        weight_grads: dict[str | None, list[Tensor]] = {}
        names = {name for name, _ in seen.values()}
        for path in params:
            grad = next(grads)
            if "bias" not in path.rpartition(".")[2]:
                weight_grads.setdefault(owner(path, names), []).append(grad)
        return value, {
            call: _signals(
                found[0],
                [next(grads) for _ in found],
                weight_grads.get(name, []),
                _bounds(layers[name]),
                threshold,
            )
            for call, (name, found) in seen.items()
        }

    anchor = torch.zeros((), device=next(iter(params.values())).device if params else None)
    # Inside of vjp outputs of layers can be differentiated by, like arguments.
    signals: dict[str, LayerSignals]
    *_, signals = torch.func.vjp(passes, params, anchor, has_aux=True)  # type: ignore[assignment]
    return signals


def _signals(
    output: Tensor,
    output_grads: list[Tensor],
    weight_grads: list[Tensor],
    bounds: tuple[float, float] | None,
    threshold: float,
) -> LayerSignals:
    wide = output.to(torch.promote_types(output.dtype, torch.float32))
    saturated = torch.zeros_like(wide)
    if bounds is not None:
        low, high = bounds
        margin = threshold * (high - low)
        saturated = ((wide <= low + margin) | (wide >= high - margin)).to(wide.dtype)
    return LayerSignals(
        mean=wide.mean(),
        std=wide.std(correction=0),
        grad_norm=norm(output_grads, like=wide),
        weight_grad_norm=norm(weight_grads, like=wide),
        dead=(wide == 0).all(0).to(wide.dtype).mean(),
        saturated=saturated.mean(),
    )


def _bounds(layer: nn.Module) -> tuple[float, float] | None:
    if isinstance(layer, nn.Hardtanh):
        return layer.min_val, layer.max_val
    if isinstance(layer, nn.Sigmoid | nn.Hardsigmoid):
        return 0.0, 1.0
    return (-1.0, 1.0) if isinstance(layer, nn.Tanh | nn.Softsign) else None


def _floats(x: Any) -> bool:
    return isinstance(x, Tensor) and x.is_floating_point()
