"""The contract's rows of `fdnn.random`."""

from __future__ import annotations

import torch
from contracts.shared import Row, draw, key, logits, normal

from fdnn import random

ROWS: dict[str, Row] = {
    "random.bernoulli": draw(lambda key: random.bernoulli(key, 0.3, (40,))),
    "random.bits": draw(lambda key: random.bits(key, (5,)).to(torch.int64)),
    "random.categorical": Row(
        lambda k, x: random.categorical(k, x), lambda i: (*key(i), logits(i))
    ),
    "random.choice": Row(lambda k, x: random.choice(k, x, (3,)), lambda i: (*key(i), normal(i, 9))),
    "random.exponential": draw(lambda key: random.exponential(key, (9,)), exact=False),
    "random.fold_in": Row(random.fold_in, lambda i: (*key(i), torch.tensor(i))),
    "random.gumbel": draw(lambda key: random.gumbel(key, (9,)), exact=False),
    "random.normal": draw(lambda key: random.normal(key, (9,)), exact=False),
    "random.permutation": Row(random.permutation, lambda i: (*key(i), normal(i, 9))),
    "random.randint": draw(lambda key: random.randint(key, (9,), -3, 1000)),
    "random.split": draw(lambda key: random.split(key, 3)),
    "random.threefry2x32": Row(
        lambda *words: random.threefry2x32(*words),
        lambda i: tuple(torch.arange(5) * 10**n + i for n in range(4)),
    ),
    "random.truncated_normal": draw(
        lambda key: random.truncated_normal(key, -2, 1, (9,)), exact=False
    ),
    "random.uniform": draw(lambda key: random.uniform(key, (9,))),
}

EXEMPT: dict[str, str] = {
    "random.key": "takes a number",
}
