r"""A line search for the strong Wolfe conditions, one evaluation at a time.

Along a direction $d$ the loss is $\phi(t) = f(x + t d)$. A step length $t$ is good if
$\phi(t) \le \phi(0) + c_1 t \phi'(0)$ and $|\phi'(t)| \le c_2 |\phi'(0)|$. The search first
moves outwards until an interval must hold such a $t$, then shrinks the interval.

It is written as a machine: its state says where to evaluate next, and `advance` takes what was
found there. So a bounded number of equal steps runs any number of searches, also side by side.

References:
    Nocedal, Wright (2006), "Numerical optimization", algorithms 3.5 and 3.6. Constants, safeguards
    and the interpolation are those of torch.optim.LBFGS, whose steps it takes, except where that
    goes on with a step length of NaN, as after an infinite loss.
"""

from __future__ import annotations

from typing import NamedTuple

import torch
from torch import Tensor

from fdnn.optim.core.branch import either

__all__ = ["Point", "Search", "advance", "begin", "best"]

_C1, _C2 = 1e-4, 0.9


class Point(NamedTuple):
    """What is known of the loss at one step length.

    Attributes:
        t: the step length.
        loss: the loss.
        grad: its gradient, a vector.
        slope: its derivative along the direction.
    """

    t: Tensor
    loss: Tensor
    grad: Tensor
    slope: Tensor


class Search(NamedTuple):
    """A search under way.

    Attributes:
        t: the step length to evaluate next.
        start: the point at step length 0.
        last: the point that was evaluated last on the way outwards.
        left: one end of the interval, which need not be the smaller one.
        right: the other end.
        left_is_lower: which end has the lower loss.
        zooming: whether an interval has been found.
        stalled: whether the last trial lay close to an end of the interval.
        tries: how often a step length was chosen after the first.
        limit: the largest number of tries.
        done: whether the search is over.
    """

    t: Tensor
    start: Point
    last: Point
    left: Point
    right: Point
    left_is_lower: Tensor
    zooming: Tensor
    stalled: Tensor
    tries: Tensor
    limit: Tensor
    done: Tensor


def begin(t: Tensor, loss: Tensor, grad: Tensor, slope: Tensor, limit: Tensor) -> Search:
    """Start a search with the step length `t`, from loss, gradient and slope at 0."""
    start = Point(torch.zeros_like(t), loss, grad, slope)
    no = torch.zeros_like(limit, dtype=torch.bool)
    return Search(
        t, start, start, start, start, no, no, no, torch.zeros_like(limit), limit, done=no
    )


def advance(
    search: Search, loss: Tensor, grad: Tensor, slope: Tensor, size: Tensor, tolerance: Tensor
) -> Search:
    """Take in what was found at `search.t`, and choose the next step length or stop.

    Args:
        search: the state so far.
        loss: the loss at `search.t`.
        grad: its gradient there.
        slope: its derivative along the direction there.
        size: the largest element of the direction.
        tolerance: the smallest width of an interval, times `size`.
    """
    new = Point(search.t, loss, grad, slope)
    outwards = search.last
    search = either(search.zooming, lambda: _shrink(search, new), lambda: _bracket(search, new))
    is_narrow = (search.right.t - search.left.t).abs() * size < tolerance
    is_over = search.zooming & ((search.tries >= search.limit) | is_narrow)
    search = search._replace(done=search.done | is_over)

    after: Search = either(search.done, lambda: search, lambda: _go_on(search, outwards, new))
    return after


def best(search: Search) -> Point:
    """Return the end of the interval with the lower loss."""
    lower: Point = either(search.left_is_lower, lambda: search.left, lambda: search.right)
    return lower


def _is_too_high(search: Search, new: Point) -> Tensor:
    return new.loss > search.start.loss + _C1 * new.t * search.start.slope


def _is_flat(search: Search, new: Point) -> Tensor:
    return new.slope.abs() <= -_C2 * search.start.slope


