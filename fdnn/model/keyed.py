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
from fdnn.types import Key

__all__ = ["KeyedRandomness"]

# Random operations that torch leaves without the tag `nondeterministic_seeded`.
_UNTAGGED = {
    "_sample_dirichlet",
    "binomial",
    "feature_alpha_dropout",
    "feature_dropout",
    "random_",
    "rrelu",
}
# These draw only if their `dropout` argument is positive; `_draws` looks.
_RECURRENT = {"lstm", "gru", "rnn_tanh", "rnn_relu"}
# Python functions of torch.nn.functional that call random operations inside.
_COMPOSITE = (
    F.multi_head_attention_forward,
    F.fractional_max_pool2d_with_indices,
    F.fractional_max_pool3d_with_indices,
)


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
        if func in TWINS:
            draws, twin = TWINS[func]
            if not draws(*args, **kwargs):
                return func(*args, **kwargs)
            return twin(self.next_key(func.__name__), *args, **kwargs)
        if func in _OPENED:
            with self:
                return _OPENED[func](*args, **kwargs)
        name = getattr(func, "__name__", "")
        if name in _RANDOM_NAMES and _draws(name, args):
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
        {**function.__globals__, **never},
        function.__name__,
        function.__defaults__,
    )
    copy.__kwdefaults__ = function.__kwdefaults__
    return copy


_OPENED = {function: _open(function) for function in _COMPOSITE}


def _random_names() -> frozenset[str]:
    """Names of torch's random operations: those that torch itself tags, and the forgotten ones."""
    tagged = {
        name
        for name in dir(torch.ops.aten)
        for packet in (getattr(torch.ops.aten, name),)
        for overload in getattr(packet, "overloads", list)()
        if torch.Tag.nondeterministic_seeded in getattr(packet, overload).tags
    }
    return frozenset(tagged | _UNTAGGED)


_RANDOM_NAMES = _random_names()


@torch.compiler.assume_constant_result  # type: ignore[untyped-decorator]
def _teach_compiler() -> None:
    """Make `torch.compile` show the mode every random operation, not only those torch lists.

    Runs while a call is traced. Without it `torch.randn_like` and a few more would silently draw
    from the global generator in compiled code.
    """
    from torch._dynamo.variables.torch import get_overridable_functions

    named = {getattr(torch, name) for name in _RANDOM_NAMES if hasattr(torch, name)}
    get_overridable_functions().update(named, TWINS)


def _draws(name: str, args: tuple[Any, ...]) -> bool:
    """Tell whether this call of a random operation draws at all."""
    if name not in _RECURRENT:
        return True
    # (..., has_biases, num_layers, dropout, train, bidirectional[, batch_first])
    flags = [arg for arg in args if not isinstance(arg, Tensor | tuple | list)]
    dropout, train = flags[2], flags[3]
    return bool(dropout and train)
