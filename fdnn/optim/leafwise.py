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
from collections.abc import Callable, Sequence
from typing import Any

import torch
from torch import Tensor
from torch._C._functorch import maybe_current_level
from torch.autograd import forward_ad

from fdnn import tree
from fdnn.types import Tree

__all__ = ["Leaves", "leafwise"]


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
    if not _is_plainly_run():
        return tree.map(fn, first, *rest)
    columns = tree.columns(first, *rest)
    if len(columns[0]) < 2 or not all(map(_is_uniform, columns)):
        return tree.map(fn, first, *rest)
    result = iter(fn(*map(Leaves, columns)).tensors)
    return tree.map(lambda _: next(result), first)


class Leaves:
    """Many tensors of one dtype that take part in arithmetic as one.

    Attributes:
        tensors: the leaves, in order.
    """

    __slots__ = ("tensors",)

    def __init__(self, tensors: Sequence[Tensor]):
        self.tensors = tensors

    @classmethod
    def __torch_function__(
        cls,
        func: Callable[..., Any],
        types: Any,
        args: tuple[Any, ...] = (),
        kwargs: dict[str, Any] | None = None,
    ) -> Leaves:
        return _each(func, *args, **(kwargs or {}))

    @property
    def dtype(self) -> torch.dtype:
        """The dtype of all."""
        return self.tensors[0].dtype

    def __getattr__(self, name: str) -> Callable[..., Leaves]:
        method = getattr(Tensor, name)
        if not callable(method):
            raise AttributeError(f"`{name}` may differ from leaf to leaf; use `tree.map`")
        return functools.partial(_each, method, self)

    def __add__(self, other: Any) -> Leaves:
        return _each(torch.add, self, other)

    __radd__ = __add__

    def __mul__(self, other: Any) -> Leaves:
        return _each(torch.mul, self, other)

    __rmul__ = __mul__

    def __sub__(self, other: Any) -> Leaves:
        return _each(torch.sub, self, other)

    def __rsub__(self, other: Any) -> Leaves:
        return _each(torch.rsub, self, other)

    def __truediv__(self, other: Any) -> Leaves:
        return _each(torch.div, self, other)

    def __rtruediv__(self, other: Any) -> Leaves:
        return _each(operator.truediv, other, self)

    def __pow__(self, other: Any) -> Leaves:
        return _each(torch.pow, self, other)

    def __neg__(self) -> Leaves:
        return _each(torch.neg, self)

    def __lt__(self, other: Any) -> Leaves:
        return _each(torch.lt, self, other)

    def __le__(self, other: Any) -> Leaves:
        return _each(torch.le, self, other)

    def __gt__(self, other: Any) -> Leaves:
        return _each(torch.gt, self, other)

    def __ge__(self, other: Any) -> Leaves:
        return _each(torch.ge, self, other)


# By the names of torch's functions, methods and operators, without underscores.
_KERNELS: dict[str, Callable[..., Any]] = {
    "abs": torch._foreach_abs,
    "exp": torch._foreach_exp,
    "log": torch._foreach_log,
    "neg": torch._foreach_neg,
    "reciprocal": torch._foreach_reciprocal,
    "sign": torch._foreach_sign,
    "sqrt": torch._foreach_sqrt,
    "add": torch._foreach_add,
    "div": torch._foreach_div,
    "maximum": torch._foreach_maximum,
    "minimum": torch._foreach_minimum,
    "mul": torch._foreach_mul,
    "sub": torch._foreach_sub,
    "truediv": torch._foreach_div,
}
_COMMUTES = {"add", "mul"}
_TAKES_0D = {"add", "mul", "div", "truediv"}


def _each(func: Callable[..., Any], *args: Any, **kwargs: Any) -> Leaves:
    """Apply one operation of torch to every leaf."""
    name = func.__name__.strip("_")
    kernel = _KERNELS.get(name)
    if name in _COMMUTES and not isinstance(args[0], Leaves):
        args = (args[1], args[0], *args[2:])
    if kernel is not None and not kwargs and isinstance(args[0], Leaves):
        given = [arg.tensors if isinstance(arg, Leaves) else arg for arg in args]
        if name in _TAKES_0D or not any(isinstance(arg, Tensor) for arg in given):
            return Leaves(kernel(*given))
    count = len(next(arg.tensors for arg in args if isinstance(arg, Leaves)))
    rows = zip(
        *(arg.tensors if isinstance(arg, Leaves) else [arg] * count for arg in args), strict=True
    )
    return Leaves([func(*row, **kwargs) for row in rows])


def _is_uniform(leaves: Sequence[Tensor]) -> bool:
    first = leaves[0]
    return all(leaf.dtype == first.dtype and leaf.device == first.device for leaf in leaves)


def _is_plainly_run() -> bool:
    """Tell whether nothing but values is wanted: no transform, no compiler, no gradient."""
    return (
        not torch.compiler.is_compiling()
        and not torch.is_grad_enabled()
        and maybe_current_level() is None
        and forward_ad._current_level < 0
    )
