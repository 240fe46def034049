"""Losses of torch and fdnn, recognized by their names."""

from __future__ import annotations

import functools
from collections.abc import Callable, Mapping, Sequence
from typing import Any, NamedTuple

from torch import Tensor

__all__ = [
    "BINARY",
    "CLASSES",
    "OF_LOGITS",
    "REGRESSION",
    "SUMS_TO_1",
    "Loss",
    "extent",
    "known_loss",
    "named_loss",
]

CLASSES = {"cross_entropy", "nll_loss", "softmax_focal_loss"}
BINARY = {
    *("binary_cross_entropy", "binary_cross_entropy_with_logits", "multilabel_soft_margin_loss"),
    "sigmoid_focal_loss",
}
REGRESSION = {"mse_loss", "l1_loss", "huber_loss", "smooth_l1_loss", "gaussian_nll_loss"}
OF_LOGITS = (CLASSES | BINARY) - {"nll_loss", "binary_cross_entropy"}
# Half precision has 3 digits. Sums of logits may come as close to 1, but not those of all rows.
SUMS_TO_1 = 1e-3


class Loss(NamedTuple):
    """A call of a loss of torch or fdnn.

    Attributes:
        name: the function's.
        input: what comes from the model.
        target: what comes from the data.
        ignore_index: the label that marks what does not count.
    """

    name: str
    input: Tensor
    target: Tensor
    ignore_index: int = -100


def named_loss(name: str, args: Sequence[Any], kwargs: Mapping[str, Any]) -> Loss | None:
    """Tell whether a call is that of a loss of `torch.nn.functional`."""
    if name not in CLASSES | BINARY | REGRESSION:
        return None
    given = dict(zip(("input", "target"), args, strict=False)) | dict(kwargs)
    ignored = given.get("ignore_index", args[4] if len(args) > 4 else -100)
    if not all(isinstance(given.get(part), Tensor) for part in ("input", "target")):
        return None
    return Loss(name, given["input"], given["target"], ignored if name in CLASSES else -100)


def known_loss(criterion: Callable[[Any, Any], Any], output: Any, target: Any) -> Loss | None:
    """Tell whether a criterion is a loss of fdnn, some of which call no loss of torch."""
    kwargs: dict[str, Any] = {}
    while isinstance(criterion, functools.partial):
        kwargs = {**criterion.keywords, **kwargs}
        criterion = criterion.func
    if not getattr(criterion, "__module__", "").startswith("fdnn.losses"):
        return None
    return named_loss(getattr(criterion, "__name__", ""), (output, target), kwargs)


def extent(x: Tensor) -> str:
    """Say between which numbers a tensor lies."""
    return f"{x.min().item():.4g} to {x.max().item():.4g}"
