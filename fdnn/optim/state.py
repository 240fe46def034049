"""The state that every optimizer has, and `chain`, which makes one optimizer of several parts.

A *part* is one idea (momentum, weight decay, clipping): named hyperparameters, named slots, and
two functions that know nothing of counting or schedules. `chain` owns the rest: the one step
counter, the hyperparameters as tensors in the state, and the names. Every optimizer of fdnn is a
chain of parts, so every state looks the same.
"""

from __future__ import annotations

import itertools
from collections import Counter
from collections.abc import Callable
from typing import Any, NamedTuple

import torch
from torch import Tensor

from fdnn import tree
from fdnn.types import GradientTransformation, ScalarOrSchedule, Tree

__all__ = ["Hyper", "OptState", "Part", "chain", "diagnostics"]

Hyper = dict[str, Tensor]
"""The hyperparameters in use, as 0-d tensors by name."""


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


class Part(NamedTuple):
    """One stage of an optimizer.

    Attributes:
        name: what the part is called where two parts would use the same name.
        init: `init(params) -> slots`, a dict with the names of `slots`.
        update: `update(updates, slots, params, hyper, count, **extra) -> (updates, slots,
            diagnostics)`; `hyper` holds the values in use, `count` the steps taken before this
            one.
        hyperparams: initial values or schedules, by name.
        slots: names of the trees that the part keeps.
        diagnostics: names of the 0-d tensors that it leaves behind, float32.
        as_is: whether `update` takes the leaves as they are stored. Otherwise it gets half
            precision widened to float32 and complex numbers as pairs of reals (the last
            dimension), and `chain` brings what it returns back to the stored form.
    """

    name: str
    init: Callable[[Tree], dict[str, Tree]]
    update: Callable[..., tuple[Tree, dict[str, Tree], dict[str, Tensor]]]
    hyperparams: dict[str, ScalarOrSchedule] = {}  # noqa: RUF012  (never written to)
    slots: tuple[str, ...] = ()
    diagnostics: tuple[str, ...] = ()
    as_is: bool = False


