"""The iterations of L-BFGS within one step, as a bounded number of equal ticks."""

from __future__ import annotations

import functools
from collections.abc import Callable
from typing import NamedTuple

import torch
from torch import Tensor

from fdnn.optim.core.branch import can_see, either
from fdnn.optim.lbfgs_memory import Memory, direction, products, remember
from fdnn.optim.strong_wolfe import Search, advance, begin, best

__all__ = ["Rules", "Run", "iterate"]


class Rules(NamedTuple):
    """What holds throughout a step.

    Attributes:
        evaluate: from a vector of parameters to the loss and its gradient.
        lr: learning rate.
        max_iter: the largest number of iterations.
        max_eval: evaluations after which no iteration is begun.
        tolerance_grad: the gradient at which it stops.
        tolerance_change: the change at which it stops.
        history_size: how many pairs are kept.
        searches: whether there is a line search.
    """

    evaluate: Callable[[Tensor], tuple[Tensor, Tensor]]
    lr: Tensor
    max_iter: int
    max_eval: int
    tolerance_grad: Tensor
    tolerance_change: Tensor
    history_size: int
    searches: bool


class Run(NamedTuple):
    """The iterations of one step.

    Attributes:
        x: where it is.
        loss: the loss there.
        grad: its gradient there.
        memory: of the iterations before.
        r: see `lbfgs_memory`.
        search: the line search, if there is one.
        iterations: how many were begun.
        evals: evaluations, the one at the start among them.
        running: whether it goes on.
    """

    x: Tensor
    loss: Tensor
    grad: Tensor
    memory: Memory
    r: Tensor
    search: Search
    iterations: Tensor
    evals: Tensor
    running: Tensor


def iterate(rules: Rules, x: Tensor, loss: Tensor, grad: Tensor, memory: Memory) -> Run:
    """Run until something stops it: at most `max_iter` moves, or `max_eval` looks."""
    one = torch.ones_like(memory.n_iter)
    run = Run(
        x=x,
        loss=loss,
        grad=grad,
        memory=memory,
        r=products(memory),
        search=begin(memory.t, loss, grad, loss, one),
        iterations=one - 1,
        evals=one,
        running=~(_largest(grad) <= rules.tolerance_grad),
    )
    run = _if_running(run, functools.partial(_turn, rules))
    ticks = rules.max_eval if rules.searches else rules.max_iter
    for tick in range(ticks):
        if can_see() and not run.running:
            break
        is_last = tick == ticks - 1
        run = _if_running(run, functools.partial(_look if rules.searches else _go, rules, is_last))
    return run


def _if_running(run: Run, act: Callable[[Run], Run]) -> Run:
    after: Run = either(run.running, lambda: act(run), lambda: run)
    return after


def _turn(rules: Rules, run: Run) -> Run:
    """Begin an iteration: a new direction, and a first step length."""
    memory, r = remember(run.memory, run.r, run.grad, rules.history_size)
    d = direction(memory, r, run.grad)
    first = 1 / run.grad.abs().sum().clamp(min=1.0)
    t = torch.where(memory.n_iter == 0, first, 1.0) * rules.lr
    slope = run.grad @ d
    memory = memory._replace(
        d=d, t=t, prev_flat_grad=run.grad, prev_loss=run.loss, n_iter=memory.n_iter + 1
    )
    search = run.search
    if rules.searches:
        search = begin(t, run.loss, run.grad, slope, rules.max_eval - run.evals)
    return run._replace(
        memory=memory,
        r=r,
        search=search,
        iterations=run.iterations + 1,
        running=~(slope > -rules.tolerance_change),
    )


def _go(rules: Rules, is_last: bool, run: Run) -> Run:
    """Move by a fixed step length; what is at the end of the last move is of no use."""
    t = run.memory.t
    if is_last:
        return _move(rules, is_last, run, t, run.loss, run.grad)
    loss, grad = rules.evaluate(run.x + t * run.memory.d)
    return _move(rules, is_last, run._replace(evals=run.evals + 1), t, loss, grad)


def _look(rules: Rules, is_last: bool, run: Run) -> Run:
    """Make one evaluation of the line search, and move if it is over."""
    d, search = run.memory.d, run.search
    loss, grad = rules.evaluate(run.x + search.t * d)
    search = advance(search, loss, grad, grad @ d, _largest(d), rules.tolerance_change)
    run = run._replace(search=search, evals=run.evals + 1)
    end = best(search)
    after: Run = either(
        search.done, lambda: _move(rules, is_last, run, end.t, end.loss, end.grad), lambda: run
    )
    return after


def _move(rules: Rules, is_last: bool, run: Run, t: Tensor, loss: Tensor, grad: Tensor) -> Run:
    """End an iteration, and begin another unless there is a reason to stop."""
    memory = run.memory
    stops = (
        (run.iterations >= rules.max_iter)
        | (run.evals >= rules.max_eval)
        | (_largest(grad) <= rules.tolerance_grad)
        | (_largest(memory.d * t) <= rules.tolerance_change)
        | ((loss - memory.prev_loss).abs() < rules.tolerance_change)
    )
    x = run.x + t * memory.d
    run = run._replace(x=x, loss=loss, grad=grad, memory=memory._replace(t=t), running=~stops)
    return run if is_last else _if_running(run, functools.partial(_turn, rules))


def _largest(vector: Tensor) -> Tensor:
    return vector.abs().amax() if len(vector) else vector.sum()
