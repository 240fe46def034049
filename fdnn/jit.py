"""Compilation with donation: `torch.compile(fullgraph=True)` that may reuse its inputs' memory."""

from __future__ import annotations

import functools
import re
import sysconfig
import warnings
from collections.abc import Callable, Sequence
from pathlib import Path
from types import FunctionType
from typing import Any, TypeVar

import torch
from torch import Tensor
from torch._dynamo import eval_frame

from fdnn import tree
from fdnn.products import TransposedProducts

__all__ = ["jit"]

Function = TypeVar("Function", bound=Callable[..., Any])

_LARGEST = 2**25 - 2**14  # bytes: what glibc's malloc may hold on to, less what it adds itself
_RECOMPILE_LIMIT = 64  # torch's default of 8 is soon reached by functions of several shapes
# How a guard names what it found in the modules of these libraries, in Python's builtins, and here.
_LIBRARY = re.compile(r"G\['(__import_(fdnn|optree|torch)(_dot_|')|__builtins_dict_|tree'|_[a-z])")


def jit(fn: Function, *, donate_argnums: int | Sequence[int] = ()) -> Function:
    """Compile a pure function as one graph, each new combination of shapes anew.

    Compile outermost: `jit(vmap(step))`, never `vmap(jit(step))`.

    Args:
        fn: a pure function of trees of tensors.
        donate_argnums: positions of arguments that are given away. Their tensors are
            overwritten inside the graph with the outputs of the same shape, dtype and device (in
            the order of the leaves), so that no new memory is needed. Go on with the returned
            tree; the donated one no longer holds what it did. An expanded tensor, several of
            whose elements share memory, is left alone.

    Returns:
        A function of the same signature. Without a C++ compiler and Python's headers the
        first call warns, says what to install, and every call runs `fn` as it is, donation left
        out.

    Raises:
        ValueError: an entry of `donate_argnums` is negative, or names an argument that a call
            does not pass by position; or (seen after the first call) an output is a view of a
            donated tensor, which the other outputs may have overwritten.

    Example:
        >>> double = jit(lambda tree: {"x": tree["x"] * 2}, donate_argnums=0)
        >>> state = double({"x": torch.ones(2)})
        >>> double(state)
        {'x': tensor([4., 4.])}

    References:
        Bradbury et al. (2018), "JAX: composable transformations of Python+NumPy programs", for
        the idea of donation.
    """
    donated = (donate_argnums,) if isinstance(donate_argnums, int) else tuple(donate_argnums)
    if any(number < 0 for number in donated):
        raise ValueError(f"`donate_argnums` must not be negative, got {donate_argnums}")

    def donating(*args: Any, **kwargs: Any) -> Any:
        given = [leaf for number in donated for leaf in tree.leaves(args[number])]
        return _settle(given, fn(*args, **kwargs))

    _keep_freed_memory()
    # Dynamo keeps its cache, and counts recompilations, per code object. A copy of its own makes
    # two jitted functions strangers to each other.
    donating.__code__ = donating.__code__.replace()
    closed = {"fn": fn, "donated": donated}
    compiled = torch.compile(  # type: ignore[call-overload]
        donating,
        fullgraph=True,
        dynamic=False,
        recompile_limit=_RECOMPILE_LIMIT,
        options={
            "guard_filter_fn": _watched,
            "post_grad_custom_post_pass": TransposedProducts(),
        },
    )

    views_refused = not donated

    @functools.wraps(fn)
    def call(*args: Any, **kwargs: Any) -> Any:
        if donated and max(donated) >= len(args):
            raise ValueError(
                f"`donate_argnums` names argument {max(donated)}, "
                f"but the call passes {len(args)} by position"
            )
        if torch.compiler.is_compiling() or not _can_compile():
            return fn(*args, **kwargs)
        ready = _ready(donating, {"args": args, "kwargs": kwargs, **closed})  # type: ignore[arg-type]
        result = (ready or compiled)(*args, **kwargs)
        nonlocal views_refused
        if not views_refused:
            _refuse_views([leaf for i in donated for leaf in tree.leaves(args[i])], result)
            views_refused = True
        return result

    return call  # type: ignore[return-value]


