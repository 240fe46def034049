"""Randomness from explicit keys: the names, the argument order and the bits of `jax.random`.

The only place in fdnn that draws. Nothing here reads or moves torch's global generator.
"""

from fdnn.random.distributions import (
    bernoulli,
    exponential,
    gumbel,
    normal,
    truncated_normal,
    uniform,
)
from fdnn.random.integers import bits, randint
from fdnn.random.keys import fold_in, key, split
from fdnn.random.sampling import categorical, choice, permutation
from fdnn.random.threefry import threefry2x32

__all__ = [
    "bernoulli",
    "bits",
    "categorical",
    "choice",
    "exponential",
    "fold_in",
    "gumbel",
    "key",
    "normal",
    "permutation",
    "randint",
    "split",
    "threefry2x32",
    "truncated_normal",
    "uniform",
]
