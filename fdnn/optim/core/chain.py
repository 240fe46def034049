"""The state that every optimizer has, and `chain`, which makes one optimizer of several parts.

Parts (`fdnn.optim.core.part`) know nothing of counting or schedules. `chain` owns the rest: the one
step counter, the hyperparameters as tensors in the state, and the names. Every optimizer of fdnn
is a chain of parts, so every state looks the same.
"""

from __future__ import annotations

import inspect
from collections.abc import Callable
from typing import Any, NamedTuple

import torch
from torch import Tensor

from fdnn import tree
from fdnn.optim.core.leafwise import Leaves, leafwise, pack, runs_plainly, unpack
from fdnn.optim.core.part import (
    WIDE,
    Hyper,
    Notes,
    Part,
    gather,
    narrow,
    pack_wide,
    scalar_like,
    sequence,
    widen,
)
from fdnn.types import GradientTransformation, ScalarOrSchedule, Tree

__all__ = ["Chain", "OptState", "chain", "diagnostics", "set_hyperparams", "with_extra_args"]


class OptState(NamedTuple):
    """What an optimizer carries from step to step.

    Attributes:
        count: steps taken, 0-d int64.
        hyperparams: the hyperparameters in use, 0-d tensors by name; change one here and the
            next step uses it. One that follows a schedule is rewritten by every step.
        slots: one tree like the parameters for each slot, under torch's `state_dict` names.
        diagnostics: 0-d tensors that the last step left for whoever wants to look.
    """

    count: Tensor  # type: ignore[assignment]
    hyperparams: Hyper
    slots: dict[str, Tree]
    diagnostics: dict[str, Tensor]


class Update:
    """The `update` of a chain: owns counting, hyperparameters in use, and the form of leaves.

    Attributes:
        parts: what the chain is made of.
        total_steps: the one length of its finite schedules; None if there are none.
    """

    def __init__(self, parts: tuple[Part, ...], whole: Part):
        self.parts: tuple[Part, ...] = parts
        self.total_steps: int | None = _length(whole.hyperparams)
        self._whole = whole

    def __call__(
        self, grads: Tree, state: OptState, params: Tree | None = None, **extra: Any
    ) -> tuple[Tree, OptState]:
        stored = grads if params is None else params
        updates, state = self._advance(grads, state, params, stored, extra)
        return narrow(unpack(updates, stored), stored), state

    def step(
        self, params: Tree, grads: Tree, state: OptState, extra: dict[str, Any]
    ) -> tuple[Tree, OptState]:
        """Update, and add to the parameters."""
        own = pack(tree.columns(params)[0]) if runs_plainly() else None
        if own is None or own.dtype not in WIDE:
            own = params
        updates, state = self._advance(grads, state, own, params, extra)
        if isinstance(own, Leaves) and isinstance(updates, Leaves) and own.dtype == updates.dtype:
            return unpack(own + updates, params), state
        return add(params, narrow(unpack(updates, params), params)), state

    def _advance(
        self,
        grads: Tree,
        state: OptState,
        params: Tree | None,
        stored: Tree,
        extra: dict[str, Any],
    ) -> tuple[Any, OptState]:
        row = tree.column(grads, stored)
        _refuse_sparse(grads, row)
        hyper = {
            name: _in_use(value, state.hyperparams[name], state.count)
            for name, value in self._whole.hyperparams.items()
        }
        own = gather(params, stored)
        packed = None if own is None else pack_wide(row)
        updates, slots, notes = self._whole.update(
            widen(grads) if packed is None else packed,
            state.slots,
            widen(params) if own is None else own,
            hyper,
            state.count,
            stored=stored,
            **extra,
        )
        return updates, OptState(state.count + 1, hyper, slots, notes)


class Chain(GradientTransformation):
    """A `GradientTransformation` that remembers its parts, so that chains of chains are flat."""

    # What it remembers is with `update`: vmap and the compiler rebuild tuples of their own.
    init: Callable[[Any], OptState]
    update: Update

    @property
    def parts(self) -> tuple[Part, ...]:
        """What it is made of."""
        return self.update.parts

    @property
    def total_steps(self) -> int | None:
        """The length of the finite schedules among its hyperparameters, if there are any."""
        return self.update.total_steps