class Chain(GradientTransformation):
    """A `GradientTransformation` that remembers its parts, so that chains of chains are flat."""

    parts: tuple[Part, ...]


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

    Example:
        >>> from fdnn import optim
        >>> tx = chain(optim.clip_by_global_norm(1.0), optim.sgd(lr=0.1))
        >>> state = tx.init({"w": torch.zeros(2)})
        >>> {name: value.item() for name, value in state.hyperparams.items()}
        {'max_norm': 1.0, 'lr': 0.1}
    """
    parts = _distinct([part for transform in transforms for part in _parts(transform)])
    hypers = _full_names(parts, [part.hyperparams for part in parts])
    slots = _full_names(parts, [part.slots for part in parts])
    notes = _full_names(parts, [part.diagnostics for part in parts])
    values = {
        full: part.hyperparams[name]
        for part, names in zip(parts, hypers, strict=True)
        for name, full in names.items()
    }

    def init(params: Tree) -> OptState:
        # Made from a parameter, so that vmap over `params` gives every lane a state of its own.
        like = next(iter(tree.leaves(params)), torch.zeros(()))
        count = like.new_zeros((), dtype=torch.int64)
        state_slots: dict[str, Tree] = {}
        for part, names in zip(parts, slots, strict=True):
            made = part.init(params)
            state_slots.update({full: made[name] for name, full in names.items()})
        return OptState(
            count=count,
            hyperparams={name: _in_use(value, None, count) for name, value in values.items()},
            slots=state_slots,
            diagnostics={
                full: torch.zeros_like(count, dtype=torch.float32)
                for names in notes
                for full in names.values()
            },
        )

    def update(
        grads: Tree, state: OptState, params: Tree | None = None, **extra: Any
    ) -> tuple[Tree, OptState]:
        in_use = {
            name: _in_use(value, state.hyperparams[name], state.count)
            for name, value in values.items()
        }
        stored = grads if params is None else params
        updates, wide_params, new_slots, new_notes = _widen(grads), _widen(params), {}, {}
        for part, hyper_names, slot_names, note_names in zip(
            parts, hypers, slots, notes, strict=True
        ):
            hyper = {name: in_use[full] for name, full in hyper_names.items()}
            own = {name: state.slots[full] for name, full in slot_names.items()}
            if part.as_is:
                updates, left, said = part.update(
                    _narrow(updates, stored), own, params, hyper, state.count, **extra
                )
                updates = _widen(updates)
            else:
                updates, left, said = part.update(
                    updates, _widen(own), wide_params, hyper, state.count, **extra
                )
                left = _narrow(left, own)
            new_slots.update({full: left[name] for name, full in slot_names.items()})
            new_notes.update({full: said[name].float() for name, full in note_names.items()})
        return _narrow(updates, stored), OptState(state.count + 1, in_use, new_slots, new_notes)

    result = Chain(init, update)
    result.parts = tuple(parts)
    return result


def diagnostics(opt_state: OptState) -> dict[str, Tensor]:
    """Gather what a log wants: the hyperparameters in use and the last step's diagnostics.

    Example:
        >>> from fdnn import optim
        >>> diagnostics(optim.sgd(lr=0.1).init({"w": torch.zeros(2)}))
        {'lr': tensor(0.1000, dtype=torch.float64)}
    """
    return {**opt_state.hyperparams, **opt_state.diagnostics}


def _parts(transform: Any) -> tuple[Part, ...]:
    if isinstance(transform, Part):
        return (transform,)
    if isinstance(transform, Chain):
        return transform.parts
    if isinstance(transform, tuple) and len(transform) == 2 and all(map(callable, transform)):
        return (_opaque(*transform),)
    raise TypeError(f"`transforms` must be transformations (init, update), got {transform!r}")


def _opaque(init: Callable[..., Any], update: Callable[..., Any]) -> Part:
    """Make a part of a hand-written pair: its state is one slot."""
    name = getattr(init, "__qualname__", "transform").split(".")[0]

    def part_update(
        updates: Tree,
        slots: dict[str, Tree],
        params: Tree,
        hyper: Hyper,
        count: Tensor,
        **extra: Any,
    ) -> tuple[Tree, dict[str, Tree], dict[str, Tensor]]:
        updates, state = update(updates, slots[name], params, **extra)
        return updates, {name: state}, {}

    return Part(name, lambda params: {name: init(params)}, part_update, slots=(name,), as_is=True)


def _distinct(parts: list[Part]) -> list[Part]:
    """Number the parts that share a name: `name`, `name_1`, `name_2`, ..."""
    distinct: dict[str, Part] = {}
    for part in parts:
        names = itertools.chain([part.name], (f"{part.name}_{i}" for i in itertools.count(1)))
        name = next(name for name in names if name not in distinct)
        distinct[name] = part._replace(name=name)
    return list(distinct.values())


def _full_names(parts: list[Part], names: list[Any]) -> list[dict[str, str]]:
    """Map each part's own names to names in the state, qualified where they would clash."""
    uses = Counter(name for own in names for name in own)
    return [
        {name: f"{part.name}.{name}" if uses[name] > 1 else name for name in own}
        for part, own in zip(parts, names, strict=True)
    ]


def _in_use(value: ScalarOrSchedule, stored: Tensor | None, count: Tensor) -> Tensor:
    """The value for this step: the schedule's, or the one in the state, or the first."""
    if stored is not None and not callable(value):
        return stored
    # float64 keeps torch's trajectories, whose hyperparameters are Python numbers.
    zero = torch.zeros_like(
        count, dtype=torch.float32 if count.device.type == "mps" else torch.float64
    )
    return zero + (value(count) if callable(value) else value)


def _widen(leaves: Tree) -> Tree:
    """Bring leaves to the form that is computed with."""

    def widen(x: Tensor) -> Tensor:
        if x.is_complex():
            return torch.view_as_real(x.resolve_conj())
        return x.float() if x.dtype in (torch.float16, torch.bfloat16) else x

    return tree.map(widen, leaves)


def _narrow(leaves: Tree, stored: Tree) -> Tree:
    """Bring leaves to the form of `stored`; 0-d ones too, which hyperparameters promote."""

    def narrow(like: Tensor, x: Tensor) -> Tensor:
        if like.is_complex() and not x.is_complex():
            x = torch.view_as_complex(x)
        return x.to(like.dtype)

    return tree.map(narrow, stored, leaves)
