"""Latency, size and accuracy of variants of a network, measured side by side."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import Any, NamedTuple, TypeAlias

import torch
from torch import Tensor, nn

from fdnn.compress.chains import check_visible
from fdnn.model import Model
from fdnn.types import Buffers, Params

__all__ = ["BenchmarkRow", "Variant", "benchmark", "benchmark_table", "size_in_bytes"]

Variant: TypeAlias = (
    tuple[Model, Params, Buffers]
    | nn.Module
    | torch.export.ExportedProgram
    | tuple[Callable[[Tensor], Tensor], int]
    | Callable[[Tensor], Tensor]
)
"""What can be measured: a model with its values, a module, a program, a function (and its size)."""


class BenchmarkRow(NamedTuple):
    """One variant at one batch size.

    Attributes:
        name: of the variant.
        batch_size: rows in a call.
        p50: the median of a call's time, in milliseconds.
        p95: the time that 95 % of the calls stay below.
        ratio: the median over turns of the time divided by the first variant's in the same turn.
        bytes: what parameters and buffers take; None if it is not known.
        accuracy: the share of right predictions of all inputs; None without targets.
    """

    name: str
    batch_size: int
    p50: float
    p95: float
    ratio: float
    bytes: int | None
    accuracy: float | None


def benchmark(
    variants: Mapping[str, Variant],
    inputs: Tensor,
    targets: Tensor | None = None,
    *,
    batch_sizes: Sequence[int] = (1, 256),
    repeats: int = 100,
    warmup: int = 5,
) -> list[BenchmarkRow]:
    """Measure variants of a network in turns, so that a busy machine is busy for all of them.

    In each turn every variant is called once, and each turn begins with another one. The number
    of threads is torch's (`torch.set_num_threads`), the calls are made without gradients.

    Args:
        variants: by name, the first being what the others are compared with: a tuple `(model,
            params, buffers)`, timed as its `to_module`; a module, such as `quantize` and
            `cast_module` give; a program of `export`; a function of the inputs, alone or as a
            tuple `(function, bytes)`.
        inputs: of the test set, `(n, ...)`; the first rows are what is timed.
        targets: classes, `(n,)`, integers.
        batch_sizes: rows in a call.
        repeats: turns that count.
        warmup: turns before, in which code is compiled, say.

    Returns:
        A row for each variant and batch size, by batch size first.

    Raises:
        ValueError: there are no variants, `repeats` is below 1, a batch size is larger than the
            number of inputs or below 1, or the numbers of inputs and targets differ.
        RuntimeError: called under vmap, grad or the compiler.

    Example:
        >>> from fdnn import functionalize, random
        >>> model = functionalize(nn.Linear(4, 2))
        >>> dense = (model, model.params, model.buffers)
        >>> x, y = torch.ones(8, 4), torch.zeros(8, dtype=torch.int64)
        >>> rows = benchmark({"dense": dense, "twice": dense}, x, y, batch_sizes=[1], repeats=3)
        >>> [(row.name, row.batch_size, row.bytes) for row in rows]
        [('dense', 1, 40), ('twice', 1, 40)]
    """
    check_visible("benchmark")
    if not variants or repeats < 1:
        raise ValueError(
            "`variants` must not be empty and `repeats` at least 1, got "
            f"{list(variants)} and {repeats}"
        )
    if targets is not None and len(targets) != len(inputs):
        raise ValueError(f"`targets` must be {len(inputs)}, one for each input, got {len(targets)}")
    if any(not 1 <= size <= len(inputs) for size in batch_sizes):
        raise ValueError(
            f"`batch_sizes` must be in [1, {len(inputs)}], the number of inputs, got "
            f"{list(batch_sizes)}"
        )
    made = {name: _callable(variant) for name, variant in variants.items()}
    first, rows = next(iter(made)), []
    with torch.no_grad():
        right = {name: _accuracy(call, inputs, targets) for name, (call, _) in made.items()}
        for size in batch_sizes:
            calls = {name: call for name, (call, _) in made.items()}
            times = _in_turns(calls, inputs[:size].clone(), repeats, warmup)
            for name, own in times.items():
                p50, p95 = (1e3 * torch.quantile(own, torch.tensor([0.5, 0.95]).to(own))).tolist()
                ratio = (own / times[first]).median().item()
                rows.append(BenchmarkRow(name, size, p50, p95, ratio, made[name][1], right[name]))
    return rows


def benchmark_table(rows: Sequence[BenchmarkRow]) -> str:
    """Write the rows of a benchmark as a table, in Markdown.

    Args:
        rows: from `benchmark`.

    Returns:
        The text, a line for each row.

    Example:
        >>> print(benchmark_table([BenchmarkRow("dense", 1, 0.5, 0.75, 1.0, 4096, 0.875)]))
        | variant | rows | p50, ms | p95, ms | ratio | KiB | accuracy |
        |---|---|---|---|---|---|---|
        | dense | 1 | 0.500 | 0.750 | 1.00 | 4.0 | 0.8750 |
    """
    lines = [
        "| variant | rows | p50, ms | p95, ms | ratio | KiB | accuracy |",
        "|---|---|---|---|---|---|---|",
    ]
    for row in rows:
        size = "" if row.bytes is None else f"{row.bytes / 1024:.1f}"
        right = "" if row.accuracy is None else f"{row.accuracy:.4f}"
        times = f"{row.p50:.3f} | {row.p95:.3f} | {row.ratio:.2f}"
        lines.append(f"| {row.name} | {row.batch_size} | {times} | {size} | {right} |")
    return "\n".join(lines)


def size_in_bytes(module: nn.Module) -> int:
    """Count the bytes of a module's parameters and buffers, those of quantized ones as stored.

    Args:
        module: any, such as those of `quantize`; what is used twice counts once.

    Returns:
        The number of bytes.

    Example:
        >>> size_in_bytes(nn.Linear(4, 2)), size_in_bytes(nn.Linear(4, 2).bfloat16())
        (40, 20)
    """
    tensors = [*module.parameters(), *module.buffers()]
    return sum(x.numel() * x.element_size() for whole in tensors for x in _parts(whole))


def _parts(x: Tensor) -> Iterator[Tensor]:
    """The plain tensors that a tensor subclass consists of."""
    if not hasattr(x, "__tensor_flatten__"):
        yield x
        return
    for name in x.__tensor_flatten__()[0]:
        yield from _parts(getattr(x, name))


def _callable(variant: Any) -> tuple[Callable[[Tensor], Tensor], int | None]:
    if isinstance(variant, tuple) and len(variant) == 3:
        model, params, buffers = variant
        variant = model.to_module(params, buffers).requires_grad_(False)
    elif isinstance(variant, tuple):
        call, size = variant
        return call, size
    elif isinstance(variant, torch.export.ExportedProgram):
        variant = variant.module()
    return variant, size_in_bytes(variant) if isinstance(variant, nn.Module) else None


def _accuracy(
    call: Callable[[Tensor], Tensor], inputs: Tensor, targets: Tensor | None
) -> float | None:
    if targets is None:
        return None
    predicted = torch.cat([call(part).argmax(-1) for part in inputs.split(1000)])  # type: ignore[no-untyped-call]
    return (predicted == targets).double().mean().item()


def _in_turns(
    calls: Mapping[str, Callable[[Tensor], Tensor]], x: Tensor, repeats: int, warmup: int
) -> dict[str, Tensor]:
    """Seconds of each call, `(repeats,)`, by name."""
    names = list(calls)
    times = torch.zeros(len(names), warmup + repeats, dtype=torch.float64)
    for turn in range(warmup + repeats):
        for i in range(len(names)):
            place = (i + turn) % len(names)
            call = calls[names[place]]
            start = time.perf_counter()
            call(x)
            _wait(x)
            times[place, turn] = time.perf_counter() - start
    return {name: times[i, warmup:] for i, name in enumerate(names)}


def _wait(x: Tensor) -> None:
    if x.is_cuda:
        torch.cuda.synchronize(x.device)
