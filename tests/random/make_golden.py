"""Write `golden.json`: draws of JAX 0.10.2 that the tests hold `fdnn.random` to.

Run by hand: `python tests/random/make_golden.py`. Floating-point numbers are stored as the exact
decimals of their float64 values, so that nothing is lost on the way.
"""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

SEEDS = (0, 42, 2**32 - 1)
FLOATS = ("float32", "float16", "bfloat16", "float64")
ARRAYS = ("x", "a", "p", "logits")  # arguments that are given to JAX as arrays
P = [0.125, 0.0, 0.5, 0.375]
GRID = [[0, 1, 2], [3, 4, 5], [6, 7, 8], [9, 10, 11]]

CASES: list[tuple[str, dict[str, Any]]] = [
    ("split", {"num": 3}),
    ("fold_in", {"data": 7}),
    ("fold_in", {"data": 2**32 - 1}),
    *[("bits", {"shape": [6], "dtype": f"uint{width}"}) for width in (8, 16, 32, 64)],
    *[("uniform", {"shape": [2, 3], "dtype": dtype}) for dtype in FLOATS],
    *[("uniform", {"shape": [6], "dtype": d, "minval": -1.0, "maxval": 1.0}) for d in FLOATS],
    ("bernoulli", {"p": 0.3, "shape": [12]}),
    ("randint", {"shape": [8], "minval": -5, "maxval": 7}),
    ("randint", {"shape": [8], "minval": -(2**31), "maxval": 2**31 - 1}),
    ("randint", {"shape": [8], "minval": -200, "maxval": 200, "dtype": "int8"}),
    ("randint", {"shape": [8], "minval": -7, "maxval": 30_000, "dtype": "int16"}),
    ("randint", {"shape": [8], "minval": 0, "maxval": 10**12, "dtype": "int64"}),
    ("randint", {"shape": [8], "minval": -(2**63), "maxval": 2**63 - 1, "dtype": "int64"}),
    ("permutation", {"x": 12}),
    ("permutation", {"x": GRID}),
    ("permutation", {"x": GRID, "axis": 1}),
    ("permutation", {"x": GRID, "axis": 1, "independent": True}),
    ("choice", {"a": 20, "shape": [6]}),
    ("choice", {"a": 20, "shape": [6], "replace": False}),
    ("choice", {"a": 4, "shape": [8], "p": P}),
    ("choice", {"a": 4, "shape": [3], "replace": False, "p": P}),
    ("choice", {"a": GRID, "shape": [2], "axis": 1}),
    ("categorical", {"logits": [0.0, 1.0, -1.0, 0.5], "shape": [8]}),
    *[("normal", {"shape": [6], "dtype": dtype}) for dtype in FLOATS],
    ("truncated_normal", {"lower": -2.0, "upper": 2.0, "shape": [6]}),
    ("truncated_normal", {"lower": 0.5, "upper": 1.5, "shape": [6], "dtype": "float64"}),
    *[("gumbel", {"shape": [6], "dtype": dtype}) for dtype in ("float32", "float64")],
    *[("exponential", {"shape": [6], "dtype": dtype}) for dtype in ("float32", "float64")],
]


def draw(name: str, seed: int, arguments: dict[str, Any]) -> Any:
    """Call `jax.random`, and return plain lists of numbers."""
    given = {
        k: jnp.asarray(v) if k in ARRAYS and isinstance(v, list) else v
        for k, v in arguments.items()
    }
    if "shape" in given:
        given["shape"] = tuple(given["shape"])
    drawn = getattr(jax.random, name)(jax.random.key(seed), **given)
    if name in ("split", "fold_in"):
        drawn = jax.random.key_data(drawn)
    if drawn.dtype in (jnp.bfloat16, jnp.float16):
        drawn = drawn.astype(jnp.float32)
    return np.asarray(drawn).tolist()


def is_wide(arguments: dict[str, Any]) -> bool:
    """Tell whether JAX needs its 64-bit mode."""
    return str(arguments.get("dtype")).endswith("64")


if __name__ == "__main__":
    golden = []
    for name, arguments in CASES:
        for seed in SEEDS:
            with jax.enable_x64(is_wide(arguments)):
                low = jax.random.key_data(jax.random.key(seed)).tolist()
                assert low == [0, seed], low
                golden.append([name, seed, arguments, draw(name, seed, arguments)])
    lines = ",\n".join(json.dumps(case) for case in golden)
    Path(__file__).with_name("golden.json").write_text(f"[\n{lines}\n]\n")
