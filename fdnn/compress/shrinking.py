"""Pruned neurons and channels taken out of the network, so that it is really smaller."""

from __future__ import annotations

import itertools

import torch
from torch import Tensor, nn

from fdnn.compress.chains import CONVS, IDENTITIES, Link, chains, check_visible
from fdnn.compress.following import NORMS, Passage, follow
from fdnn.compress.masks import Masks, apply_masks
from fdnn.model import Model, functionalize
from fdnn.types import Buffers, Params

__all__ = ["shrink", "with_biases"]


def shrink(model: Model, params: Params, buffers: Buffers, masks: Masks | None = None) -> Model:
    r"""Take the neurons and channels out of a network that are constant or that nothing reads.

    A unit all of whose weights are 0 gives its bias; behind activations, pooling and batch norm (in
    eval mode) that is still a constant c, and the next layer's bias takes it over: $b' = b + w c$.
    The same holds where a batch norm has the weight 0. A unit all of whose weights in the next
    layer are 0 leaves no trace. So the output is that of the masked model, but for rounding, in
    eval mode.

    Followed are `nn.Sequential` (`fdnn.nn.MLP` too), wherever in the model they are, from a linear
    layer or convolution to the next, through elementwise activations, dropout, batch norm, pooling
    and `nn.Flatten`. The outputs of a chain stay as they are, and at least one unit of each layer.

    Args:
        model: from `functionalize`.
        params: parameters of one run: lanes of a stacked one would differ in shape.
        buffers: buffers of one run.
        masks: applied first, if given, such as those of `ln_structured`.

    Returns:
        A model of the same layers, some of them smaller, whose `params` and `buffers` are the
        values. It can be trained on and drawn anew.

    Raises:
        ValueError: a layer of which units are to go is followed by one that mixes units or that is
            not known; or they are not 0 and go into zero padding, where a bias cannot replace them
            (see `with_biases`); a mask fits no parameter; `params` are not those of one run.
        RuntimeError: called under vmap, grad or the compiler, where values cannot be seen.

    Example:
        >>> from fdnn import compress
        >>> net = nn.Sequential(nn.Linear(4, 10), nn.ReLU(), nn.Dropout(0.5), nn.Linear(10, 3))
        >>> model, x = functionalize(net), torch.ones(2, 4)
        >>> masks = compress.ln_structured(model.params, 0.7, where="0.weight")
        >>> small = shrink(model, model.params, model.buffers, masks)
        >>> {name: tuple(value.shape) for name, value in small.params.items()}
        {'0.weight': (3, 4), '0.bias': (3,), '3.weight': (3, 3), '3.bias': (3,)}
        >>> masked, _ = model.apply(compress.apply_masks(model.params, masks), {}, x)
        >>> torch.allclose(small.apply(small.params, small.buffers, x)[0], masked)
        True
    """
    check_visible("shrink")
    params = params if masks is None else apply_masks(params, masks)
    net = model.to_module(params, buffers)
    with torch.no_grad():
        for chain in chains(net):
            for producer, between, consumer in _pairs(chain):
                _cut(producer, between, consumer)
    return functionalize(net)


def with_biases(model: Model, masks: Masks) -> Masks:
    """Let masks of whole units cover their biases too, and their places in the next batch norm.

    `ln_structured` prunes the weights of a unit; what it gives then is its bias, or what batch norm
    makes of that. With these masks it gives 0. That is what zero padding needs (`shrink`), and what
    keeps `keep_masked` from training a unit that is only a bias.

    Args:
        model: from `functionalize`.
        masks: by name; those of weights all of whose elements of a unit (first dimension) are
            pruned are extended, in chains as `shrink` follows them.

    Returns:
        `masks` and those of biases and batch norms. It vmaps.

    Example:
        >>> from fdnn import compress
        >>> model = functionalize(nn.Sequential(nn.Linear(2, 2), nn.ReLU(), nn.Linear(2, 1)))
        >>> masks = {"0.weight": torch.tensor([[True, True], [False, False]])}
        >>> with_biases(model, masks)["0.bias"]
        tensor([ True, False])
    """
    new = dict(masks)

    def cover(path: str, units: Tensor) -> None:
        for name in (f"{path}.weight", f"{path}.bias"):
            if name in model.params and model.params[name].ndim == 1:
                new[name] = new[name].bool() & units if name in new else units

    for chain in chains(model.skeleton()):
        for producer, between, _ in _pairs(chain, last=True):
            mask = masks.get(f"{producer.path}.weight")
            if mask is not None:
                units = mask.bool().flatten(1).any(1)
                cover(producer.path, units)
                after = [link for link in between if link.kind not in IDENTITIES]
                if after and after[0].kind in NORMS:
                    cover(after[0].path, units)
    return new


