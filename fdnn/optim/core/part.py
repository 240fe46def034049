"""What an optimizer is made of: parts, each one idea, and several of them in a row.

A *part* (momentum, weight decay, clipping) has named hyperparameters, named slots and two
functions that know nothing of counting or schedules. `fdnn.optim.core.chain` owns the rest.
"""

from __future__ import annotations

import itertools
from collections import Counter
from collections.abc import Callable
from typing import Any, NamedTuple

import torch
from torch import Tensor

from fdnn import tree
from fdnn.optim.core.leafwise import Leaves, pack, runs_plainly, unpack
from fdnn.types import ScalarOrSchedule, Tree

__all__ = ["Hyper", "Part", "narrow", "scalar_like", "sequence", "widen"]

Hyper = dict[str, Tensor]
"""The hyperparameters in use, as 0-d tensors by name."""

Notes = dict[str, Tensor]
"""Diagnostics that an update leaves behind, as 0-d tensors by name."""


class Part(NamedTuple):
    """One stage of an optimizer.

    Attributes:
        name: what the part is called where two parts would use the same name.
        init: `init(params) -> slots`, a dict with the names of `slots`.
        update: `update(updates, slots, params, hyper, count, **extra) -> (updates, slots,
            diagnostics)`; `hyper` holds the values in use, `count` the steps taken before this
            one, `extra` what else the caller of the optimizer passed, and `stored`: the
            parameters (without them the gradients) in the form in which they are stored.
        hyperparams: initial values or schedules, by name.
        slots: names of the trees that the part keeps.
        diagnostics: names of the 0-d tensors that it leaves behind, float32.
        as_is: whether `update` takes the leaves as they are stored. Otherwise it gets half
            precision widened to float32 and complex numbers as pairs of reals (the last
            dimension), and what it returns is brought back to the stored form.
        elementwise: whether `update` treats all elements of all leaves alike, by nothing but
            `leafwise`. It may then be handed all leaves as one (`fdnn.optim.core.leafwise.Leaves`).
        is_step: whether what it returns is a step (what is added to parameters), and no longer a
            gradient or a direction: a learning rate has been at work.
        needs_params: why `update` cannot do without the parameters, for the error; empty if it can.
    """

    name: str
    init: Callable[[Tree], dict[str, Tree]]
    update: Callable[..., tuple[Tree, dict[str, Tree], Notes]]
    hyperparams: dict[str, ScalarOrSchedule] = {}  # noqa: RUF012  (never written to)
    slots: tuple[str, ...] = ()
    diagnostics: tuple[str, ...] = ()
    as_is: bool = False
    elementwise: bool = False
    is_step: bool = False
    needs_params: str = ""


def sequence(name: str, parts: tuple[Part, ...]) -> Part:
    """Make one part of several that act one after the other.

    Args:
        name: what the whole is called.
        parts: at least none; where two share a name of a hyperparameter, slot or diagnostic, each
            is written `part.name`.

    Returns:
        A part with all their names, which takes leaves widened. Its updates may be one `Leaves`.
    """
    parts = _distinct(parts)
    hypers = _full_names(parts, [part.hyperparams for part in parts])
    slots = _full_names(parts, [part.slots for part in parts])
    notes = _full_names(parts, [part.diagnostics for part in parts])
    named = list(zip(parts, hypers, slots, notes, strict=True))

    def init(params: Tree) -> dict[str, Tree]:
        made: dict[str, Tree] = {}
        for part, _, own, _ in named:
            new = part.init(params)
            made.update({full: new[name] for name, full in own.items()})
        return made

    def update(
        updates: Tree,
        state: dict[str, Tree],
        params: Tree,
        hyper: Hyper,
        count: Tensor,
        *,
        stored: Tree,
        **extra: Any,
    ) -> tuple[Tree, dict[str, Tree], Notes]:
        # Once for all parts that can take it: None where it cannot be had.
        all_params = _packed([params]) if runs_plainly() else None
        left: dict[str, Tree] = {}
        said: Notes = {}
        for part, own_hyper, own_slots, own_notes in named:
            if part.needs_params and params is None:
                raise ValueError(f"`params` must be given to `update`: {part.needs_params}")
            values = {name: hyper[full] for name, full in own_hyper.items()}
            own = {name: state[full] for name, full in own_slots.items()}
            whole = params
            if part.as_is:
                updates = narrow(unpack(updates, stored), stored)
                whole, given = None if params is None else stored, own
            else:
                packed = None
                if part.elementwise and all_params:
                    packed = _packed([updates, *own.values()])
                if packed and all_params:
                    (whole,), (updates, *slots) = all_params, packed
                    given = dict(zip(own, slots, strict=True))
                else:
                    updates = unpack(updates, stored)
                    given = {name: widen(slot) for name, slot in own.items()}
            updates, new, found = part.update(
                updates, given, whole, values, count, stored=stored, **extra
            )
            if part.as_is:
                updates = widen(updates)
            else:
                new = {name: narrow(unpack(new[name], slot), slot) for name, slot in own.items()}
            left.update({full: new[name] for name, full in own_slots.items()})
            said.update({full: found[name].float() for name, full in own_notes.items()})
        return updates, left, said

    return Part(
        name,
        init,
        update,
        hyperparams={
            full: part.hyperparams[name] for part, own, _, _ in named for name, full in own.items()
        },
        slots=tuple(full for _, _, own, _ in named for full in own.values()),
        diagnostics=tuple(full for _, _, _, own in named for full in own.values()),
        is_step=any(part.is_step for part in parts),
    )


