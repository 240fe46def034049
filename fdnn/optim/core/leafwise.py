"""One formula for all leaves: torch's foreach kernels where they can serve, a loop elsewhere.

An optimizer's arithmetic is the same for every leaf, so it is written once, as a function of
tensors. Run eagerly under `torch.no_grad` (as training steps are) and outside of all transforms,
that function is handed all leaves at once, as one `Leaves`, and each of its operations is one call
of a foreach kernel instead of a Python call for each leaf. Under `vmap`, `grad` and `torch.compile`
it is called leaf by leaf.
"""

from __future__ import annotations

import functools
import operator
from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor
from torch.autograd import forward_ad

from fdnn import tree
from fdnn.optim.core.branch import can_see
from fdnn.types import Tree

__all__ = ["Leaves", "leafwise", "number", "pack", "runs_plainly", "unpack"]


def leafwise(fn: Callable[..., Any], first: Tree, *rest: Tree) -> Tree:
    """Apply elementwise arithmetic to every leaf: `tree.map`, and faster where it can be.

    Args:
        fn: takes one leaf of each tree and returns one tensor. It is made of elementwise
            operations of torch (operators, functions such as `torch.sqrt`, methods) on leaves,
            numbers and 0-d tensors, and looks at no shape or value, only at the dtype.
        first: a tree.
        *rest: trees of the same structure.

    Returns:
        A tree of that structure, of what `fn` returns.

    Raises:
        ValueError: a tree of `rest` has another structure; the message names the path.

    Example:
        >>> leafwise(lambda m, g: 0.9 * m + g, {"w": torch.ones(2)}, {"w": torch.ones(2)})
        {'w': tensor([1.9000, 1.9000])}
    """
    if isinstance(first, Leaves):
        return fn(first, *rest)
    if runs_plainly():
        packed = [pack(column) for column in tree.columns(first, *rest)]
        if all(packed):
            return unpack(fn(*packed), first)
    return tree.map(fn, first, *rest)


def runs_plainly() -> bool:
    """Tell whether nothing but values is wanted: no transform, no compiler, no gradient."""
    return can_see() and not torch.is_grad_enabled() and forward_ad._current_level < 0


def pack(leaves: list[Tensor]) -> Leaves | None:
    """Make one `Leaves` of two leaves or more of one dtype and device; of others, none."""
    if len(leaves) < 2:
        return None
    is_uniform = len({x.dtype for x in leaves}) == 1 and (
        all([x.is_cpu for x in leaves]) or len({x.device for x in leaves}) == 1
    )
    return Leaves(leaves) if is_uniform else None


def unpack(leaves: Any, like: Tree) -> Tree:
    """Make a tree like `like` of a `Leaves`; leave a tree as it is."""
    return tree.refill(like, leaves.tensors) if isinstance(leaves, Leaves) else leaves


