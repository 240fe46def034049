"""What a model and its loss do to a batch: every operation, and which made what it works on."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Container, Iterator, Mapping, Sequence
from contextlib import contextmanager
from typing import Any

import torch
from torch import Tensor, nn
from torch.overrides import TorchFunctionMode

from fdnn.inspect.layers import intercepted, tensors
from fdnn.model import Model
from fdnn.model.recurrent import RecurrentCell, RecurrentLoop
from fdnn.nn.naming import identify
from fdnn.types import Buffers, Key, Params

__all__ = ["GIVEN", "Op", "Recorder", "run", "upstream"]

GIVEN = -1
"""The source of what no operation made: an input of the model."""


@dataclasses.dataclass(frozen=True, eq=False)
class Op:
    """A call of a function of torch, or of a module whose parts are one idea.

    Attributes:
        name: the function's, without the underscores around it ("relu", "linear", "batch_norm").
        layer: the dotted name of the innermost module that called it; "criterion" in the loss.
        args: positional arguments.
        kwargs: keyword arguments.
        input: the first of the arguments that was computed from the model's inputs.
        sources: the operations that made its arguments, by their places in the list; `GIVEN` for
            inputs of the model.
        output: the first tensor that came out.
    """

    name: str
    layer: str
    args: Sequence[Any]
    kwargs: Mapping[str, Any]
    input: Tensor | None
    sources: tuple[int, ...]
    output: Tensor

    def argument(self, place: int, name: str, default: Any = None) -> Any:
        """Return an argument, however it was passed."""
        return self.args[place] if place < len(self.args) else self.kwargs.get(name, default)

    @property
    def where(self) -> str:
        """How a report calls it."""
        return self.layer or f"{self.name}()"


class Recorder(TorchFunctionMode):
    """Write down every operation on tensors inside the `with` block.

    Args:
        inputs: where computation begins.
        around: `around(name, args, kwargs, compute)` returns what the operation shall return.

    Attributes:
        ops: the operations so far.
        around: may be replaced between blocks.
    """

    def __init__(
        self,
        inputs: Any,
        around: Callable[[str, Sequence[Any], Mapping[str, Any], Callable[[], Any]], Any],
    ):
        super().__init__()
        self.ops: list[Op] = []
        self.around = around
        self._path = [""]
        self._made = {id(x): GIVEN for x in tensors(inputs)}
        self._alive: list[Any] = [inputs]  # a tensor that is gone would lend its id to another

    def source(self, x: Tensor) -> int | None:
        """Tell which operation made a tensor; None if it does not depend on the inputs."""
        return self._made.get(id(x))

    @contextmanager
    def inside(self, layer: str) -> Iterator[None]:
        """Name the caller of what happens in the block."""
        self._path.append(layer)
        try:
            yield
        finally:
            self._path.pop()

    def __torch_function__(
        self,
        func: Callable[..., Any],
        types: Any,
        args: Sequence[Any] = (),
        kwargs: Mapping[str, Any] | None = None,
    ) -> Any:
        kwargs = kwargs or {}
        name = getattr(func, "__name__", "").strip("_")
        operands = [x for x in tensors((args, dict(kwargs))) if id(x) in self._made]
        output = self.around(name, args, kwargs, lambda: func(*args, **kwargs))
        self._note(name, args, kwargs, operands, output)
        return output

    def _note(
        self, name: str, args: Any, kwargs: Any, operands: Sequence[Tensor], output: Any
    ) -> None:
        made = tensors(output)
        if not operands or not made:
            return
        sources = tuple(dict.fromkeys(self._made[id(x)] for x in operands))
        op = Op(name, self._path[-1], args, kwargs, operands[0], sources, made[0])
        for x in made:
            self._made[id(x)] = len(self.ops)
        self._alive.append(made)
        self.ops.append(op)

    def as_one(self, name: str, compute: Callable[[], Any]) -> Any:
        """Make one operation of all that happen in a call."""
        start = len(self.ops)
        output = compute()
        inner = self.ops[start:]
        del self.ops[start:]
        operands = {id(op.input): op.input for op in inner if min(op.sources) < start}
        self._made = {x: place for x, place in self._made.items() if place < start}
        found = [x for x in operands.values() if x is not None and id(x) in self._made]
        self._note(name, (), {}, found, output)
        return output


def run(
    recorder: Recorder,
    model: Model,
    params: Params,
    buffers: Buffers,
    args: Sequence[Any],
    keywords: Mapping[str, Any],
    *,
    key: Key | None,
    train: bool,
) -> Any:
    """Run a model under a recorder; what it returns."""
    root = model.skeleton(train)
    modules = {
        name: part
        for name, part in root.named_modules()
        if "parametrizations" not in name.split(".")
    }

    def see(name: str, compute: Callable[[], Any]) -> Any:
        with recorder.inside(name):
            known = _known(modules[name])
            if modules[name] is root:  # inside of what makes random operations keyed
                with recorder:
                    return compute() if known is None else recorder.as_one(known, compute)
            return compute() if known is None else recorder.as_one(known, compute)

    with intercepted(modules, see), torch.enable_grad():
        output, _ = model.apply(params, buffers, *args, key=key, train=train, **keywords)
    return output


def _known(module: nn.Module) -> str | None:
    """Name what a module of fdnn does with several operations."""
    if isinstance(module, RecurrentLoop | RecurrentCell):
        return "recurrent"
    is_ours = type(module).__module__.startswith("fdnn.")
    return identify(module).name if is_ours else None


def upstream(ops: Sequence[Op], op: Op, through: Container[str]) -> int | None:
    """Find what made the input of an operation, looking through operations of some names.

    Returns:
        Its place; None if the way leads to an input of the model.
    """
    while op.sources[0] != GIVEN:
        place = op.sources[0]
        if ops[place].name not in through:
            return place
        op = ops[place]
    return None
