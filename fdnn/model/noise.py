"""Keyed twins of the operations that make, or fill, tensors of random numbers.

Each has the signature of its original after the key, and its law.
"""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor

from fdnn import random
from fdnn.types import Key

__all__ = [
    "bernoulli",
    "bernoulli_",
    "exponential_",
    "log_normal_",
    "multinomial",
    "normal",
    "normal_",
    "rand",
    "rand_like",
    "randint",
    "randint_like",
    "randn",
    "randn_like",
    "random_",
    "randperm",
    "refuse",
    "uniform_",
    "wide",
]


def rand(key: Key, *size: Any, **options: Any) -> Tensor:
    """Uniform numbers on [0, 1)."""
    shape, dtype, device = _created(size, options)
    return _finish(random.uniform(key, shape, dtype), device, options)


def randn(key: Key, *size: Any, **options: Any) -> Tensor:
    """Standard normal numbers."""
    shape, dtype, device = _created(size, options)
    return _finish(random.normal(key, shape, wide(dtype)).to(dtype), device, options)


def rand_like(key: Key, input: Tensor, **options: Any) -> Tensor:
    """Uniform numbers of the input's shape, dtype and device."""
    return rand(key, input.shape, **{**_like(input), **options})


def randn_like(key: Key, input: Tensor, **options: Any) -> Tensor:
    """Standard normal numbers of the input's shape, dtype and device."""
    return randn(key, input.shape, **{**_like(input), **options})


def randint(key: Key, *args: Any, **options: Any) -> Tensor:
    """Integers from [low, high): `randint(high, size)` or `randint(low, high, size)`."""
    unnamed = [name for name in ("low", "high", "size") if name not in options]
    options.update(zip(unnamed[len(unnamed) - len(args) :], args, strict=True))
    shape = options.pop("size")
    low, high = options.pop("low", 0), options.pop("high")
    drawn = random.randint(key, tuple(shape), low, high, torch.int64)
    return _finish(drawn.to(options.get("dtype") or torch.int64), options.get("device"), options)


def randint_like(key: Key, input: Tensor, *args: Any, **options: Any) -> Tensor:
    """Integers from [low, high) of the input's shape, dtype and device."""
    return randint(key, *args, size=input.shape, **{**_like(input), **options})


def randperm(key: Key, n: int, **options: Any) -> Tensor:
    """A permutation of 0, ..., n - 1."""
    order = random.permutation(key, n)
    return _finish(order.to(options.get("dtype") or torch.int64), options.get("device"), options)


def normal(key: Key, mean: Any, std: Any = 1.0, size: Any = None, **options: Any) -> Tensor:
    """Normal numbers with the given means and standard deviations."""
    mean, std = (v.detach() if isinstance(v, Tensor) else v for v in (mean, std))  # as torch
    tensors = [value for value in (mean, std) if isinstance(value, Tensor)]
    if tensors:
        size, options = (mean + std).shape, {**_like(tensors[0]), **options}
    noise = randn(key, size, **options)
    return noise.mul(std).add(mean).to(noise.dtype)


def bernoulli(key: Key, input: Tensor, p: float | None = None, **options: Any) -> Tensor:
    """Ones with the probabilities in `input` (or `p`), else zeros, in the input's dtype."""
    refuse(options)
    if p is not None:
        return random.bernoulli(key, p, input.shape).to(input.dtype)
    return random.bernoulli(key, input.to(wide(input.dtype))).to(input.dtype)


def multinomial(
    key: Key, input: Tensor, num_samples: int, replacement: bool = False, **options: Any
) -> Tensor:
    """Categories drawn with the weights in the rows of `input`."""
    refuse(options)
    logits = torch.log(input.to(wide(input.dtype)))
    if replacement:
        shape = (num_samples, *input.shape[:-1])
        return random.categorical(key, logits, shape=shape).movedim(0, -1)
    noisy = logits + random.gumbel(key, input.shape, logits.dtype)
    return noisy.topk(num_samples, dim=-1).indices