def _ready(function: FunctionType, frame: dict[str, Any]) -> FunctionType | None:
    """Return what torch.compile has made of `function`, if its guards hold for these arguments.

    To call it directly saves some 20 us a call, more than many a step of a small network takes.
    """
    try:
        if eval_frame._stance.stance != "default":
            return None
        entries = eval_frame._debug_get_cache_entry_list(function.__code__)
    except AttributeError:  # torch's own business: without it calls are slower, not wrong
        return None
    for entry in entries:
        if entry.guard_manager.check(frame):
            return FunctionType(
                entry.code, function.__globals__, function.__name__, None, function.__closure__
            )
    return None


def _watched(guards: Sequence[Any]) -> list[bool]:
    """Tell which guards torch.compile is to check at each call.

    It guards every function, class and module that it met, a hundred or two inside torch, optree
    and fdnn alone, which nobody replaces. Their constants stay guarded, and whatever is the
    caller's own.
    """
    return [
        guard.guard_type == "CONSTANT_MATCH" or not _LIBRARY.search(guard.name) for guard in guards
    ]


def _settle(given: list[Tensor], result: Any) -> Any:
    """Move outputs into the donated tensors that fit them; a donated tensor handed on stays."""
    # By `is`, never by `id`, which the compiler would hold later calls to.
    alike: dict[Any, list[Tensor]] = {}
    for old in filter(_is_dense, given):
        alike.setdefault(_kind(old), []).append(old)
    outputs = [leaf for leaf in tree.leaves(result) if isinstance(leaf, Tensor)]
    free = {
        kind: [old for old in group if not _among(old, outputs)] for kind, group in alike.items()
    }

    def settle(new: Any) -> Any:
        if not isinstance(new, Tensor) or _among(new, alike.get(_kind(new), [])):
            return new
        group = free.get(_kind(new), [])
        return group.pop(0).copy_(new) if group else new

    return tree.map(settle, result)


def _is_dense(x: Tensor) -> bool:
    """Tell whether every element has memory of its own, unlike in an expanded tensor."""
    return not any(step == 0 and size > 1 for step, size in zip(x.stride(), x.shape, strict=True))


def _kind(x: Tensor) -> tuple[Any, ...]:
    return tuple(x.shape), x.dtype, x.device


def _among(x: Tensor, others: list[Tensor]) -> bool:
    return any(x is other for other in others)


def _refuse_views(given: list[Tensor], result: Any) -> None:
    whole = {(old.data_ptr(), old.shape) for old in given}
    memory = {old.untyped_storage().data_ptr() for old in given if old.numel()}
    for path, new in tree.select(result, lambda path, leaf: isinstance(leaf, Tensor)).items():
        if (new.data_ptr(), new.shape) in whole:
            continue
        if new.untyped_storage().data_ptr() in memory:
            raise ValueError(
                f"output {path!r} is a view of a donated tensor (`donate_argnums`), whose memory "
                "other outputs may take; clone it"
            )


@functools.cache
def _keep_freed_memory() -> None:
    """Have glibc's malloc keep what one call frees for the next, which asks for as much again.

    It takes the largest block freed so far for a measure of what to keep; larger ones go back to
    the system at once, and their pages are mapped and cleared anew in every step.
    """
    torch.empty(_LARGEST, dtype=torch.uint8, device="cpu")


@functools.cache
def _can_compile() -> bool:
    """Tell whether inductor finds a C++ compiler and Python.h; warn once if not."""
    if torch.cuda.is_available():
        return True
    from torch._inductor import cpp_builder, exc

    missing = "" if _python_header().exists() else "Python's headers were"
    try:
        cpp_builder.get_cpp_compiler()
    except exc.InvalidCxxCompiler:
        missing = "a C++ compiler was"
    if missing:
        warnings.warn(
            f"fdnn.jit runs without compiling, since {missing} not found: install it (Debian: "
            "apt-get install g++ python3-dev; macOS: xcode-select --install)",
            RuntimeWarning,
            stacklevel=3,
        )
    return not missing


def _python_header() -> Path:
    return Path(sysconfig.get_path("include"), "Python.h")