def chain(*transforms: GradientTransformation | Part) -> Chain:
    """Apply transformations one after the other, as one optimizer with one state.

    Args:
        *transforms: optimizers, building blocks (`scale_by_adam()`), parts, or hand-written pairs
            `(init, update)`. A hand-written pair keeps its whole state in one slot.

    Returns:
        The composed transformation. Its state names every hyperparameter and slot of its parts;
        where two parts share a name, each is written `part.name`.

    Raises:
        TypeError: an argument is neither a transformation nor a part.
        ValueError: finite schedules among the hyperparameters differ in length.

    Example:
        >>> from fdnn import optim
        >>> tx = chain(optim.clip_by_global_norm(1.0), optim.sgd(lr=0.1))
        >>> state = tx.init({"w": torch.zeros(2)})
        >>> {name: value.item() for name, value in state.hyperparams.items()}
        {'max_norm': 1.0, 'lr': 0.1}
    """
    parts = tuple(part for transform in transforms for part in _parts(transform))
    whole = sequence("chain", parts)

    def init(params: Tree) -> OptState:
        # Made from a parameter, so that vmap over `params` gives every lane a state of its own.
        like = next(iter(tree.leaves(params)), torch.zeros(()))
        count = like.new_zeros((), dtype=torch.int64)
        return OptState(
            count=count,
            hyperparams={
                name: _in_use(value, None, count) for name, value in whole.hyperparams.items()
            },
            slots=whole.init(params),
            diagnostics={
                name: torch.zeros_like(count, dtype=torch.float32) for name in whole.diagnostics
            },
        )

    return Chain(init, Update(parts, whole))


def diagnostics(opt_state: OptState) -> dict[str, Tensor]:
    """Gather what a log wants: the hyperparameters in use and the last step's diagnostics.

    Those of optimizers inside others (`lookahead(sgd(lr=0.1))`) are among them.

    Example:
        >>> from fdnn import optim
        >>> diagnostics(optim.sgd(lr=0.1).init({"w": torch.zeros(2)}))
        {'lr': tensor(0.1000, dtype=torch.float64)}
    """
    found: dict[str, Tensor] = {}
    for slot in opt_state.slots.values():
        if isinstance(slot, OptState):
            found |= diagnostics(slot)
    return {**found, **opt_state.hyperparams, **opt_state.diagnostics}


def set_hyperparams(opt_state: OptState, **values: float | Tensor) -> OptState:
    """Change hyperparameters in the middle of a run, without compiling anew.

    Args:
        opt_state: of one run, or stacked.
        **values: new values by name: numbers, or tensors that broadcast to the stored ones (one
            value for each lane of a stacked state). Write a name with a dot as
            `**{"decay.lr": 0.1}`.

    Returns:
        A new state. What a schedule governs, the next step rewrites.

    Raises:
        KeyError: no hyperparameter has that name; the message lists those there are.

    Example:
        >>> from fdnn import optim
        >>> state = optim.sgd(lr=0.1).init({"w": torch.zeros(2)})
        >>> set_hyperparams(state, lr=0.01).hyperparams
        {'lr': tensor(0.0100, dtype=torch.float64)}
    """
    known = _hyperparams(opt_state)
    unknown = [name for name in values if name not in known]
    if unknown:
        raise KeyError(f"no hyperparameter is called {unknown}; there are {sorted(known)}")
    hyperparams = {
        name: torch.zeros_like(old) + values[name] if name in values else old
        for name, old in opt_state.hyperparams.items()
    }
    slots = {
        name: set_hyperparams(slot, **{k: v for k, v in values.items() if k in _hyperparams(slot)})
        if isinstance(slot, OptState)
        else slot
        for name, slot in opt_state.slots.items()
    }
    return opt_state._replace(hyperparams=hyperparams, slots=slots)


