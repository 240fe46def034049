"""Values of one model for another, and a report of what went where."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Mapping
from typing import Any, NamedTuple

from torch import Tensor

from fdnn.model import Model
from fdnn.types import Buffers, Key, Params

__all__ = ["Report", "rename", "reuse"]


class Report(NamedTuple):
    """What became of the tensors in `reuse`; prints as a list.

    Attributes:
        reused: names in the new model whose values were taken over.
        reinitialized: names in the new model that were drawn anew (or, of buffers, are as a new
            layer has them), and why.
        skipped: names in the source that no one took, and why.
    """

    reused: tuple[str, ...]
    reinitialized: dict[str, str]
    skipped: dict[str, str]

    def __str__(self) -> str:
        lines = [f"reused: {', '.join(self.reused)}"]
        for title, names in (
            ("re-initialized", self.reinitialized),
            ("skipped", self.skipped),
        ):
            lines += [f"{title}: {name} ({why})" for name, why in names.items()]
        return "\n".join(lines)


def reuse(
    source: Mapping[str, Tensor],
    into: Model,
    *,
    key: Key,
    match: Callable[[str], str | None] | None = None,
    **rules: Any,
) -> tuple[Params, Buffers, Report]:
    """Give a model the values of another wherever name and shape fit, and draw the rest.

    Batch norm's running statistics are buffers: a source of parameters alone leaves them as a
    new layer has them, and the report says so.

    Args:
        source: tensors by dotted name: `{**params, **buffers}` of a model, or a `state_dict`.
        into: the model to fill, frozen in part or not.
        key: draws what is not reused, as `into.init(key)` would.
        match: from a name in `into` to the name in `source` whose value it takes, None for none;
            the same name if left out. `rename({"body": "encoder"})` reuses a part of the source
            that is called otherwise there, `{"output.weight": "weight"}.get` one tensor.
        **rules: `weight`, `bias` and `rules` of `Model.init`, for what is drawn.

    Returns:
        `(params, buffers, report)`: the first two are new tensors, of the dtypes of `into`, on the
        key's device. Under vmap return them only, since the report is no tensor: `reuse(...)[:2]`.

    Raises:
        ValueError: nothing is reused; the message is the report.

    Example:
        >>> from torch import nn
        >>> from fdnn import functionalize, random
        >>> a = functionalize(nn.Sequential(nn.Linear(4, 8), nn.ReLU(), nn.Linear(8, 5)))
        >>> b = functionalize(nn.Sequential(nn.Linear(4, 8), nn.ReLU(), nn.Linear(8, 1)))
        >>> params, buffers, report = reuse(a.params, into=b, key=random.key(0))
        >>> print(report)
        reused: 0.weight, 0.bias
        re-initialized: 2.weight (shape (1, 8), in the source (5, 8))
        re-initialized: 2.bias (shape (1,), in the source (5,))
        skipped: 2.weight (its shape does not fit)
        skipped: 2.bias (its shape does not fit)
    """
    wanted = {**into.params, **into.buffers}
    taken: dict[str, Tensor] = {}
    reinitialized: dict[str, str] = {}
    skipped = dict.fromkeys(source, "nothing of the model matches it")
    used = set()
    for name, like in wanted.items():
        partner = name if match is None else match(name)
        if partner is None or partner not in source:
            reinitialized[name] = "not in the source"
        elif source[partner].shape != like.shape:
            found, fits = tuple(source[partner].shape), tuple(like.shape)
            reinitialized[name] = f"shape {fits}, in the source {found}"
            skipped[partner] = "its shape does not fit"
        else:
            taken[name] = source[partner].to(key.device, like.dtype, copy=True)
            used.add(partner)
    report = Report(
        tuple(taken),
        reinitialized,
        {name: why for name, why in skipped.items() if name not in used},
    )
    if not taken:
        raise ValueError(f"`source` has nothing that fits into the model:\n{report}")
    rest = dataclasses.replace(
        into,
        params={name: value for name, value in into.params.items() if name not in taken},
        buffers={name: value for name, value in into.buffers.items() if name not in taken},
    )
    drawn, fresh = rest.init(key, **rules)
    values = {**drawn, **fresh, **taken}
    return (
        {name: values[name] for name in into.params},
        {name: values[name] for name in into.buffers},
        report,
    )


def rename(parts: Mapping[str, str]) -> Callable[[str], str | None]:
    """Say what the parts of a model are called in another: a `match` for `reuse`.

    Args:
        parts: from a part of the model that is filled to that of the source whose values it takes,
            both as dotted names; "" is the whole. Of parts within each other the innermost counts.

    Returns:
        `match(name)`: the name in the source, or None for what is in none of the parts, which is
        then drawn.

    Raises:
        ValueError: `parts` is empty.

    Example:
        >>> match = rename({"body": "encoder"})
        >>> match("body.0.weight"), match("body_2.weight"), match("output.weight")
        ('encoder.0.weight', None, None)
        >>> rename({"": "encoder"})("0.weight"), rename({"body": ""})("body.0.weight")
        ('encoder.0.weight', '0.weight')
    """
    if not parts:
        raise ValueError("`parts` must name at least one part, got none")

    def match(name: str) -> str | None:
        around = [part for part in parts if not part or f"{name}.".startswith(f"{part}.")]
        if not around:
            return None
        part = max(around, key=len)
        rest = name[len(part) :].removeprefix(".")
        return ".".join(filter(None, (parts[part], rest)))

    return match
