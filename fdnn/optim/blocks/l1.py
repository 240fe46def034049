"""The L1 penalty: by its subgradient, and by its proximal operator, which makes zeros."""

from __future__ import annotations

import math
from typing import Any

import torch
from torch import Tensor

from fdnn.optim.blocks.constraints import STAYING, land
from fdnn.optim.blocks.groups import masked
from fdnn.optim.core.chain import Chain, chain
from fdnn.optim.core.check import check
from fdnn.optim.core.leafwise import leafwise, unpack
from fdnn.optim.core.part import Hyper, Notes, Part, sequence
from fdnn.types import GradientTransformation, ScalarOrSchedule, Tree, Where

__all__ = ["add_l1", "proximal_l1"]


def add_l1(l1: ScalarOrSchedule, mask: Where | None = None) -> Chain:
    r"""Add the subgradient of an L1 penalty: $u' = u + \lambda \, \text{sign}(\theta)$.

    Put it before the learning rate. At 0 the subgradient is 0. Parameters hover around 0 at the
    distance of a step and seldom are 0; for zeros see `proximal_l1`. Complex numbers count as
    two reals.

    Args:
        l1: $\lambda$, the factor of $\lVert \theta \rVert_1$ in the loss: a number, a 0-d tensor,
            or a schedule.
        mask: which leaves are penalized (all if left out): a glob on paths, several globs, or a
            predicate `(path, leaf)`. The updates of the others pass through.

    Raises:
        ValueError: `l1` is negative, `update` is called without `params`, or a glob of `mask`
            matches no path.

    Example:
        >>> tx = add_l1(0.5)
        >>> params = {"w": torch.tensor([2.0, 0.0, -3.0])}
        >>> tx.update({"w": torch.zeros(3)}, tx.init(params), params)[0]
        {'w': tensor([ 0.5000,  0.0000, -0.5000])}

    References:
        Tibshirani (1996), "Regression shrinkage and selection via the lasso".
    """
    check(l1=(l1, 0.0, math.inf))

    def update(
        updates: Tree, slots: dict[str, Tree], params: Tree, hyper: Hyper, count: Tensor, **_: Any
    ) -> tuple[Tree, dict[str, Tree], Notes]:
        factor = hyper["l1"]
        return leafwise(lambda u, p: u + torch.sign(p) * factor, updates, params), {}, {}

    tx = chain(
        Part(
            "l1",
            lambda params: {},
            update,
            {"l1": l1},
            elementwise=True,
            needs_params="the penalty depends on them",
        )
    )
    return tx if mask is None else masked(tx, mask)


def proximal_l1(
    inner: GradientTransformation, l1: ScalarOrSchedule, mask: Where | None = None
) -> Chain:
    r"""Minimize a loss with an L1 penalty such that parameters become exactly 0.

    After the step of `inner`, $\theta' = \text{sign}(z) \max(|z| - \text{lr} \cdot \lambda, 0)$
    with $z = \theta + u$.

    The threshold is the learning rate in use times $\lambda$, the learning rate being the one
    hyperparameter `lr` of `inner`: a schedule, a sweep or a change of `lr` changes both together,
    so that the optimum does not depend on it. With gradient descent a parameter rests at 0 as long
    as its gradient is at most $\lambda$. Where an optimizer makes other steps than $\text{lr}$
    times the gradient, the balance is another: momentum $\mu$ makes them $1 / (1 - \mu)$ times as
    long, and $\lambda$ has to be as much larger for the same zeros; adaptive steps are not
    divided by their denominators here, as in decoupled weight decay. In half precision a
    threshold below the rounding of a parameter does not move it.

    Args:
        inner: the optimizer, with exactly one learning rate called `lr`. Where groups have their
            own, put `proximal_l1` into the groups.
        l1: $\lambda$, the factor of $\lVert \theta \rVert_1$ in the loss: a number, a 0-d tensor,
            or a schedule.
        mask: which leaves are penalized (all if left out): a glob on paths, several globs, or a
            predicate `(path, leaf)`. The others take the steps of `inner`.

    Raises:
        ValueError: `l1` is negative, `inner` has no hyperparameter `lr` or one called `l1`,
            `update` is called without `params`, or a glob of `mask` matches no path.

    Example:
        >>> from fdnn import optim
        >>> tx = proximal_l1(optim.sgd(lr=0.1), l1=1.0)
        >>> params = {"w": torch.tensor([0.55, 0.05])}
        >>> optim.step(tx, params, {"w": torch.zeros(2)}, tx.init(params))[0]
        {'w': tensor([0.4500, 0.0000])}

    References:
        Daubechies, Defrise, De Mol (2004), "An iterative thresholding algorithm for linear inverse
        problems with a sparsity constraint". Parikh, Boyd (2014), "Proximal algorithms". Complex
        numbers count as two reals, each with a threshold of its own.
    """
    check(l1=(l1, 0.0, math.inf))
    steps = sequence("proximal_l1", chain(inner).parts)
    if "lr" not in steps.hyperparams or "l1" in steps.hyperparams:
        raise ValueError(
            "`inner` must have one hyperparameter called 'lr' and none called 'l1', got "
            f"{list(steps.hyperparams)}"
        )

    def thresholded(
        updates: Tree,
        slots: dict[str, Tree],
        params: Tree,
        hyper: Hyper,
        count: Tensor,
        *,
        stored: Tree,
        **_: Any,
    ) -> tuple[Tree, dict[str, Tree], Notes]:
        threshold = hyper["lr"] * hyper["l1"]
        return land(lambda x: _soft(x, threshold), updates, params, stored), {}, {}

    used = {"lr": steps.hyperparams["lr"], "l1": l1}
    last = Part("l1", lambda params: {}, thresholded, used)
    if mask is not None:
        (last,) = masked(chain(last), mask).parts

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
        own = {name: hyper[name] for name in steps.hyperparams}
        updates, left, said = steps.update(
            updates, slots, params, own, count, stored=stored, **extra
        )
        updates = unpack(updates, stored)
        rates = {name: hyper[name] for name in used}
        updates, _, _ = last.update(updates, {}, params, rates, count, stored=stored)
        return updates, left, said

    return chain(
        steps._replace(
            update=update,
            hyperparams={**steps.hyperparams, "l1": l1},
            is_step=True,
            needs_params=STAYING,
        )
    )


def _soft(x: Tensor, threshold: Tensor) -> Tensor:
    """The soft threshold."""
    if x.is_complex():
        return torch.view_as_complex(_soft(torch.view_as_real(x), threshold))
    return torch.sign(x) * (x.abs() - threshold.to(x.dtype)).clamp(min=0.0)