def _pairs(chain: list[Link], *, last: bool = False) -> list[tuple[Link, list[Link], Link | None]]:
    """Each linear layer or convolution, what follows, and the next one.

    With `last`, the last one too, which has no next.
    """
    places = [i for i, link in enumerate(chain) if link.kind in (nn.Linear, *CONVS)]
    pairs: list[tuple[Link, list[Link], Link | None]] = [
        (chain[i], chain[i + 1 : k], chain[k]) for i, k in itertools.pairwise(places)
    ]
    if last and places:
        pairs.append((chain[places[-1]], chain[places[-1] + 1 :], None))
    return pairs


def _cut(producer: Link, between: list[Link], consumer: Link | None) -> None:
    """Take units out of the producer, out of what follows, and out of what the consumer reads."""
    assert consumer is not None
    first, last = producer.layer, consumer.layer
    silent = (first.weight.flatten(1) == 0).all(1)  # type: ignore[operator]
    try:
        passage = follow(producer, between, consumer, silent)
    except NotImplementedError as error:
        if not silent.any():
            return
        count = int(silent.sum())
        raise ValueError(
            f"`shrink` cannot take {count} pruned units out of {producer.path!r}: {error}"
        ) from None
    weight = last.weight
    assert isinstance(weight, Tensor)
    columns = torch.unflatten(weight, 1, (len(silent), passage.repeat)).flatten(
        2
    )  # (out, units, rest)
    unread = (columns == 0).all(2).all(0)
    gone = passage.silent | unread
    if not gone.any():
        return
    if gone.all():
        gone[0] = False
    constant = torch.where(passage.silent & gone & ~unread, passage.value, 0)
    if (passage.uneven & gone & ~unread).any():
        raise ValueError(
            f"`shrink` cannot take constant units out of {producer.path!r}: on the way to "
            f"{consumer.path!r} they are padded with zeros. Make them 0, by `with_biases(model, "
            "masks)` and activations that keep 0"
        )
    change = columns.sum(2) @ constant
    if change.any():
        bias = last.bias
        is_trained = not isinstance(bias, Tensor) or bias.requires_grad
        total = change + bias if isinstance(bias, Tensor) else change
        last.bias = nn.Parameter(total, is_trained)
    _take(producer, ~gone, passage, consumer)


def _take(producer: Link, kept: Tensor, passage: Passage, consumer: Link) -> None:
    """Keep some units only."""
    first, last, number = producer.layer, consumer.layer, int(kept.sum())
    for layer in (first, *passage.per_unit):
        tensors = {**layer._parameters, **layer._buffers}
        for name, value in tensors.items():
            if value is not None and value.ndim:
                _set(layer, name, value[kept])
        for size in ("out_features", "out_channels", "num_features", "num_parameters"):
            if hasattr(layer, size):
                setattr(layer, size, number)
    inputs = kept.repeat_interleave(passage.repeat)
    _set(last, "weight", last.weight[:, inputs])  # type: ignore[index]
    size = "in_features" if isinstance(last, nn.Linear) else "in_channels"
    setattr(last, size, int(inputs.sum()))


def _set(layer: nn.Module, name: str, value: Tensor) -> None:
    old = getattr(layer, name)
    is_parameter = isinstance(old, nn.Parameter)
    setattr(layer, name, nn.Parameter(value, old.requires_grad) if is_parameter else value)
