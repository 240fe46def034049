"""Benchmarks: every variant in every turn, sizes as stored, accuracy of all inputs."""

from __future__ import annotations

import time
from typing import Any

import pytest
import torch
from torch import Tensor, nn

from fdnn import compress, functionalize, random

MODEL = functionalize(nn.Linear(4, 3))
DENSE = (MODEL, MODEL.params, MODEL.buffers)
X = random.normal(random.key(0), (50, 4))
Y = MODEL.apply(MODEL.params, {}, X)[0].argmax(-1)


def test_rows() -> None:
    variants: dict[str, Any] = {
        "dense": DENSE,
        "bf16": compress.cast_module(MODEL, MODEL.params, {}, torch.bfloat16),
        "function": lambda x: -MODEL.apply(MODEL.params, {}, x)[0],
        "sized": (lambda x: MODEL.apply(MODEL.params, {}, x)[0], 7),
    }
    rows = compress.benchmark(variants, X, Y, batch_sizes=(1, 8), repeats=4, warmup=1)
    assert [(row.name, row.batch_size) for row in rows] == [
        (name, size) for size in (1, 8) for name in variants
    ]
    found = {row.name: row for row in rows}
    assert [row.bytes for row in found.values()] == [60, 30, None, 7]
    assert found["dense"].accuracy == 1 and found["function"].accuracy == 0
    assert all(0 < row.p50 <= row.p95 for row in rows)
    assert found["dense"].ratio == 1
    lines = compress.benchmark_table(rows).splitlines()
    assert len(lines) == 2 + len(rows) and len({line.count("|") for line in lines}) == 1


def test_calls_take_turns() -> None:
    calls: list[str] = []

    def variant(name: str) -> Any:
        def call(x: Tensor) -> Tensor:
            calls.append(name)
            if name == "slow":
                time.sleep(0.01)
            return x

        return call

    rows = compress.benchmark(
        {name: variant(name) for name in ("a", "b", "slow")},
        X,
        batch_sizes=[2],
        repeats=3,
        warmup=0,
    )
    assert calls == ["a", "b", "slow", "b", "slow", "a", "slow", "a", "b"]
    assert rows[2].p50 >= 10 and rows[2].ratio > 1 and rows[0].accuracy is None


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"variants": {}}, "`variants` must not be empty"),
        ({"repeats": 0}, "`repeats` at least 1, got .* and 0"),
        ({"batch_sizes": [51]}, r"`batch_sizes` must be in \[1, 50\].*got \[51\]"),
        ({"targets": Y[:3]}, "`targets` must be 50, one for each input, got 3"),
    ],
)
def test_errors(options: dict[str, Any], message: str) -> None:
    given = {"variants": {"dense": DENSE}, "inputs": X, "targets": Y, **options}
    with pytest.raises(ValueError, match=message):
        compress.benchmark(**given)