def _bracket(search: Search, new: Point) -> Search:
    """On the way outwards: see whether the new point is good, or ends an interval."""
    is_exhausted = search.tries >= search.limit
    rises = _is_too_high(search, new) | ((search.tries > 1) & (new.loss >= search.last.loss))
    is_good = ~rises & _is_flat(search, new)
    left = either(is_exhausted, lambda: search.start, lambda: search.last)
    left = either(is_good & ~is_exhausted, lambda: new, lambda: left)
    return search._replace(
        last=new,
        left=left,
        right=new,
        left_is_lower=left.loss <= new.loss,
        zooming=(rises | (new.slope >= 0)) & ~is_good & ~is_exhausted,
        done=is_good | is_exhausted,
    )


def _shrink(search: Search, new: Point) -> Search:
    """In an interval: let the new point take the place of one end."""
    left_is_lower = search.left_is_lower
    low = best(search)
    high = either(left_is_lower, lambda: search.right, lambda: search.left)
    is_worse = _is_too_high(search, new) | (new.loss >= low.loss)
    is_good = ~is_worse & _is_flat(search, new)
    turns = ~is_worse & ~is_good & (new.slope * (high.t - low.t) >= 0)
    high = either(turns, lambda: low, lambda: high)
    high = either(is_worse, lambda: new, lambda: high)
    low = either(is_worse, lambda: low, lambda: new)
    left = either(left_is_lower, lambda: low, lambda: high)
    right = either(left_is_lower, lambda: high, lambda: low)
    return search._replace(
        left=left,
        right=right,
        left_is_lower=torch.where(is_worse, left.loss <= right.loss, left_is_lower),
        done=is_good,
    )


def _go_on(search: Search, last: Point, new: Point) -> Search:
    """Choose the next step length.

    In the interval, and away from its ends if the last one was not; or outwards from `last` beyond
    `new`, at most ten times as far.
    """
    low = torch.minimum(search.left.t, search.right.t)
    high = torch.maximum(search.left.t, search.right.t)
    t = _interpolate(
        *either(
            search.zooming,
            lambda: (search.left, search.right, low, high),
            lambda: (last, new, new.t + 0.01 * (new.t - last.t), new.t * 10),
        )
    )
    margin = 0.1 * (high - low)
    is_close = search.zooming & (torch.minimum(high - t, t - low) < margin)
    moves = is_close & (search.stalled | (t >= high) | (t <= low))
    inner = torch.where((t - high).abs() < (t - low).abs(), high - margin, low + margin)
    return search._replace(
        t=torch.where(moves, inner, t), stalled=is_close & ~moves, tries=search.tries + 1
    )


def _interpolate(one: Point, other: Point, lowest: Tensor, highest: Tensor) -> Tensor:
    """Return where the cubic through two points, with their slopes, is least: within bounds.

    Where it has no minimum, or none that is a number, the middle of the bounds. (Nocedal and
    Wright, equation 3.59; what is put in the place of zeros keeps derivatives finite.)
    """
    a, b = either(one.t <= other.t, lambda: (one, other), lambda: (other, one))
    width = torch.where(a.t == b.t, 1.0, a.t - b.t)
    d1 = a.slope + b.slope - 3 * (a.loss - b.loss) / width
    square = d1**2 - a.slope * b.slope
    d2 = torch.where(square > 0, torch.where(square > 0, square, 1.0).sqrt(), 0.0)
    rise, bend = b.slope + d2 - d1, b.slope - a.slope + 2 * d2
    bend = torch.where(bend == 0, torch.finfo(bend.dtype).tiny, bend)
    least = b.t - (b.t - a.t) * (rise / bend)
    inside = torch.minimum(torch.maximum(least, lowest), highest)
    is_known = (square >= 0) & ~inside.isnan()
    return torch.where(is_known, inside, (lowest + highest) / 2)
