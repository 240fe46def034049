"""Predictive distributions in constant memory: samples come in parts and are forgotten."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, NamedTuple

import torch
from torch import Tensor

from fdnn import tree
from fdnn.types import Scalar
from fdnn.uncertainty.moments import Moments, merge, moments, none
from fdnn.uncertainty.predictive import (
    Average,
    check_average,
    check_precision,
    means,
    members,
    of_means,
    of_members,
)

__all__ = ["Stream", "categorical_stream", "gaussian_stream", "streamed"]


class Stream(NamedTuple):
    """A predictive distribution that is built up from parts: pure functions around a state.

    The state is a `Moments`: of a size that the number of samples does not change, a tree of
    tensors that vmaps, compiles and is saved like any other. However the samples are cut into
    parts, the result is that of all at once, up to rounding (Welford's algorithm, for parts).

    Attributes:
        init: `init(output) -> state`, before the first sample. `output` is one, `(batch, *out)`;
            only shape, dtype and device count. Give it in float64 to add up in float64.
        update: `update(state, outputs) -> state`, with more samples, `(samples, batch, *out)`.
        merge: `merge(state, state) -> state`, of the samples of both.
        compute: `compute(state)`, the distribution; of no sample at all it is nan.

    Example:
        >>> stream = gaussian_stream()
        >>> state = stream.init(torch.zeros(2))
        >>> for output in [1.0, 2.0], [3.0, 2.0]:
        ...     state = stream.update(state, torch.tensor([output]))
        >>> stream.compute(state)
        Gaussian(mean=tensor([2., 2.]), variance=tensor([1., 0.]))

    References:
        Welford (1962), "Note on a method for calculating corrected sums of squares and products";
        Chan, Golub, LeVeque (1983), "Algorithms for computing the sample variance".
    """

    init: Callable[[Tensor], Moments]
    update: Callable[[Moments, Tensor], Moments]
    merge: Callable[[Moments, Moments], Moments]
    compute: Callable[[Moments], Any]


def categorical_stream(average: Average = "probabilities") -> Stream:
    """Build up what `categorical` computes, from logits that come in parts.

    Args:
        average: "probabilities" or "logits", as in `categorical`.

    Returns:
        A `Stream` whose `compute` gives a `Categorical`. Its state holds 4 classes + 2 numbers an
        example.

    Raises:
        ValueError: `average` is neither.

    Example:
        >>> stream, logits = categorical_stream(), torch.tensor([[[4.0, 0.0]], [[0.0, 2.0]]])
        >>> state = stream.update(stream.init(logits[0]), logits[:1])
        >>> stream.compute(stream.update(state, logits[1:])).probs
        tensor([[0.5506, 0.4494]])
    """
    check_average(average)
    return _stream(members, lambda seen: of_members(seen, average))


def gaussian_stream(tau: Scalar | None = None) -> Stream:
    """Build up what `gaussian` computes, from means that come in parts.

    Args:
        tau: the precision of the noise, as in `gaussian`.

    Returns:
        A `Stream` whose `compute` gives a `Gaussian`. Its state holds 2 numbers for each output.

    Raises:
        ValueError: `tau` is not positive.

    Example:
        >>> stream = gaussian_stream(tau=10.0)
        >>> a, b = (stream.update(stream.init(y[0]), y) for y in torch.tensor([[[1.0]], [[3.0]]]))
        >>> stream.compute(stream.merge(a, b))
        Gaussian(mean=tensor([2.]), variance=tensor([1.1000]))
    """
    check_precision(tau)
    return _stream(means, lambda seen: of_means(seen, tau))


def streamed(
    draw: Callable[..., Tensor], *members: Any, stream: Stream, chunk_size: int = 10
) -> Any:
    r"""Compute a predictive distribution of any number of samples in constant memory.

    The samples $o_t = \mathrm{draw}(m_t)$ are computed by vmap, `chunk_size` at a time, and handed
    to the stream. What is returned is the distribution that their stack would give.

    Args:
        draw: gives the outputs of one member, `(batch, *out)`: a function of a key, of parameters,
            or of whatever else makes the samples differ.
        *members: $m_t$, the arguments of `draw`, stacked: trees of tensors `(samples, ...)`.
        stream: `categorical_stream()` or `gaussian_stream()`.
        chunk_size: how many samples at once. Memory grows with it; a compiled call unrolls the
            chunks.

    Returns:
        A `Categorical` or a `Gaussian`.

    Raises:
        ValueError: `chunk_size` is not positive, or `members` are none, or differ in length.

    Example:
        >>> from torch import nn
        >>> from fdnn import functionalize, random
        >>> net = functionalize(nn.Sequential(nn.Dropout(0.5), nn.Linear(4, 3)))
        >>> model, x = net.settled(), torch.ones(2, 4)
        >>> def draw(key):
        ...     return model.apply(net.params, net.buffers, x, key=key, train=True)[0]
        >>> keys = random.split(random.key(0), 1000)
        >>> streamed(draw, keys, stream=categorical_stream(), chunk_size=100).probs.shape
        torch.Size([2, 3])
    """
    if chunk_size < 1:
        raise ValueError(f"`chunk_size` must be at least 1, got {chunk_size}")
    lengths = sorted({len(leaf) for leaf in tree.leaves(members)})
    if len(lengths) != 1 or lengths[0] == 0:
        raise ValueError(f"`members` must be tensors of one length above 0, got {lengths}")
    state: Any = None
    for at in range(0, lengths[0], chunk_size):
        chunk = tree.map(lambda leaf, at=at: leaf[at : at + chunk_size], members)
        outputs = torch.vmap(draw)(*chunk)
        state = stream.update(stream.init(outputs[0]) if state is None else state, outputs)
    return stream.compute(state)


def _stream(features: Callable[[Tensor], Tensor], summarize: Callable[[Moments], Any]) -> Stream:
    """Make a stream of the moments of what `features` makes of samples."""

    def compute(state: Moments) -> Any:
        known = torch.where(state.number > 0, state.mean, torch.nan)
        return summarize(state._replace(mean=known))

    return Stream(
        lambda output: none(features(output.unsqueeze(0))[0]),
        lambda state, outputs: merge(state, moments(features(outputs))),
        merge,
        compute,
    )
