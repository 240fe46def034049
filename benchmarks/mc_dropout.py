"""100 passes with dropout active over Fashion-MNIST: repeated rows in PyTorch, fdnn, JAX.

    python benchmarks/mc_dropout.py [--images 1000] [--batch 1000] [--samples 100] [--rounds 5]
        [--threads N] [--out FILE]

The network is 784-100-100-10 with dropout 0.2 before each linear layer, or before the last two
only: then the first layer is computed once for all samples, where the method sees that. What comes
out is the mean probability of each class. "repeat_interleave" is the usual recipe: each image
`samples` times in one batch, the module in train mode. All contenders take `--images` images,
`--batch` at a time (noise: time does not depend on what they show; the whole test set is `--images
10000`). Compilation comes before the first round. JAX needs the extra `jax`.
"""

from __future__ import annotations

import argparse
import json
from pathlib import Path
from typing import Any

import torch
from _turns import Contender, Figure, measure, report
from torch import Tensor, nn

import fdnn
from fdnn import functionalize, random, uncertainty

SIZES, RATE = [784, 100, 100, 10], 0.2


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--images", type=int, default=1000)
    parser.add_argument("--batch", type=int, default=1000)
    parser.add_argument("--samples", type=int, default=100)
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--threads", type=int, help="of torch; JAX takes what it finds")
    parser.add_argument("--out", type=Path, help="write the figures as JSON")
    args = parser.parse_args()
    if args.threads:
        torch.set_num_threads(args.threads)
    batches = torch.rand(args.images, 784).split(args.batch)
    figures: dict[str, list[Figure]] = {}
    for name, first in (("before each layer", 0), ("before the last two layers", 1)):
        print(f"dropout {name}: {args.samples} samples of {args.images} images")
        figures[name] = measure(contenders(batches, first, args.samples), args.rounds)
        report(figures[name])
    if args.out:
        args.out.write_text(json.dumps(figures, indent=2) + "\n")


@torch.no_grad()
def contenders(batches: tuple[Tensor, ...], first: int, samples: int) -> dict[str, Contender]:
    module = network(first).train()
    model, key = functionalize(module), random.key(0)

    def repeated(x: Tensor) -> Tensor:
        with torch.no_grad():
            probs = module(x.repeat_interleave(samples, dim=0)).softmax(-1)
        return probs.reshape(len(x), samples, -1).mean(1)

    def sampled(params: Any, x: Tensor, key: Tensor) -> Tensor:
        logits = uncertainty.mc_dropout(model, params, {}, x, key=key, num_samples=samples)
        return uncertainty.categorical(logits).probs

    compiled = fdnn.jit(sampled)
    group: dict[str, Contender] = {
        "torch, repeat_interleave": lambda: [repeated(x) for x in batches],
        "fdnn, eager": lambda: [sampled(model.params, x, key) for x in batches],
        "fdnn, compiled": lambda: [compiled(model.params, x, key) for x in batches],
    }
    try:
        group["JAX, jit(vmap)"] = jax_passes(model.params, batches, first, samples)
    except ModuleNotFoundError:
        print("JAX is not installed (pip install 'fdnn-torch[jax]'): measuring without it")
    return group


def network(first: int) -> nn.Module:
    layers: list[nn.Module] = []
    for i in range(len(SIZES) - 1):
        layers += [nn.Dropout(RATE)] * (i >= first)
        layers += [nn.Linear(SIZES[i], SIZES[i + 1]), nn.ReLU()]
    return nn.Sequential(*layers[:-1])


def jax_passes(params: Any, batches: Any, first: int, samples: int) -> Contender:
    import jax
    import jax.numpy as jnp

    values = [jnp.asarray(value.numpy()) for value in params.values()]
    layers = list(zip(values[::2], values[1::2], strict=True))
    images = [jnp.asarray(x.numpy()) for x in batches]

    def logits(layers: Any, x: Any, key: Any) -> Any:
        keys = jax.random.split(key, len(layers))
        for i, (weight, bias) in enumerate(layers):
            if i >= first:
                x = jnp.where(jax.random.bernoulli(keys[i], 1 - RATE, x.shape), x / (1 - RATE), 0)
            x = x @ weight.T + bias
            x = jax.nn.relu(x) if i < len(layers) - 1 else x
        return x

    @jax.jit
    def mean(layers: Any, x: Any, key: Any) -> Any:
        keys = jax.random.split(key, samples)
        outputs = jax.vmap(logits, in_axes=(None, None, 0))(layers, x, keys)
        return jax.nn.softmax(outputs).mean(0)

    key = jax.random.key(0)
    return lambda: jax.block_until_ready([mean(layers, x, key) for x in images])


if __name__ == "__main__":
    main()
