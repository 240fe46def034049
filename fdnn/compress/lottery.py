"""Lottery tickets: sparse networks that train as well as the dense one, found by rewinding."""

from __future__ import annotations

from collections.abc import Callable

import torch

from fdnn import tree
from fdnn.compress.masks import Masks, Prune, apply_masks
from fdnn.compress.unstructured import l1_unstructured
from fdnn.types import Params, Scalar

__all__ = ["lottery_tickets"]


def lottery_tickets(
    fit: Callable[[Params, Masks], Params],
    params: Params,
    amount: Scalar,
    rounds: int = 1,
    *,
    prune: Prune = l1_unstructured,
) -> list[Masks]:
    r"""Find masks by training, pruning and going back to the early parameters, again and again.

    In each round the network begins at `apply_masks(params, masks)`, is trained by `fit`, and
    loses the share p = `amount` of the weights that are left. After round r the share $(1 - p)^r$
    is left.

    Args:
        fit: `fit(params, masks) -> params` trains what is not pruned, by `keep_masked` say.
        params: the parameters to go back to: those of the start, or those after some steps of
            training, which large networks need.
        amount: how much of what is left is pruned in each round, as `prune` takes it.
        rounds: how many rounds.
        prune: `prune(params, amount, masks=masks) -> masks`; with a keyword `masks` it must keep
            pruned what is. `l1_unstructured`, `global_unstructured`, `ln_structured`, ....

    Returns:
        The masks after each round, one ticket for each sparsity. A ticket is tried by training
        `apply_masks(params, masks)`. Pure and vmappable if `fit` is.

    Raises:
        ValueError: `rounds` is below 1; or as `prune`.

    Example:
        >>> params = {"weight": torch.tensor([[1.0, 2.0, 3.0, 4.0]])}
        >>> fit = lambda params, masks: apply_masks({"weight": 5 - params["weight"]}, masks)
        >>> tickets = lottery_tickets(fit, params, 0.5, rounds=2)
        >>> tickets[-1], apply_masks(params, tickets[-1])
        ({'weight': tensor([[ True, False, False, False]])}, {'weight': tensor([[1., 0., 0., 0.]])})

    References:
        Frankle, Carbin (2019), "The lottery ticket hypothesis: finding sparse, trainable neural
        networks". Frankle, Dziugaite, Roy, Carbin (2020), "Linear mode connectivity and the lottery
        ticket hypothesis", which goes back to early parameters, not the first.
    """
    if rounds < 1:
        raise ValueError(f"`rounds` must be at least 1, got {rounds}")
    masks = tree.map(torch.ones_like, prune(params, 0.0))
    tickets = []
    for _ in range(rounds):
        trained = fit(apply_masks(params, masks), masks)
        masks = prune(trained, amount, masks=masks)
        tickets.append(masks)
    return tickets
