"""Calibration after training: logits rescaled so that held-out targets become most likely."""

from __future__ import annotations

from collections.abc import Callable
from typing import NamedTuple

import torch
from torch import Tensor
from torch.nn import functional as F

from fdnn import optim
from fdnn.types import Params
from fdnn.uncertainty.check import at_least_1, labels_fit, two_dimensions

__all__ = [
    "VectorScaling",
    "apply_temperature",
    "apply_vector_scaling",
    "temperature_scaling",
    "vector_scaling",
]


class VectorScaling(NamedTuple):
    """A scale and a bias for each class.

    Attributes:
        scale: factors of the logits, of shape `(classes,)`.
        bias: what is added to them, of shape `(classes,)`; its sum is 0.
    """

    scale: Tensor
    bias: Tensor


def temperature_scaling(logits: Tensor, targets: Tensor, *, max_iter: int = 50) -> Tensor:
    r"""Fit one temperature, under which held-out targets are likeliest.

    $$\underset{T > 0}{\text{arg min}} \; -\frac{1}{n} \sum_i \log \mathrm{softmax}(z_i / T)_{y_i}$$

    By L-BFGS (`optim.lbfgs`) on $\log T$, from $T = 1$. Use held-out examples: on those that the
    network was trained on it looks calibrated. Fits in the dtype of `logits`: to some three digits
    in float32, to eight in float64. Under `vmap` each lane has its temperature, and all `max_iter`
    iterations are computed; compiling them takes minutes, so call it eagerly.

    Args:
        logits: $z$, of shape `(batch, classes)`; of an average of probabilities, their logarithm.
        targets: $y$, integers of shape `(batch,)`.
        max_iter: the largest number of iterations.

    Returns:
        $T$, a 0-d tensor: above 1 for an overconfident network. It goes to 0 if every example is
        classified correctly, and to infinity if logits are of no use.

    Raises:
        ValueError: the shapes do not fit, or `max_iter` is not positive.

    Example:
        >>> import torch
        >>> logits = torch.tensor([[4.0, 0.0]]).expand(4, 2)  # says 0.98, but is right 3 times in 4
        >>> temperature = temperature_scaling(logits, torch.tensor([0, 0, 0, 1]))
        >>> (logits[0] / temperature).softmax(-1)
        tensor([0.7500, 0.2500])

    References:
        Guo, Pleiss, Sun, Weinberger (2017), "On calibration of modern neural networks".
    """
    _fit(logits, targets, max_iter)

    def loss(params: Params) -> Tensor:
        return F.cross_entropy(logits * (-params["log_temperature"]).exp(), targets)

    start = {"log_temperature": logits.new_zeros(())}
    return _minimize(loss, start, max_iter)["log_temperature"].exp()


def apply_temperature(logits: Tensor, temperature: Tensor | float) -> Tensor:
    r"""Divide logits by a temperature: $z / T$. The predicted class stays the same.

    Args:
        logits: $z$, of any shape.
        temperature: $T$, a number or a 0-d tensor.

    Returns:
        Logits of the same shape.

    Raises:
        ValueError: `temperature` is a number that is not positive.

    Example:
        >>> import torch
        >>> apply_temperature(torch.tensor([[4.0, 0.0]]), 2.0)
        tensor([[2., 0.]])
    """
    if not isinstance(temperature, Tensor) and not temperature > 0:
        raise ValueError(f"`temperature` must be positive, got {temperature}")
    return logits / temperature


def vector_scaling(logits: Tensor, targets: Tensor, *, max_iter: int = 100) -> VectorScaling:
    r"""Fit a scale and a bias for each class, under which held-out targets are likeliest.

    $$\underset{w, b}{\text{arg min}} \;
    -\frac{1}{n} \sum_i \log \mathrm{softmax}(w \odot z_i + b)_{y_i}$$

    By L-BFGS (`optim.lbfgs`) from $w = 1$, $b = 0$, on a convex problem. It can change the
    predicted class, and needs more held-out examples than one temperature does: $2 K$ numbers for
    $K$ classes. Fits in the dtype of `logits`; vmaps over lanes.

    Args:
        logits: $z$, of shape `(batch, classes)`.
        targets: $y$, integers of shape `(batch,)`.
        max_iter: the largest number of iterations.

    Returns:
        `scale`, $w$, and `bias`, $b$.

    Raises:
        ValueError: the shapes do not fit, or `max_iter` is not positive.

    Example:
        >>> import torch
        >>> logits = torch.zeros(4, 2)
        >>> found = vector_scaling(logits, torch.tensor([0, 0, 0, 1]))
        >>> apply_vector_scaling(logits[0], *found).softmax(-1)
        tensor([0.7500, 0.2500])

    References:
        Guo, Pleiss, Sun, Weinberger (2017), "On calibration of modern neural networks".
    """
    _fit(logits, targets, max_iter)

    def loss(params: Params) -> Tensor:
        return F.cross_entropy(apply_vector_scaling(logits, **params), targets)

    classes = logits.shape[-1:]
    start = {"scale": logits.new_ones(classes), "bias": logits.new_zeros(classes)}
    return VectorScaling(**_minimize(loss, start, max_iter))


def apply_vector_scaling(logits: Tensor, scale: Tensor, bias: Tensor) -> Tensor:
    r"""Scale and shift logits class by class: $w \odot z + b$.

    Args:
        logits: $z$, of shape `(..., classes)`.
        scale: $w$, of shape `(classes,)`.
        bias: $b$, of shape `(classes,)`.

    Returns:
        Logits of the same shape.

    Example:
        >>> import torch
        >>> scale, bias = torch.tensor([2.0, 3.0]), torch.tensor([0.0, 1.0])
        >>> apply_vector_scaling(torch.ones(1, 2), scale, bias)
        tensor([[2., 4.]])
    """
    return logits * scale + bias


def _fit(logits: Tensor, targets: Tensor, max_iter: int) -> None:
    at_least_1(max_iter=max_iter)
    two_dimensions(logits=logits)
    labels_fit("logits", logits, targets)


def _minimize(loss: Callable[[Params], Tensor], params: Params, max_iter: int) -> Params:
    def value_and_grad(params: Params) -> tuple[Tensor, Params]:
        grads, value = torch.func.grad_and_value(loss)(params)
        return value, grads

    tx = optim.lbfgs(
        max_iter=max_iter,
        tolerance_grad=1e-10,
        tolerance_change=1e-14,
        history_size=10,
        line_search_fn="strong_wolfe",
    )
    value, grads = value_and_grad(params)
    found, _ = optim.step(
        tx, params, grads, tx.init(params), value=value, value_and_grad=value_and_grad
    )
    return dict(found)
