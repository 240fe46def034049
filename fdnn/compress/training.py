"""Optimizers that keep pruned weights at 0, and prune as they go."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor

from fdnn import optim, tree
from fdnn.compress.masks import Masks, Prune, apply_masks, check_masks, on_mask
from fdnn.compress.unstructured import l1_unstructured
from fdnn.optim.core.branch import either
from fdnn.optim.core.chain import Chain, chain
from fdnn.optim.core.check import check
from fdnn.optim.core.leafwise import unpack
from fdnn.optim.core.part import Hyper, Notes, Part, scalar_like, sequence
from fdnn.types import GradientTransformation, Params, ScalarOrSchedule, Tree

__all__ = ["gradual_pruning", "keep_masked", "masks_of", "set_masks"]

_SLOT = "masks"
_DONE = "pruned_to"
_NEEDS = "pruned parameters are to be 0"


def keep_masked(inner: GradientTransformation, masks: Masks | Callable[[Params], Masks]) -> Chain:
    r"""Let an optimizer train what is left after pruning, and keep the rest at 0.

    `inner` sees gradients that are 0 where a weight is pruned, and whatever step it makes there
    (momentum, weight decay, noise), the weight is 0 after it, exactly. So it trains as
    `torch.nn.utils.prune` does, clipping by the global norm included. Parameters that are not 0 yet
    become 0 at the first step; apply the masks before it, so that the first gradient is that of the
    pruned network.

    The masks are in the state, so that they are checkpointed, and each lane of a stacked state may
    have its own; `masks_of` reads them, `set_masks` writes them.

    Args:
        inner: the optimizer, whole.
        masks: by name, true where a weight is kept; or a function `params -> masks`, called by
            `init`, such as `lambda params: compress.l1_unstructured(params, 0.8)`.

    Returns:
        An optimizer with the state of `inner` and the slot `masks`.

    Raises:
        ValueError: `inner` has masks already, `update` is called without `params`, or, at `init`, a
            mask has the name of no parameter or not its shape.

    Example:
        >>> params = {"weight": torch.tensor([[2.0, 0.1]])}
        >>> masks = l1_unstructured(params, 0.5)
        >>> tx = keep_masked(optim.sgd(lr=0.1, momentum=0.9, weight_decay=0.1), masks)
        >>> params = apply_masks(params, masks)
        >>> optim.step(tx, params, {"weight": torch.ones(1, 2)}, tx.init(params))[0]
        {'weight': tensor([[1.8800, 0.0000]])}
    """

    def given(params: Tree) -> Masks:
        return masks if isinstance(masks, dict) else masks(params)

    def same(slots: dict[str, Tree], stored: Tree, hyper: Hyper) -> dict[str, Tree]:
        return slots

    return _on_rest("keep_masked", inner, given, same, {}, ())


def gradual_pruning(
    inner: GradientTransformation, sparsity: ScalarOrSchedule, prune: Prune = l1_unstructured
) -> Chain:
    r"""Prune more and more while an optimizer trains what is left.

    Before the step at count t the parameters are pruned to the share s(t), if that is more than
    before; what is pruned stays so. Otherwise as `keep_masked`. Where values cannot be seen (under
    `vmap`, compiled), the weights are sorted at every step, whether or not s has risen, which can
    cost more than the step itself: there prune between epochs, by `set_masks`.

    Args:
        inner: the optimizer, whole.
        sparsity: s, a share in [0, 1), such as `cubic_sparsity(0.9, begin=100, end=1000)`: a
            schedule, a number or a 0-d tensor. It is the hyperparameter `sparsity` of the state, so
            that it may differ from lane to lane.
        prune: `prune(params, amount) -> masks`, from the parameters, 0 where pruned, and the share
            of the whole that is to be 0: `l1_unstructured`, `global_unstructured`, or
            `functools.partial(ln_structured, dim=0, where="0.weight")`.

    Returns:
        An optimizer with the state of `inner` and the slots `masks` and `pruned_to`.

    Raises:
        ValueError: `sparsity` is outside its range, `inner` has masks or a hyperparameter
            `sparsity` already, or `update` is called without `params`.

    Example:
        >>> tx = gradual_pruning(optim.sgd(lr=0.1), lambda count: 0.5 * (count >= 1))
        >>> params = {"weight": torch.tensor([[2.0, 1.0]])}
        >>> state, grads = tx.init(params), {"weight": torch.zeros(1, 2)}
        >>> params, state = optim.step(tx, params, grads, state)
        >>> params, state = optim.step(tx, params, grads, state)
        >>> params, optim.diagnostics(state)["sparsity"].item()
        ({'weight': tensor([[2., 0.]])}, 0.5)

    References:
        Zhu, Gupta (2017), "To prune, or not to prune: exploring the efficacy of pruning for model
        compression".
    """
    check(sparsity=(sparsity, 0.0, 1.0))

    def nothing(params: Tree) -> Masks:
        return prune(params, torch.zeros_like(scalar_like(params, 0.0)))

    def more(slots: dict[str, Tree], stored: Tree, hyper: Hyper) -> dict[str, Tree]:
        masks, done, target = slots[_SLOT], slots[_DONE], hyper["sparsity"]

        def pruned() -> Masks:
            new = prune(apply_masks(stored, masks), target)
            return {path: mask & new[path] for path, mask in masks.items()}

        return {
            _SLOT: either(target > done, pruned, lambda: masks),
            _DONE: torch.maximum(target, done),
        }

    return _on_rest("gradual_pruning", inner, nothing, more, {"sparsity": sparsity}, (_DONE,))


def masks_of(opt_state: optim.OptState) -> Masks:
    """Read the masks that `keep_masked` or `gradual_pruning` keeps.

    Args:
        opt_state: of one run, or stacked.

    Raises:
        ValueError: the state holds no masks, or several (in groups).

    Example:
        >>> params = {"weight": torch.tensor([[2.0, 0.1]])}
        >>> tx = keep_masked(optim.adam(), lambda params: l1_unstructured(params, 0.5))
        >>> masks_of(tx.init(params))
        {'weight': tensor([[ True, False]])}
    """
    found = _holders(opt_state)
    if len(found) != 1:
        raise ValueError(
            f"`opt_state` must hold masks once, got {list(found)}; `keep_masked` around the "
            "optimizer keeps them"
        )
    return next(iter(found.values()))


def set_masks(opt_state: optim.OptState, masks: Masks) -> optim.OptState:
    """Replace the masks: between epochs, or rounds of pruning.

    Args:
        opt_state: of one run; `vmap` for a stacked one.
        masks: with the names and shapes of those in the state.

    Returns:
        A new state. Set the parameters to 0 by `apply_masks`, or leave it to the next step.

    Raises:
        ValueError: names or shapes differ, or the state holds no masks.

    Example:
        >>> params = {"weight": torch.tensor([[2.0, 0.1]])}
        >>> tx = keep_masked(optim.adam(), lambda params: l1_unstructured(params, 0.0))
        >>> state = set_masks(tx.init(params), l1_unstructured(params, 0.5))
        >>> masks_of(state)
        {'weight': tensor([[ True, False]])}
    """
    old = masks_of(opt_state)
    check_masks(masks, old)
    check_masks(old, masks)
    return _with_masks(opt_state, {path: masks[path].bool() for path in old})


def _is_masks(name: str) -> bool:
    return name.rpartition(".")[2] == _SLOT


def _holders(opt_state: optim.OptState, path: str = "") -> dict[str, Masks]:
    """The masks in a state and in those of optimizers inside, by the slots they are in."""
    found: dict[str, Masks] = {}
    for name, slot in opt_state.slots.items():
        if isinstance(slot, optim.OptState):
            found |= _holders(slot, f"{path}{name}.")
        elif _is_masks(name):
            found[path + name] = slot
    return found


def _with_masks(opt_state: optim.OptState, masks: Masks) -> optim.OptState:
    slots = {
        name: _with_masks(slot, masks)
        if isinstance(slot, optim.OptState)
        else (masks if _is_masks(name) else slot)
        for name, slot in opt_state.slots.items()
    }
    return opt_state._replace(slots=slots)


def _on_rest(
    name: str,
    inner: GradientTransformation,
    first: Callable[[Tree], Masks],
    renew: Callable[[dict[str, Tree], Tree, Hyper], dict[str, Tree]],
    hyperparams: dict[str, ScalarOrSchedule],
    slots: tuple[str, ...],
) -> Chain:
    """Make an optimizer that trains what is not pruned.

    Args:
        name: of the part.
        inner: the optimizer.
        first: makes the masks of the first parameters.
        renew: makes the slots for this step of the old ones.
        hyperparams: those beside the ones of `inner`.
        slots: names of 0-d slots beside `masks`.
    """
    steps = sequence(name, chain(inner).parts)
    own = (_SLOT, *slots)
    if {*own, *hyperparams} & {*steps.slots, *steps.hyperparams}:
        raise ValueError(f"`inner` must not keep masks, got the slots {list(steps.slots)}")

    def init(params: Tree) -> dict[str, Tree]:
        masks = first(params)
        check_masks(masks, params)
        leaves = tree.select(params)
        # Made from the parameters, so that vmap gives every lane a state of its own.
        kept = {
            path: torch.ones_like(leaves[path], dtype=torch.bool) & mask.bool()
            for path, mask in masks.items()
        }
        zeros = {slot: scalar_like(params, 0.0) for slot in slots}
        return {**steps.init(params), _SLOT: kept, **zeros}

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
        mine = renew({slot: state[slot] for slot in own}, stored, hyper)
        masks = mine[_SLOT]

        def of_rest(grads: Tree) -> Tree:
            return on_mask(torch.zeros_like, grads, masks)

        if extra.get("value_and_grad") is not None:
            whole = extra["value_and_grad"]

            def value_and_grad(params: Tree) -> tuple[Tensor, Tree]:
                value, grads = whole(params)
                return value, of_rest(grads)

            extra["value_and_grad"] = value_and_grad
        updates, left, said = steps.update(
            of_rest(updates),
            {slot: state[slot] for slot in steps.slots},
            params,
            {key: hyper[key] for key in steps.hyperparams},
            count,
            stored=stored,
            **extra,
        )
        updates = on_mask(lambda u, p: -p.to(u.dtype), unpack(updates, stored), masks, params)
        return updates, {**left, **mine}, said

    return chain(
        Part(
            name,
            init,
            update,
            hyperparams={**steps.hyperparams, **hyperparams},
            slots=(*steps.slots, *own),
            diagnostics=steps.diagnostics,
            is_step=True,
            needs_params=_NEEDS,
        )
    )
