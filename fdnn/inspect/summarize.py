"""A table of a model's layers: shapes, sizes, operations."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Sequence
from typing import Any, NamedTuple

import torch
from torch import Tensor, nn
from torch._subclasses.fake_tensor import FakeTensorMode
from torch.nn.attention import SDPBackend, sdpa_kernel
from torch.utils.flop_counter import FlopCounterMode

from fdnn import random, tree
from fdnn.inspect.layers import intercepted, named_layers, owner, tensors, type_name
from fdnn.model import Model, functionalize

__all__ = ["LayerRow", "Summary", "summary"]


class LayerRow(NamedTuple):
    """A layer of a `Summary`.

    Attributes:
        name: its dotted name; "" is the module itself.
        type: its class.
        output: the shape of every tensor of its (first) output; empty if it is not called.
        calls: how often one forward pass calls it.
        parameters: how many numbers it trains, those of layers further in left out.
        buffers: how many numbers its buffers hold, likewise.
        flops: floating-point operations of all its calls, likewise.
    """

    name: str
    type: str
    output: tuple[tuple[int, ...], ...]
    calls: int
    parameters: int
    buffers: int
    flops: int


@dataclasses.dataclass(frozen=True)
class Summary:
    """A table of layers and its totals; `print` shows it.

    Attributes:
        rows: the layers, in the order in which the module defines them.
        parameters: how many numbers all parameters hold, tied ones counted once.
        trainable: how many of them require a gradient.
        buffers: how many numbers all buffers hold.
        bytes: the memory of parameters and buffers.
        flops: floating-point operations of one forward pass.
    """

    rows: tuple[LayerRow, ...]
    parameters: int
    trainable: int
    buffers: int
    bytes: int
    flops: int

    def __str__(self) -> str:
        head = ("layer", "type", "output", "parameters", "buffers", "FLOPs")
        body = [
            (
                row.name,
                row.type,
                _shapes(row),
                *map(_count, (row.parameters, row.buffers)),
                _count(row.flops),
            )
            for row in self.rows
        ]
        total = ("total", "", "", *(f"{n:,}" for n in (self.parameters, self.buffers, self.flops)))
        widths = [max(map(len, column)) for column in zip(head, *body, total, strict=True)]
        rule = "─" * (sum(widths) + 2 * (len(widths) - 1))
        lines = [_line(cells, widths) for cells in (head, *body, total)]
        foot = f"{self.trainable:,} trainable parameters, {_memory(self.bytes)}"
        return "\n".join([lines[0], rule, *lines[1:-1], rule, lines[-1], foot])


def summary(model: nn.Module | Model, *inputs: Any, **keywords: Any) -> Summary:
    """Tabulate the layers of a model: output shapes, parameters, buffers, operations.

    One forward pass in eval mode on fake tensors, which have shapes and no values: it
    computes nothing, draws nothing and changes nothing.

    A layer is a module without parts, or one that holds parameters, buffers or operations itself.
    Operations are what `torch.utils.flop_counter` counts: matrix products, convolutions and
    attention, a multiplication and an addition as two. All else (activations, normalization, the
    cost of a bias) counts as nothing.

    Args:
        model: any module, or what `functionalize` made of it.
        *inputs: what its `forward` takes: tensors of the right shapes, whatever they hold.
        **keywords: keyword arguments of `forward`.

    Returns:
        The table. Its totals are the sums of its columns.

    Raises:
        TypeError: `model` is neither a module nor a `Model`.
        ValueError: a lazy layer has no shapes yet.

    Example:
        >>> net = nn.Sequential(nn.Linear(784, 100, bias=False), nn.BatchNorm1d(100), nn.ReLU())
        >>> print(summary(net, torch.ones(32, 784)))
        layer  type         output     parameters  buffers      FLOPs
        ─────────────────────────────────────────────────────────────
        0      Linear       (32, 100)      78,400           5,017,600
        1      BatchNorm1d  (32, 100)         200      201
        2      ReLU         (32, 100)
        ─────────────────────────────────────────────────────────────
        total                              78,600      201  5,017,600
        78,600 trainable parameters, 315.2 kB
    """
    frozen: set[str] = set()
    if isinstance(model, nn.Module):
        frozen = {name for name, p in model.named_parameters() if not p.requires_grad}
        model = functionalize(model)
    elif not isinstance(model, Model):
        raise TypeError(f"`model` must be an nn.Module or an fdnn.Model, got {model!r}")
    modules = dict(model.skeleton().named_modules())
    seen, flops = _forward(model, modules, inputs, keywords)
    layers = named_layers(model.skeleton())
    names = [name for name in modules if name in layers or seen[name].flops]
    sizes = [_sizes(values, names) for values in (model.params, model.buffers)]
    everything = [*model.params.values(), *model.buffers.values()]
    return Summary(
        rows=tuple(
            LayerRow(
                name=name,
                type=type_name(modules[name]),
                output=tuple(seen[name].output),
                calls=seen[name].calls,
                parameters=sizes[0][name],
                buffers=sizes[1][name],
                flops=seen[name].flops,
            )
            for name in names
        ),
        parameters=sum(value.numel() for value in model.params.values()),
        trainable=sum(v.numel() for name, v in model.params.items() if name not in frozen),
        buffers=sum(value.numel() for value in model.buffers.values()),
        bytes=sum(value.numel() * value.element_size() for value in everything),
        flops=flops,
    )


@dataclasses.dataclass
class _Seen:
    """What a forward pass did in one module, modules further in left out."""

    output: list[tuple[int, ...]] = dataclasses.field(default_factory=list)
    calls: int = 0
    flops: int = 0


def _forward(
    model: Model, modules: dict[str, nn.Module], inputs: Any, keywords: Any
) -> tuple[dict[str, _Seen], int]:
    """Run the model on fake tensors; what each module did, and all operations."""
    seen = {name: _Seen() for name in modules}
    counter = FlopCounterMode(display=False)
    further_in = [0]  # operations of the calls inside of each call that is under way

    def see(name: str, compute: Callable[[], Any]) -> Any:
        before = counter.get_total_flops()
        further_in.append(0)
        output = compute()
        flops = counter.get_total_flops() - before
        seen[name].flops += flops - further_in.pop()
        further_in[-1] += flops
        if not seen[name].calls:
            seen[name].output = [tuple(x.shape) for x in tensors(output)]
        seen[name].calls += 1
        return output

    fake = FakeTensorMode(allow_non_fake_inputs=True)
    values = tree.map(
        lambda x: fake.from_tensor(x) if isinstance(x, Tensor) else x,
        (model.params, model.buffers, random.key(0), inputs, keywords),
    )
    params, buffers, key, inputs, keywords = values
    # Attention is counted in the form of its two products, whatever kernel would run here.
    with torch.no_grad(), fake, counter, sdpa_kernel(SDPBackend.MATH), intercepted(modules, see):
        model.apply(params, buffers, *inputs, key=key, **keywords)
    return seen, counter.get_total_flops()


def _sizes(values: dict[str, Tensor], names: Sequence[str]) -> dict[str, int]:
    """How many numbers each layer holds."""
    sizes = dict.fromkeys(names, 0)
    for path, value in values.items():
        layer = owner(path, names)
        assert layer is not None, path  # what holds a tensor itself is a layer
        sizes[layer] += value.numel()
    return sizes


def _shapes(row: LayerRow) -> str:
    times = f" ×{row.calls}" if row.calls > 1 else ""
    return ", ".join(map(str, row.output)) + times


def _count(number: int) -> str:
    return f"{number:,}" if number else ""


def _line(cells: Sequence[str], widths: Sequence[int]) -> str:
    """Three columns of words, flush left, and columns of numbers."""
    aligned = [
        f"{c:<{w}}" if i < 3 else f"{c:>{w}}"
        for i, (c, w) in enumerate(zip(cells, widths, strict=True))
    ]
    return "  ".join(aligned).rstrip()


def _memory(count: float) -> str:
    for unit in ("B", "kB", "MB"):
        if count < 1000:
            return f"{count:.4g} {unit}"
        count /= 1000
    return f"{count:.4g} GB"