def with_extra_args(transform: GradientTransformation) -> GradientTransformation:
    """Let a hand-written transformation be called with extra arguments, which it then ignores.

    Training steps pass `value` (the loss) and `value_and_grad` (a function of parameters) for those
    that use them.

    Args:
        transform: a pair `(init, update)`.

    Returns:
        The same, if its `update` takes keyword arguments of any name; or a pair that drops those
        which it does not name.

    Example:
        >>> from fdnn.types import GradientTransformation
        >>> double = GradientTransformation(lambda p: (), lambda g, s, p=None: (g * 2, s))
        >>> with_extra_args(double).update(torch.ones(1), (), value=torch.zeros(()))[0]
        tensor([2.])
    """
    init, update = transform
    named = _keywords(update)
    if named is None:
        return transform

    def deaf(grads: Tree, state: Any, params: Tree | None = None, **extra: Any) -> Any:
        heard = {name: value for name, value in extra.items() if name in named}
        return update(grads, state, params, **heard)

    return GradientTransformation(init, deaf)


def _keywords(fn: Callable[..., Any]) -> set[str] | None:
    """The keyword-only arguments of a function; None if it takes any."""
    code = getattr(fn, "__code__", None)  # which the compiler can read, of plain functions
    if code is not None:
        first, last = code.co_argcount, code.co_argcount + code.co_kwonlyargcount
        return None if code.co_flags & inspect.CO_VARKEYWORDS else {*code.co_varnames[first:last]}
    parameters = inspect.signature(fn).parameters.values()
    if any(parameter.kind is inspect.Parameter.VAR_KEYWORD for parameter in parameters):
        return None
    return {p.name for p in parameters if p.kind is inspect.Parameter.KEYWORD_ONLY}


def _hyperparams(opt_state: OptState) -> set[str]:
    """Names of all hyperparameters, those of inner optimizers too."""
    inner = [_hyperparams(slot) for slot in opt_state.slots.values() if isinstance(slot, OptState)]
    return set(opt_state.hyperparams).union(*inner)


def add(params: Tree, updates: Tree) -> Tree:
    """Add updates to parameters of the same dtypes."""
    return leafwise(torch.add, params, updates)


def _parts(transform: Any) -> tuple[Part, ...]:
    if isinstance(transform, Part):
        return (transform,)
    if isinstance(transform, Chain):
        return transform.parts
    if isinstance(transform, tuple) and len(transform) == 2 and all(map(callable, transform)):
        return (_opaque(with_extra_args(GradientTransformation(*transform))),)
    raise TypeError(f"`transforms` must be transformations (init, update), got {transform!r}")


def _opaque(transform: GradientTransformation) -> Part:
    """Make a part of a hand-written pair: its state is one slot."""
    code = getattr(transform.init, "__code__", None)
    name = code.co_qualname.split(".")[0] if code is not None else "transform"

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
        updates, state = transform.update(updates, slots[name], params, **extra)
        return updates, {name: state}, {}

    return Part(
        name, lambda params: {name: transform.init(params)}, update, slots=(name,), as_is=True
    )


def _refuse_sparse(grads: Tree, row: list[Tensor]) -> None:
    """Raise if a gradient is not dense: arithmetic on it would be wrong or slow."""
    if {x.layout for x in row} <= {torch.strided}:
        return
    sparse = {
        path: str(x.layout)
        for path, x in zip(tree.paths(grads), tree.leaves(grads), strict=True)
        if x.layout is not torch.strided
    }
    raise ValueError(
        f"`grads` must be dense, got {sparse}; build the layer without `sparse=True`, "
        "or pass `grad.to_dense()`"
    )


def _length(hyperparams: dict[str, ScalarOrSchedule]) -> int | None:
    """The length that the finite schedules have in common."""
    found = {name: getattr(value, "total_steps", None) for name, value in hyperparams.items()}
    lengths = {name: length for name, length in found.items() if length is not None}
    if len(set(lengths.values())) > 1:
        raise ValueError(f"the schedules of an optimizer must have one length, got {lengths}")
    return next(iter(lengths.values()), None)


def _in_use(value: ScalarOrSchedule, stored: Tensor | None, count: Tensor) -> Tensor:
    """The value for this step: the schedule's, or the one in the state, or the first."""
    if stored is not None and not callable(value):
        return stored
    return scalar_like(count, 0.0) + (value(count) if callable(value) else value)
