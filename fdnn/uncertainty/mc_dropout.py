"""Monte Carlo dropout: many predictions of one network, each with dropout active."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, Literal

import torch
from torch import Tensor
from torch.overrides import TorchFunctionMode

from fdnn import random
from fdnn.model import Model
from fdnn.types import Buffers, Key, Params

__all__ = ["mc_dropout"]

_ELEMENTS = 2**24  # of the largest tensor of all samples at once: 64 MiB in float32


def mc_dropout(
    model: Model,
    params: Params,
    buffers: Buffers,
    *inputs: Any,
    key: Key,
    num_samples: int = 100,
    chunk_size: int | Literal["auto"] | None = "auto",
    **keywords: Any,
) -> Any:
    r"""Sample a network's outputs with dropout active: $f(x; \theta, z_t)$, $t = 1 \dots T$.

    Whatever the model draws in train mode is drawn anew for each sample, with the t-th key of
    `random.split(key, T)`: dropout of every kind, alpha dropout, dropout inside of recurrent
    layers and attention, `F.dropout(x, training=self.training)`. Batch norm, instance norm and
    spectral norm do as in eval mode, and buffers stay as they are. It is one vmap, equal to the
    loop over the keys. What comes before the first draw does not depend on the key, and is computed
    once a chunk.

    The outputs are raw. `categorical` and `gaussian` make distributions of them.

    Args:
        model: from `functionalize`.
        params: $\theta$, by dotted name.
        buffers: buffers by dotted name.
        *inputs: $x$, what the module's `forward` takes.
        key: the source of the masks $z_t$.
        num_samples: $T$. The first samples of a larger number are those of a smaller one. The error
            of a mean over samples falls as $1 / \sqrt T$.
        chunk_size: how many samples at once; None for all. "auto" takes as many as let the largest
            tensor of a forward pass, times the samples, have at most 2**24 elements (64 MiB in
            float32), but one at least; it runs the model once more to see that tensor. A compiled
            call unrolls the chunks.
        **keywords: keyword arguments of `forward`.

    Returns:
        The outputs, `(num_samples, batch, *out)`; a tree of such if the model's output is one. If
        the model draws nothing, they are all the same.

    Raises:
        ValueError: `num_samples` or `chunk_size` is not positive; or as `Model.apply`.
        RuntimeError: as `Model.apply`; above all, a layer of one's own writes into a buffer in
            train mode.

    Example:
        >>> from torch import nn
        >>> from fdnn import functionalize, uncertainty
        >>> net = nn.Sequential(nn.Linear(4, 8), nn.ReLU(), nn.Dropout(0.5), nn.Linear(8, 3))
        >>> model, x = functionalize(net), torch.ones(2, 4)
        >>> logits = mc_dropout(model, model.params, model.buffers, x, key=random.key(0))
        >>> logits.shape
        torch.Size([100, 2, 3])
        >>> uncertainty.categorical(logits).probs.shape
        torch.Size([2, 3])

    References:
        Gal, Ghahramani (2016), "Dropout as a Bayesian approximation: representing model uncertainty
        in deep learning"; for recurrent layers their "A theoretically grounded application of
        dropout in recurrent neural networks" (2016) keeps one mask over all time steps, while the
        dropout of torch's recurrent layers, used here, draws one for each.
    """
    for name, value in (("num_samples", num_samples), ("chunk_size", chunk_size)):
        if isinstance(value, int) and value < 1:
            raise ValueError(f"`{name}` must be at least 1, got {value}")
    settled = model.settled()

    def draw(key: Key) -> Any:
        return settled.apply(params, buffers, *inputs, key=key, train=True, **keywords)[0]

    keys = random.split(key, num_samples)
    if chunk_size == "auto":
        chunk_size = max(1, _ELEMENTS // _largest(draw, keys[0])) if num_samples > 1 else 1
    return torch.vmap(draw, chunk_size=chunk_size)(keys)


def _largest(draw: Callable[[Key], Any], key: Key) -> int:
    """Return the number of elements of the largest tensor that a call makes."""
    seen = _Largest()
    with seen:
        draw(key)
    return seen.elements


class _Largest(TorchFunctionMode):
    def __init__(self) -> None:
        super().__init__()
        self.elements = 1

    def __torch_function__(
        self,
        func: Callable[..., Any],
        types: Any,
        args: tuple[Any, ...] = (),
        kwargs: dict[str, Any] | None = None,
    ) -> Any:
        made = func(*args, **(kwargs or {}))
        for part in made if isinstance(made, tuple | list) else (made,):
            if isinstance(part, Tensor):
                self.elements = max(self.elements, part.numel())
        return made
