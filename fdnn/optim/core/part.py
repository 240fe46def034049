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
from fdnn.optim.core.leafwise import Leaves, number, pack, runs_plainly, unpack
from fdnn.types import ScalarOrSchedule, Tree

__all__ = [
    "WIDE",
    "Hyper",
    "Part",
    "gather",
    "narrow",
    "pack_wide",
    "scalar_like",
    "sequence",
    "widen",
]

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
            `leafwise`. It may then be handed all leaves as one (`fdnn.optim.core.leafwise.Leaves`),
            and with them the hyperparameters and the count as Python numbers, so that arithmetic on
            these must be operators and the functions of `fdnn.optim.core.moments`.
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
        whole = gather(params, stored)
        at_once = runs_plainly() if params is None else whole is not None
        numbers = {full: number(value) for full, value in hyper.items()} if at_once else {}
        left: dict[str, Tree] = {}
        said: Notes = {}
        extra["stored"] = stored
        for part, own_hyper, own_slots, own_notes in named:
            if part.needs_params and params is None:
                raise ValueError(f"`params` must be given to `update`: {part.needs_params}")
            own = {name: state[full] for name, full in own_slots.items()}
            result = None
            if at_once and part.elementwise:
                values = {name: numbers[full] for name, full in own_hyper.items()}
                result = _all_at_once(part, updates, own, whole, values, number(count), extra)
            if result is None:
                values = {name: hyper[full] for name, full in own_hyper.items()}
                run = _as_stored if part.as_is else _widened
                result = run(part, unpack(updates, stored), own, params, values, count, extra)
            updates, new, found = result
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


Result = tuple[Any, dict[str, Tree], Notes]


def _all_at_once(
    part: Part,
    updates: Any,
    slots: dict[str, Tree],
    params: Any,
    hyper: dict[str, Any],
    count: Any,
    extra: dict[str, Any],
) -> Result | None:
    """Update all leaves as one, by numbers; None if they cannot be one."""
    stored = extra["stored"]
    updates = gather(updates, stored)
    rows = {name: tree.column(slot, stored) for name, slot in slots.items()}
    given = {name: pack_wide(row) for name, row in rows.items()}
    if updates is None or None in given.values():
        return None
    updates, new, found = part.update(updates, given, params, hyper, count, **extra)
    settled = {name: _settled(new[name], stored, row) for name, row in rows.items()}
    return updates, settled, found


def _as_stored(
    part: Part,
    updates: Tree,
    slots: dict[str, Tree],
    params: Any,
    hyper: Hyper,
    count: Tensor,
    extra: dict[str, Any],
) -> Result:
    """Update leaves as they are stored."""
    stored = extra["stored"]
    own = None if params is None else stored
    updates, new, found = part.update(narrow(updates, stored), slots, own, hyper, count, **extra)
    return widen(updates), new, found


def _widened(
    part: Part,
    updates: Tree,
    slots: dict[str, Tree],
    params: Any,
    hyper: Hyper,
    count: Tensor,
    extra: dict[str, Any],
) -> Result:
    """Update leaves in the form that is computed with."""
    given = {name: widen(slot) for name, slot in slots.items()}
    own = unpack(params, extra["stored"])
    updates, new, found = part.update(updates, given, own, hyper, count, **extra)
    return (
        updates,
        {name: narrow(unpack(new[name], slot), slot) for name, slot in slots.items()},
        found,
    )


def _settled(new: Any, stored: Tree, row: list[Tensor]) -> Tree:
    """Bring a new slot to the form of the old one, whose leaves are `row`."""
    made = tree.refill(stored, new.tensors)
    if {x.dtype for x in new.tensors} == {x.dtype for x in row}:
        return made
    return narrow(made, tree.refill(stored, row))


def gather(leaves: Any, stored: Tree) -> Leaves | None:
    """Make one `Leaves` of a tree, widened, if nothing but values is wanted and it can be done.

    Its order is that of `stored`: two dicts with the same keys need not have them in one order.
    """
    if isinstance(leaves, Leaves) or leaves is None or not runs_plainly():
        return leaves if isinstance(leaves, Leaves) else None
    return pack_wide(tree.column(leaves, stored))


def pack_wide(leaves: list[Tensor]) -> Leaves | None:
    """Make one `Leaves` of leaves, widened, if it can be done."""
    made = pack(leaves)
    return made if made is None or made.dtype in WIDE else pack([_widened_leaf(x) for x in leaves])


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
    if {x.dtype for x in tree.columns(leaves)[0]} <= WIDE:
        return leaves
    return tree.map(_widened_leaf, leaves)


def _widened_leaf(x: Tensor) -> Tensor:
    if x.is_complex():
        return torch.view_as_real(x.resolve_conj())
    return x.float() if x.dtype in (torch.float16, torch.bfloat16) else x


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


WIDE = {torch.float64, torch.float32, torch.int64, torch.int32, torch.bool}
"""The dtypes that are computed with as they are."""


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
