"""Hyperparameters in the state for optimizers that keep them in closures."""

from __future__ import annotations

import functools
import inspect
from collections.abc import Callable, Iterable
from numbers import Real
from typing import Any

import torch
from torch import Tensor

from fdnn import tree
from fdnn.optim.core.chain import Chain, OptState, _in_use, chain, with_extra_args
from fdnn.optim.core.part import Hyper, Notes, Part, narrow
from fdnn.types import GradientTransformation, ScalarOrSchedule, Tree

__all__ = ["inject_hyperparams"]


def inject_hyperparams(
    inner_factory: Callable[..., GradientTransformation], static_args: str | Iterable[str] = ()
) -> Callable[..., Chain]:
    """Move the numbers that a factory of optimizers is called with into the state.

    For factories of your own, whose updates use numbers of the enclosing call. The optimizers of
    fdnn have theirs in the state already: `optim.sgd(lr=0.1).init(params).hyperparams["lr"]`.

    Args:
        inner_factory: makes a transformation, `(init, update)` or one of fdnn's. It is called
            anew inside every `init` and `update`, with 0-d tensors for what was injected, and must
            not look at their values.
        static_args: names of arguments that stay as they are. Booleans, arguments that are
            annotated `int` or `bool`, and what is no number do so without being named. A callable
            that is passed and not named is taken for a schedule.

    Returns:
        A function with the arguments of `inner_factory`, each number among them a number, a 0-d
        tensor or a schedule. Its transformation keeps them as hyperparameters and the state of what
        the factory makes in the slot `inner`, whose own hyperparameters, if it has any, are always
        what the factory gives them.

    Raises:
        ValueError: `static_args` names no argument of `inner_factory`.

    Example:
        >>> from fdnn.types import GradientTransformation
        >>> def scaled(factor):
        ...     return GradientTransformation(
        ...         lambda params: (), lambda g, s, p=None: (tree.map(lambda x: x * factor, g), s)
        ...     )
        >>> tx = inject_hyperparams(scaled)(factor=lambda count: 0.5**count)
        >>> updates, state = tx.update({"w": torch.ones(1)}, tx.init({"w": torch.ones(1)}))
        >>> updates["w"], state.hyperparams["factor"].item()
        (tensor([1.]), 1.0)

    References:
        optax's `inject_hyperparams`, which also turns integers into arrays, and takes callables
        that are defaults for schedules.
    """
    signature = inspect.signature(inner_factory)
    static = {static_args} if isinstance(static_args, str) else set(static_args)
    if not static <= set(signature.parameters):
        raise ValueError(
            f"`static_args` must name arguments of `inner_factory`, {list(signature.parameters)}, "
            f"got {sorted(static)}"
        )
    static |= {
        name
        for name, parameter in signature.parameters.items()
        if parameter.annotation in (int, bool, "int", "bool")
    }

    @functools.wraps(inner_factory)
    def factory(*args: Any, **kwargs: Any) -> Chain:
        bound = signature.bind(*args, **kwargs)
        passed = set(bound.arguments)
        bound.apply_defaults()
        injected = {
            name: value
            for name, value in bound.arguments.items()
            if name not in static and (_is_scalar(value) or (callable(value) and name in passed))
        }
        return chain(_part(inner_factory, bound, injected))

    return factory


def _is_scalar(value: Any) -> bool:
    if isinstance(value, Tensor):
        return value.ndim == 0
    return isinstance(value, Real) and not isinstance(value, bool)


def _part(
    inner_factory: Callable[..., GradientTransformation],
    bound: inspect.BoundArguments,
    injected: dict[str, ScalarOrSchedule],
) -> Part:
    def made(values: dict[str, Any]) -> GradientTransformation:
        call = inspect.BoundArguments(bound.signature, {**bound.arguments, **values})
        return with_extra_args(GradientTransformation(*inner_factory(*call.args, **call.kwargs)))

    def init(params: Tree) -> dict[str, Tree]:
        like = next(iter(tree.leaves(params)), torch.zeros(()))
        count = like.new_zeros((), dtype=torch.int64)
        hyper = {name: _in_use(value, None, count) for name, value in injected.items()}
        return {"inner": made(hyper).init(params)}

    def update(
        updates: Tree,
        slots: dict[str, Tree],
        params: Tree,
        hyper: Hyper,
        count: Tensor,
        *,
        stored: Tree,
        **extra: Any,
    ) -> tuple[Tree, dict[str, Tree], Notes]:
        inner = made(hyper)
        old = slots["inner"]
        if isinstance(old, OptState):
            old = _with_hyperparams(inner.init(stored), old)
        moves, state = inner.update(updates, old, params, **extra)
        return narrow(moves, stored), {"inner": narrow(state, slots["inner"])}, {}

    name = getattr(inner_factory, "__name__", "injected")
    return Part(name, init, update, injected, slots=("inner",), as_is=True)


def _with_hyperparams(fresh: OptState, state: OptState) -> OptState:
    """Take over the hyperparameters of a fresh state, those of optimizers inside too."""
    slots = {
        name: _with_hyperparams(fresh.slots[name], slot) if isinstance(slot, OptState) else slot
        for name, slot in state.slots.items()
    }
    return state._replace(hyperparams=fresh.hyperparams, slots=slots)
