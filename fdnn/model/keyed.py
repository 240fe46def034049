"""The mode under which a module's random operations take their randomness from a key.

Inside `KeyedRandomness(key)` each random operation of torch is replaced by its twin from `TWINS`,
which draws with `fold_in(key, i)`, i counting the draws of the call. A random operation without
a twin raises: it never falls through to torch's global generator.
"""

from __future__ import annotations

import types
from collections.abc import Callable
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor
from torch.overrides import TorchFunctionMode

from fdnn import random
from fdnn.model.twins import TWINS
from fdnn.normalization import plain
from fdnn.types import Key

__all__ = ["KeyedRandomness"]

# These draw only if their `dropout` argument is positive; `_draws` looks.
_RECURRENT = {"gru", "lstm", "quantized_gru", "quantized_lstm", "rnn_relu", "rnn_tanh"}
# Python functions of torch that call random operations inside.
_COMPOSITE = (F.multi_head_attention_forward, torch.lobpcg, torch.pca_lowrank, torch.svd_lowrank)
# What runs under vmap, since torch's fused kernels of attention have no batching rule.
_PLAIN_ATTENTION = torch.ops.aten._scaled_dot_product_attention_math


class KeyedRandomness(TorchFunctionMode):
    """Take all randomness inside the `with` block from `key`.

    Args:
        key: a key, or None, with which any draw is an error.
    """

    def __init__(self, key: Key | None):
        super().__init__()
        if torch.compiler.is_compiling():
            _teach_compiler()
        self.key = key
        self.draws = 0

    def next_key(self, name: str) -> Key:
        """Return the key of the next draw."""
        if self.key is None:
            raise ValueError(
                f"`key` must be given, since the model calls the random operation {name!r}: "
                "`apply(params, buffers, ..., key=key)`"
            )
        number = self.draws
        self.draws = number + 1
        return random.fold_in(self.key, number)

    def __torch_function__(
        self,
        func: Callable[..., Any],
        types: Any,
        args: tuple[Any, ...] = (),
        kwargs: dict[str, Any] | None = None,
    ) -> Any:
        kwargs = kwargs or {}
        if func is torch.Tensor.unflatten:
            func = torch.unflatten  # torch.compile cannot trace the method under a mode
        if func is F.batch_norm and plain.is_better():
            func = plain.batch_norm
        if func in TWINS:
            draws, twin = TWINS[func]
            if not draws(*args, **kwargs):
                if func is F.scaled_dot_product_attention and plain.is_vmapped():
                    return _PLAIN_ATTENTION(*args, **kwargs)[0]
                return func(*args, **kwargs)
            return twin(self.next_key(func.__name__), *args, **kwargs)
        if func in _OPENED:
            with self:
                return _OPENED[func](*args, **kwargs)
        name = getattr(func, "__name__", "")
        if name in _RANDOM_NAMES and _draws(name, args, kwargs):
            raise NotImplementedError(
                f"the model calls the random operation {name!r}, which fdnn cannot key; it would "
                "draw from torch's global generator. Write it with torch.rand, randn or bernoulli "
                "(docs/gotchas.md lists what is keyed)"
            )
        return func(*args, **kwargs)


def _open(function: Callable[..., Any]) -> Callable[..., Any]:
    """Copy a Python function of torch so that it does not dispatch to the mode as a whole.

    Such a function first asks whether a mode wants it, and the mode is off while it answers: the
    dropout inside would go unseen. The copy skips the question, so that the mode can stay on.
    """
    never = dict.fromkeys(
        ("has_torch_function", "has_torch_function_unary", "has_torch_function_variadic"),
        lambda *tensors: False,
    )
    copy = types.FunctionType(
        function.__code__,
        {**function.__globals__, **never, "_check_key_padding_mask": _check_key_padding_mask},
        function.__name__,
        function.__defaults__,
    )
    copy.__kwdefaults__ = function.__kwdefaults__
    return copy


def _check_key_padding_mask(mask: Tensor, src_len: int, bsz: int) -> None:
    """Say what attention's own check says; torch.compile cannot trace that one."""
    if mask.shape != (bsz, src_len):
        raise AssertionError(
            f"`key_padding_mask` must have shape {(bsz, src_len)}, got {tuple(mask.shape)}"
        )


_OPENED = {function: _open(function) for function in _COMPOSITE}


def _random_names() -> frozenset[str]:
    """Names of torch's random operations: those that torch itself tags, and the forgotten ones.

    And of their overloads: `torch.ops.aten.bernoulli.p` is called "bernoulli.p".
    """
    names = {"kaiming_uniform_", *_RECURRENT}  # the first is of torch.nn.init, and no operation
    for qualified in torch._C._dispatch_get_all_op_names():
        operation, _, overload = qualified.partition(".")
        space, _, name = operation.partition("::")
        tags = torch._C._get_operation_overload(operation, overload)[2]
        if space == "aten" and torch.Tag.nondeterministic_seeded in tags:
            names |= {name, f"{name}.{overload or 'default'}"}
    return frozenset(names)


_RANDOM_NAMES = _random_names()


@torch.compiler.assume_constant_result  # type: ignore[untyped-decorator]
def _teach_compiler() -> None:
    """Make `torch.compile` show the mode every random operation, not only those torch lists.

    Runs while a call is traced. Without it `torch.randn_like` and a few more would silently draw
    from the global generator in compiled code.
    """
    from torch._dynamo.variables.torch import get_overridable_functions

    named = {
        getattr(owner, name)
        for owner in (torch, torch._C._nn)
        for name in _RANDOM_NAMES
        if hasattr(owner, name)
    }
    get_overridable_functions().update(named, TWINS)


def _draws(name: str, args: tuple[Any, ...], kwargs: dict[str, Any]) -> bool:
    """Tell whether this call of a random operation draws at all."""
    if name not in _RECURRENT:
        return True
    flags = (arg for arg in args if not isinstance(arg, Tensor | tuple | list))
    given = dict(zip(("has_biases", "num_layers", "dropout", "train"), flags, strict=False))
    given.update(kwargs)
    return bool(given["dropout"] and given["train"])
