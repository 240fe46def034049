"""Modules, keys and trees: what a user's type checker knows of them."""

from typing import Any, assert_type

import torch
from torch import Tensor, nn, vmap

import fdnn
from fdnn import Model, initializers, random, tree
from fdnn.types import Buffers, Params

model = fdnn.functionalize(nn.Sequential(nn.Linear(4, 8), nn.Dropout(0.5), nn.Linear(8, 2)))
assert_type(model, Model)
assert_type(model.params, dict[str, Tensor])

key = random.key(0)
keys = random.split(key, 3)
assert_type(key, Tensor)
assert_type(random.fold_in(key, 1), Tensor)
assert_type(random.normal(key, (2, 3)), Tensor)
assert_type(random.permutation(key, 10), Tensor)

params, buffers = model.init(key, weight=initializers.he_normal(), bias=initializers.zeros)
assert_type(params, dict[str, Tensor])
assert_type(buffers, dict[str, Tensor])
output, buffers = model.apply(params, buffers, torch.ones(2, 4), key=key, train=True)
assert_type(output, Any)  # what `forward` returns: torch does not tell
assert_type(model.settled(), Model)
assert_type(model.to_module(params, buffers), nn.Module)


def forward(params: Params, buffers: Buffers, x: Tensor, key: Tensor) -> Tensor:
    logits, _ = model.apply(params, buffers, x, key=key, train=True)
    assert isinstance(logits, Tensor)
    return logits.softmax(-1)


# jit and vmap keep the signature.
compiled = fdnn.jit(forward)
assert_type(compiled(params, buffers, torch.ones(2, 4), key), Tensor)
many = fdnn.jit(vmap(forward, in_dims=(None, None, None, 0)))
assert_type(many(params, buffers, torch.ones(2, 4), keys), Tensor)

# A tree comes back as what it was.
assert_type(tree.zeros_like(params), dict[str, Tensor])
assert_type(tree.cast(params, torch.bfloat16), dict[str, Tensor])
assert_type(tree.where(torch.tensor(True), params, params), dict[str, Tensor])
assert_type(tree.unstack(tree.stack([params, params])), list[dict[str, Tensor]])
vector, unravel = tree.ravel(params)
assert_type(vector, Tensor)
assert_type(unravel(vector), dict[str, Tensor])
last, rest = tree.partition(params, "2.*")
assert_type(last, dict[str, Tensor])
assert_type(tree.combine(last, rest), dict[str, Tensor])
assert_type(tree.global_norm(params), Tensor)
assert_type(tree.paths(params), list[str])
assert_type(tree.map(torch.clone, params), Any)  # leaves may become anything
