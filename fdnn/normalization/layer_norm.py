"""Normalization of each example by itself, over its last dimensions."""

from __future__ import annotations

from collections.abc import Sequence

import torch.nn.functional as F
from torch import Tensor

__all__ = ["layer_norm", "rms_norm"]


def layer_norm(
    x: Tensor,
    normalized_shape: int | Sequence[int],
    weight: Tensor | None = None,
    bias: Tensor | None = None,
    eps: float = 1e-5,
) -> Tensor:
    r"""Give each example mean 0 and variance 1 over its last dimensions, as `nn.LayerNorm`.

    $$y = \frac{x - \mu}{\sqrt{\sigma^2 + \epsilon}} \, \gamma + \beta$$

    with mean $\mu$ and biased variance $\sigma^2$ over the dimensions of `normalized_shape`,
    $\gamma$ the `weight`, $\beta$ the `bias`, $\epsilon$ = `eps`.

    Args:
        x: shape (..., *normalized_shape).
        normalized_shape: the last dimensions of `x`; an int is the last one.
        weight: factors of shape `normalized_shape`; 1 if left out.
        bias: summands of shape `normalized_shape`; 0 if left out.
        eps: added to the variance.

    Returns:
        y in the shape of `x`. No example depends on another.

    Raises:
        ValueError: the shape of `x` does not end in `normalized_shape`.

    Example:
        >>> import torch
        >>> layer_norm(torch.tensor([[1.0, 3.0], [20.0, 60.0]]), 2)
        tensor([[-1.0000,  1.0000],
                [-1.0000,  1.0000]])

    References:
        Ba, Kiros, Hinton (2016), "Layer normalization".
    """
    shape = _last_dimensions(x, normalized_shape)
    return F.layer_norm(x, shape, weight, bias, eps)


def rms_norm(
    x: Tensor,
    normalized_shape: int | Sequence[int],
    weight: Tensor | None = None,
    eps: float | None = None,
) -> Tensor:
    r"""Divide each example by its root mean square over its last dimensions, as `nn.RMSNorm`.

    $$y = \frac{x}{\sqrt{\mathrm{mean}(x^2) + \epsilon}} \, \gamma$$

    with the mean over the dimensions of `normalized_shape`, $\gamma$ the `weight`, $\epsilon$ =
    `eps`. Unlike `layer_norm` it does not subtract the mean.

    Args:
        x: shape (..., *normalized_shape).
        normalized_shape: the last dimensions of `x`; an int is the last one.
        weight: factors of shape `normalized_shape`; 1 if left out.
        eps: added to the mean square; `torch.finfo(x.dtype).eps` if left out, or float32's for
            narrower dtypes.

    Returns:
        y in the shape of `x`.

    Raises:
        ValueError: the shape of `x` does not end in `normalized_shape`.

    Example:
        >>> import torch
        >>> rms_norm(torch.tensor([[3.0, 4.0, 0.0, 0.0]]), 4)
        tensor([[1.2000, 1.6000, 0.0000, 0.0000]])

    References:
        Zhang, Sennrich (2019), "Root mean square layer normalization".
    """
    shape = _last_dimensions(x, normalized_shape)
    return F.rms_norm(x, shape, weight, eps)


def _last_dimensions(x: Tensor, normalized_shape: int | Sequence[int]) -> list[int]:
    shape = [normalized_shape] if isinstance(normalized_shape, int) else list(normalized_shape)
    if not shape or list(x.shape[-len(shape) :]) != shape:
        raise ValueError(
            f"`normalized_shape` must be the last dimensions of `x`, got {shape} for shape "
            f"{tuple(x.shape)}"
        )
    return shape
