"""`fdnn.random` against stored draws of JAX 0.10.2 (`make_golden.py`); needs no JAX."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor

from fdnn import random

GOLDEN = json.loads(Path(__file__).with_name("golden.json").read_text())
# Functions of JAX's `erfinv`, `log` or `log1p`: units of the last place of max(1, |x|).
PLACES = {"normal": 16, "truncated_normal": 32, "gumbel": 8, "exponential": 128}


def draw(name: str, seed: int, arguments: dict[str, Any]) -> Tensor:
    given = {
        k: getattr(torch, v)
        if k == "dtype"
        else torch.tensor(v)
        if isinstance(v, list) and k != "shape"
        else v
        for k, v in arguments.items()
    }
    return getattr(random, name)(random.key(seed), **given)


@pytest.mark.parametrize(("name", "seed", "arguments", "expected"), GOLDEN)
def test_the_draw_is_the_stored_one(
    name: str, seed: int, arguments: dict[str, Any], expected: list[Any]
) -> None:
    drawn = draw(name, seed, arguments)
    if name not in PLACES:
        assert drawn.tolist() == expected
        return
    wanted = torch.tensor(expected, dtype=torch.float64)
    place = torch.finfo(drawn.dtype).eps * wanted.abs().clamp(min=1)
    assert ((drawn.double() - wanted).abs() <= PLACES[name] * place).all()


def test_every_function_is_covered() -> None:
    covered = {case[0] for case in GOLDEN} | {"key", "threefry2x32"}
    assert covered == set(random.__all__)