class Leaves:
    """Many tensors of one dtype that take part in arithmetic as one: `factor` times `tensors`.

    Multiplying by a number only notes the factor, which the next addition takes along.

    Args:
        tensors: the leaves, in order.
        factor: what they are to be multiplied by.
    """

    __slots__ = ("_factor", "_tensors")

    def __init__(self, tensors: Any, factor: float = 1.0):
        self._tensors = tensors
        self._factor = factor

    @property
    def tensors(self) -> Any:
        """The leaves, multiplied."""
        if self._factor != 1.0:
            self._tensors, self._factor = self._multiplied(), 1.0
        return self._tensors

    def _multiplied(self) -> Any:
        """New tensors, multiplied."""
        return torch._foreach_mul(self._tensors, self._scalar(self._factor))

    def _scalar(self, value: float) -> Tensor:
        """A number as a tensor, since with a number the kernels take twice as long."""
        return torch.tensor(value, dtype=self.dtype, device=self._tensors[0].device)

    @property
    def dtype(self) -> torch.dtype:
        """The dtype of all."""
        dtype: torch.dtype = self._tensors[0].dtype
        return dtype

    @classmethod
    def __torch_function__(
        cls,
        func: Callable[..., Any],
        types: Any,
        args: tuple[Any, ...] = (),
        kwargs: dict[str, Any] | None = None,
    ) -> Leaves:
        name = _OPERATORS.get(func.__name__.strip("_"))
        if name is not None and not kwargs and len(args) == 2:
            first, second = args
            if not isinstance(first, Leaves):
                name, first, second = f"r{name}", second, first
            result: Leaves = getattr(first, f"__{name}__")(second)
            return result
        return _each(func, *args, **(kwargs or {}))

    def __getattr__(self, name: str) -> Callable[..., Leaves]:
        method = getattr(Tensor, name)
        if not callable(method):
            raise AttributeError(f"`{name}` may differ from leaf to leaf; use `tree.map`")
        return functools.partial(_each, method, self)

    def __mul__(self, other: Any) -> Leaves:
        other = number(other)
        if isinstance(other, int | float):
            return Leaves(self._tensors, self._factor * other)
        if isinstance(other, Leaves):
            product = torch._foreach_mul(self._tensors, other._tensors)
            return Leaves(product, self._factor * other._factor)
        return Leaves(torch._foreach_mul(self._tensors, other), self._factor)

    __rmul__ = __mul__

    def __truediv__(self, other: Any) -> Leaves:
        other = number(other)
        if isinstance(other, int | float) and other:  # Python refuses to divide by zero
            return Leaves(self._tensors, self._factor / other)
        if isinstance(other, Leaves):
            quotient = torch._foreach_div(self._tensors, other._tensors)
            return Leaves(quotient, self._factor / other._factor)
        return Leaves(torch._foreach_div(self._tensors, other), self._factor)

    def __rtruediv__(self, other: Any) -> Leaves:
        return _each(operator.truediv, other, self)

    def __add__(self, other: Any) -> Leaves:
        if isinstance(other, Leaves):
            if self._factor != 1.0 and self._factor + other._factor == 1.0:  # a weighted mean
                mean = torch._foreach_lerp(self._tensors, other._tensors, other._factor)
                return Leaves(mean)
            if self._factor != 1.0:
                total = self._multiplied()
                torch._foreach_add_(total, other._tensors, alpha=other._factor)
                return Leaves(total)
            return Leaves(torch._foreach_add(self._tensors, other._tensors, alpha=other._factor))
        other = number(other)
        if isinstance(other, int | float):
            other = self._scalar(other)
        return Leaves(torch._foreach_add(self.tensors, [other] * len(self._tensors)))

    __radd__ = __add__

    def __neg__(self) -> Leaves:
        return Leaves(self._tensors, -self._factor)

    def __sub__(self, other: Any) -> Leaves:
        negative: Leaves | float | Tensor = -other
        return self + negative

    def __rsub__(self, other: Any) -> Leaves:
        result: Leaves = -self + other
        return result

    def __pow__(self, other: Any) -> Leaves:
        return _each(torch.pow, self, other)

    def __lt__(self, other: Any) -> Leaves:
        return _each(torch.lt, self, other)

    def __le__(self, other: Any) -> Leaves:
        return _each(torch.le, self, other)

    def __gt__(self, other: Any) -> Leaves:
        return _each(torch.gt, self, other)

    def __ge__(self, other: Any) -> Leaves:
        return _each(torch.ge, self, other)


# torch's names, without underscores, for what the class has operators for.
_OPERATORS = {
    "add": "add",
    "sub": "sub",
    "mul": "mul",
    "div": "truediv",
    "true_divide": "truediv",
    "truediv": "truediv",
    "multiply": "mul",
    "divide": "truediv",
}
_KERNELS: dict[str, Callable[..., Any]] = {
    "abs": torch._foreach_abs,
    "exp": torch._foreach_exp,
    "log": torch._foreach_log,
    "maximum": torch._foreach_maximum,
    "minimum": torch._foreach_minimum,
    "reciprocal": torch._foreach_reciprocal,
    "sign": torch._foreach_sign,
    "sqrt": torch._foreach_sqrt,
}


def _each(func: Callable[..., Any], *args: Any, **kwargs: Any) -> Leaves:
    """Apply one operation of torch to every leaf."""
    kernel = _KERNELS.get(func.__name__.strip("_"))
    given = [arg.tensors if isinstance(arg, Leaves) else arg for arg in args]
    if kernel and not kwargs and not any(isinstance(arg, Tensor) for arg in given):
        return Leaves(kernel(*given))
    count = next(len(arg.tensors) for arg in args if isinstance(arg, Leaves))
    rows = zip(
        *(x if isinstance(a, Leaves) else [x] * count for x, a in zip(given, args, strict=True)),
        strict=True,
    )
    made = [func(*row, **kwargs) for row in rows]
    dtype = next((x.dtype for x in made if x.ndim), made[0].dtype)
    return Leaves([x.to(dtype) for x in made])  # a 0-d tensor promotes the 0-d leaves alone


def number(value: Any) -> Any:
    """The Python number that a scalar is, if it can be had without waiting for a device."""
    return value.item() if isinstance(value, Tensor) and value.ndim == 0 and value.is_cpu else value