def bernoulli_(key: Key, input: Tensor, p: Any = 0.5, **options: Any) -> Tensor:
    """Fill with ones of probability `p`, else zeros."""
    refuse(options)
    if isinstance(p, Tensor):
        p = p.to(wide(p.dtype))
    return input.copy_(random.bernoulli(key, p, input.shape))


def uniform_(key: Key, input: Tensor, a: Any = 0.0, b: Any = 1.0, **options: Any) -> Tensor:
    """Fill with uniform numbers on [a, b)."""
    low, high = options.pop("from", a), options.pop("to", b)
    refuse(options)
    return input.copy_(random.uniform(key, input.shape, input.dtype, low, high))


def normal_(key: Key, input: Tensor, mean: Any = 0.0, std: Any = 1.0, **options: Any) -> Tensor:
    """Fill with normal numbers."""
    refuse(options)
    return input.copy_(random.normal(key, input.shape, wide(input.dtype)) * std + mean)


def log_normal_(key: Key, input: Tensor, mean: Any = 1.0, std: Any = 2.0, **options: Any) -> Tensor:
    """Fill with exponentials of normal numbers."""
    refuse(options)
    return input.copy_(torch.exp(random.normal(key, input.shape, wide(input.dtype)) * std + mean))


def exponential_(key: Key, input: Tensor, lambd: Any = 1.0, **options: Any) -> Tensor:
    """Fill with exponential numbers of rate `lambd`."""
    refuse(options)
    drawn = random.exponential(key, input.shape, wide(input.dtype)) / lambd
    return input.copy_(drawn.clamp_min(torch.finfo(input.dtype).tiny))  # as torch, never 0


def random_(key: Key, input: Tensor, *bounds: int, **options: Any) -> Tensor:
    """Fill with integers: of [0, to), of [from, to), or of all that the dtype holds exactly."""
    low = options.pop("from", bounds[0] if len(bounds) == 2 else 0)
    high = options.pop("to", bounds[-1] if bounds else None)
    refuse(options)
    if high is None:
        high = _count(input.dtype)
    return input.copy_(random.randint(key, input.shape, low, high, torch.int64))


def _count(dtype: torch.dtype) -> int:
    """Count the integers from 0 on that `dtype` holds without a gap."""
    if dtype is torch.bool:
        return 2
    if dtype.is_floating_point:
        return int(2 / torch.finfo(dtype).eps) + 1
    return min(torch.iinfo(dtype).max + 1, 2**63 - 1)


def wide(dtype: torch.dtype) -> torch.dtype:
    """Say in which dtype to draw: half a float knows too few numbers for most laws."""
    return torch.float32 if dtype in (torch.float16, torch.bfloat16) else dtype


def refuse(options: dict[str, Any]) -> None:
    """Raise if a call brings its own generator, or memory to write to."""
    for name in ("generator", "out"):
        if options.get(name) is not None:
            raise ValueError(
                f"`{name}` must not be given to a random operation inside a functional model: "
                "its randomness comes from `key`"
            )


def _like(input: Tensor) -> dict[str, Any]:
    return {"dtype": input.dtype, "device": input.device}


def _created(size: tuple[Any, ...], options: dict[str, Any]) -> tuple[Any, Any, Any]:
    """Shape, dtype and device of a tensor to be made with torch's creation arguments."""
    if "size" in options:
        size = (options["size"],)
    shape = tuple(size[0]) if len(size) == 1 and not isinstance(size[0], int) else size
    return shape, options.get("dtype") or torch.get_default_dtype(), options.get("device")


def _finish(made: Tensor, device: Any, options: dict[str, Any]) -> Tensor:
    refuse(options)
    made = made if device is None else made.to(device)
    return made.requires_grad_() if options.get("requires_grad") else made