def _packed(trees: list[Any]) -> list[Any] | None:
    """Make one `Leaves` of each tree (None stays), widened, if that can be done with all."""
    packed = []
    for each in trees:
        made = each if isinstance(each, Leaves) or each is None else pack(tree.columns(each)[0])
        if made is not None and made.dtype not in _WIDE:
            made = pack(tree.columns(widen(each))[0])
        if made is None and each is not None:
            return None
        packed.append(made)
    return packed


def scalar_like(leaves: Tree, value: float) -> Tensor:
    """Make a 0-d tensor with the precision of hyperparameters, where `leaves` are.

    It is made from a leaf, so that vmap gives every lane one of its own.
    """
    like = next(iter(tree.leaves(leaves)), torch.zeros(()))
    # float64 keeps torch's trajectories, whose hyperparameters are Python numbers.
    dtype = torch.float32 if like.device.type == "mps" else torch.float64
    return like.new_full((), value, dtype=dtype)


def widen(leaves: Tree) -> Tree:
    """Bring leaves to the form that is computed with."""

    def widened(x: Tensor) -> Tensor:
        if x.is_complex():
            return torch.view_as_real(x.resolve_conj())
        return x.float() if x.dtype in (torch.float16, torch.bfloat16) else x

    if {x.dtype for x in tree.columns(leaves)[0]} <= _WIDE:
        return leaves
    return tree.map(widened, leaves)


def narrow(leaves: Tree, stored: Tree) -> Tree:
    """Bring leaves to the form of `stored`; 0-d ones too, which hyperparameters promote."""

    def narrowed(like: Tensor, x: Tensor) -> Tensor:
        if like.is_complex() and not x.is_complex():
            x = torch.view_as_complex(x)
        return x.to(like.dtype)

    want, have = tree.columns(stored, leaves)
    if [like.dtype for like in want] == [x.dtype for x in have]:
        return leaves
    return tree.map(narrowed, stored, leaves)


_WIDE = {torch.float64, torch.float32, torch.int64, torch.int32, torch.bool}


def _distinct(parts: tuple[Part, ...]) -> tuple[Part, ...]:
    """Number the parts that share a name: `name`, `name_1`, `name_2`, ..."""
    distinct: dict[str, Part] = {}
    for part in parts:
        names = itertools.chain([part.name], (f"{part.name}_{i}" for i in itertools.count(1)))
        name = next(name for name in names if name not in distinct)
        distinct[name] = part._replace(name=name)
    return tuple(distinct.values())


def _full_names(parts: tuple[Part, ...], names: list[Any]) -> list[dict[str, str]]:
    """Map each part's own names to names in the state, qualified where they would clash."""
    uses = Counter(name for own in names for name in own)
    return [
        {name: f"{part.name}.{name}" if uses[name] > 1 else name for name in own}
        for part, own in zip(parts, names, strict=True)
    ]
