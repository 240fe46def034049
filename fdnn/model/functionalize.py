"""`functionalize`: any `nn.Module` as a pure function of its parameters and buffers."""

from __future__ import annotations

import copy
import dataclasses
from collections.abc import Callable, Sequence
from typing import Any

import torch
from torch import Tensor, nn
from torch.func import functional_call
from torch.nn.utils.parametrizations import _SpectralNorm

from fdnn.model import initialize, recurrent
from fdnn.model.keyed import KeyedRandomness
from fdnn.normalization import plain
from fdnn.types import Buffers, Initializer, Key, Params

__all__ = ["SKELETONS", "Model", "functionalize"]

SKELETONS = ("_train", "_eval", "_settled", "_plain")
"""The weightless copies of the module that a `Model` holds."""


@dataclasses.dataclass(frozen=True, eq=False, repr=False)
class Model:
    """A module as pure functions; made by `functionalize`.

    Attributes:
        params: the module's own parameter values, by dotted name.
        buffers: the module's own buffer values, by dotted name.
        aliases: further names of tied tensors, and the first name of each, under which it is in
            `params` or `buffers`.
    """

    params: Params
    buffers: Buffers
    aliases: dict[str, str]
    _plans: dict[str, initialize.Plan]
    _train: nn.Module
    _eval: nn.Module
    _settled: nn.Module  # in train mode, but for layers with running statistics
    _plain: nn.Module
    _renormed: tuple[str, ...]
    _frozen: frozenset[str] = frozenset()  # names of buffers that no call changes
    _derive: tuple[Callable[[dict[str, Tensor]], dict[str, Tensor]], ...] = ()
    # Each makes other tensors of those given: a weight of a weight and its low-rank change.

    def init(
        self,
        key: Key,
        *,
        weight: Initializer | None = None,
        bias: Initializer | None = None,
        rules: Sequence[tuple[str, Initializer]] = (),
    ) -> tuple[Params, Buffers]:
        """Draw fresh parameters, and buffers as a new module has them.

        Every parameter has a key of its own, derived from `key` and its name. Without further
        arguments each layer is drawn from torch's own default distribution for its type, or by
        what a module says of itself: an attribute `initializers`, a dict from names of its
        parameters (dotted for those of its children) to initializers.

        Args:
            key: a key; vmap over a stack of keys gives a stack of parameters.
            weight: draws every weight matrix or kernel (two or more dimensions; embeddings keep
                their default).
            bias: draws every bias.
            rules: pairs of a glob on dotted names and an initializer. The first that matches
                wins, before `weight` and `bias`.

        Returns:
            `(params, buffers)`, new tensors on the key's device, wherever the module is.

        Raises:
            ValueError: a glob of `rules` matches no parameter, or a layer of a type that no rule
                knows would have to reset itself under vmap.

        Example:
            >>> from fdnn import initializers, random
            >>> model = functionalize(nn.Linear(2, 3))
            >>> params, _ = model.init(random.key(0), weight=initializers.he_normal())
            >>> {name: tuple(value.shape) for name, value in params.items()}
            {'weight': (3, 2), 'bias': (3,)}
        """
        params = initialize.draw(key, self._plans, self.params, weight, bias, rules)
        return params, initialize.fresh_buffers(key, self._train, self.buffers, self._frozen)

    def apply(
        self,
        params: Params,
        buffers: Buffers,
        *args: Any,
        key: Key | None = None,
        train: bool = False,
        **kwargs: Any,
    ) -> tuple[Any, Buffers]:
        """Run the module's forward pass as a pure function.

        Args:
            params: parameters by dotted name.
            buffers: buffers by dotted name; the given ones are left as they are.
            *args: what the module's `forward` takes.
            key: the source of all randomness; needed only if something is drawn.
            train: run in train mode (dropout active, batch statistics in use).
            **kwargs: keyword arguments of `forward`.

        Returns:
            What `forward` returns, and the buffers after it (running statistics moved on).

        Raises:
            ValueError: a name is missing or unknown, or something is drawn and `key` is None.
            NotImplementedError: the module calls a random operation that cannot be keyed.
            RuntimeError: under vmap, buffers are not stacked although they change, or an
                operation has no batching rule.
        """
        _check_names("params", self.params, params)
        _check_names("buffers", self.buffers, buffers)
        values = self._values(params, buffers)
        moving = [name for name in buffers if name not in self._frozen]
        for name in (*moving, *self._renormed):  # what the module writes into
            values[name] = values[name].clone()
        for alias, name in self.aliases.items():
            values[alias] = values[name]
        module = self.skeleton(train)
        try:
            with KeyedRandomness(key):
                output = functional_call(module, values, args, kwargs, tie_weights=False)
        except RuntimeError as error:
            cause = _cause(str(error))
            if cause is None:
                raise
            raise RuntimeError(f"{cause} vmap said: {error}") from error
        return output, {**buffers, **{name: values[name] for name in moving}}

    def _values(self, params: Params, buffers: Buffers) -> dict[str, Tensor]:
        """The module's own tensors, by dotted name."""
        values = {**params, **buffers}
        for derive in self._derive:
            values = derive(values)
        return values

    def skeleton(self, train: bool = False) -> nn.Module:
        """Return the weightless module that `apply` runs: for reading its layers, not to change.

        Its layers have the names of the module's own; recurrent ones are the loops of
        `fdnn.model.recurrent`.
        """
        return self._train if train else self._eval

    def settled(self) -> Model:
        """Return a model whose train mode draws, but uses running statistics.

        Dropout and whatever else is random is active with `train=True`, while batch norm, instance
        norm and spectral norm do as in eval mode and leave their buffers as they are. It is how a
        trained network is sampled (`fdnn.uncertainty.mc_dropout`). `params` and `buffers` are the
        same.

        Example:
            >>> from fdnn import random
            >>> net = functionalize(nn.Sequential(nn.BatchNorm1d(4), nn.Dropout(0.5)))
            >>> draw, x = net.settled().apply, torch.full((1, 4), 3.0)  # no batch to normalize over
            >>> y, _ = draw(net.params, net.buffers, x, key=random.key(0), train=True)
            >>> y.round()
            tensor([[0., 6., 6., 6.]])
        """
        return dataclasses.replace(self, _train=self._settled)

    def to_module(self, params: Params, buffers: Buffers) -> nn.Module:
        """Return an ordinary module with these weights, for deployment; the way back.

        It is what `functionalize` was given: torch's own recurrent layers, in-place activations,
        tied parameters, frozen ones (`requires_grad`), and needs nothing of fdnn to run.

        Args:
            params: parameters by dotted name, of one run (of a stacked one, take a lane first).
            buffers: buffers by dotted name.

        Returns:
            A new module in eval mode, with copies of the values in their own dtypes and devices.

        Raises:
            ValueError: a name is missing or unknown, or a shape is not the module's.

        Example:
            >>> model = functionalize(nn.Linear(2, 1))
            >>> module = model.to_module({"weight": torch.ones(1, 2), "bias": torch.zeros(1)}, {})
            >>> module
            Linear(in_features=2, out_features=1, bias=True)
            >>> module(torch.ones(2)).item()
            2.0
        """
        _check_names("params", self.params, params)
        _check_names("buffers", self.buffers, buffers)
        values = {n: value.detach().clone() for n, value in self._values(params, buffers).items()}
        memo: dict[int, Any] = {}
        for name, parameter in self._plain.named_parameters():
            _check_shape("params", name, parameter, values[name])
            memo[id(parameter)] = nn.Parameter(values[name], parameter.requires_grad)
        for name, buffer in self._plain.named_buffers():
            _check_shape("buffers", name, buffer, values[name])
            memo[id(buffer)] = values[name]
        return copy.deepcopy(self._plain, memo).eval()

    def __repr__(self) -> str:
        count = sum(value.numel() for value in self.params.values())
        kind = type(self._train).__name__
        frozen = f"{len(self._frozen)} of them frozen" if self._frozen else ""
        said = (kind, f"{count:,} parameters", f"{len(self.buffers)} buffers", frozen)
        return f"Model({', '.join(filter(None, said))})"


def functionalize(module: nn.Module) -> Model:
    """Turn a module into pure functions of parameters, buffers and a key.

    The module is copied, never changed, and not needed afterwards. Tied parameters stay tied:
    they have one entry, under their first name.

    Args:
        module: any module. Its train or eval mode does not matter: `apply` says which.

    Returns:
        A `Model`: `init`, `apply`, and the module's own `params` and `buffers`.

    Raises:
        TypeError: `module` is no `nn.Module`, or has a scripted part.
        ValueError: a lazy layer has no shapes yet, or a layer holds a tensor that was computed
            from others (pruning, the old weight_norm).

    Example:
        >>> from fdnn import random
        >>> model = functionalize(nn.Sequential(nn.Linear(4, 8), nn.Dropout(0.5)))
        >>> params, buffers = model.init(random.key(0))
        >>> output, _ = model.apply(
        ...     params, buffers, torch.ones(2, 4), key=random.key(1), train=True
        ... )
        >>> output.shape
        torch.Size([2, 8])
    """
    if not isinstance(module, nn.Module):
        raise TypeError(f"`module` must be an nn.Module, got {module!r}")
    _check_module(module)
    plain = _weightless(module)
    return Model(
        params={name: p.detach().clone() for name, p in module.named_parameters()},
        buffers={name: b.detach().clone() for name, b in module.named_buffers()},
        _plans=initialize.plan(module),
        aliases=_aliases(module),
        _train=_skeleton(plain).train(),
        _eval=_skeleton(plain).eval(),
        _settled=_settled(_skeleton(plain)),
        _plain=plain,
        _renormed=_renormed(module),
    )


def _check_module(module: nn.Module) -> None:
    for name, value in [*module.named_parameters(), *module.named_buffers()]:
        if nn.parameter.is_lazy(value):
            raise ValueError(
                f"`module` has a lazy parameter {name!r} without a shape; call it once on a batch"
            )
    for path, layer in module.named_modules():
        if isinstance(layer, torch.jit.ScriptModule):
            raise TypeError(
                f"`module` has a scripted part {path!r}, whose random operations cannot be seen; "
                "give the module it was made from"
            )
        for name, value in vars(layer).items():
            if isinstance(value, Tensor) and not value.is_leaf:
                raise ValueError(
                    f"`module` holds a tensor {name!r} in {path!r} that was computed from others. "
                    "torch.nn.utils.prune and the old weight_norm do so: make pruning permanent "
                    "(prune.remove), use torch.nn.utils.parametrizations; or set it to None"
                )


def _aliases(module: nn.Module) -> dict[str, str]:
    """Further names of tied tensors, and the first name of each.

    A layer that is used under several names is one place and needs one name. (Given them all,
    `functional_call` would not put back what it found.)
    """
    first: dict[int, str] = {}
    aliases = {}
    for path, layer in module.named_modules():
        for members in (layer.named_parameters, layer.named_buffers):
            for name, value in members(path, recurse=False, remove_duplicate=False):
                if id(value) in first:
                    aliases[name] = first[id(value)]
                else:
                    first[id(value)] = name
    return aliases


def _renormed(module: nn.Module) -> tuple[str, ...]:
    """Names of the embeddings that `max_norm` makes their forward write into."""
    layers = [layer for layer in module.modules() if getattr(layer, "max_norm", None) is not None]
    tables = {id(getattr(layer, "weight", None)) for layer in layers}
    return tuple(name for name, value in module.named_parameters() if id(value) in tables)


def _weightless(module: nn.Module) -> nn.Module:
    """Copy a module without its weights: parameters and buffers are on the meta device."""
    memo: dict[int, Any] = {}
    for parameter in module.parameters():
        empty = torch.empty_like(parameter, device="meta")
        memo[id(parameter)] = nn.Parameter(empty, parameter.requires_grad)
    for buffer in module.buffers():
        memo[id(buffer)] = torch.empty_like(buffer, device="meta", requires_grad=False)
    return copy.deepcopy(module, memo)


def _skeleton(plain: nn.Module) -> nn.Module:
    """Copy a weightless module into the form that `apply` runs."""
    skeleton = copy.deepcopy(plain)
    recurrent.rewrite(skeleton)
    for child in skeleton.modules():
        if getattr(child, "inplace", False) is True:
            child.inplace = False  # type: ignore[assignment]  # it would write into the caller's input
    return skeleton.requires_grad_(False)


def _settled(skeleton: nn.Module) -> nn.Module:
    """Put a skeleton in train mode, except for what would write statistics there."""
    for layer in skeleton.train().modules():
        if hasattr(layer, "reset_running_stats") or isinstance(layer, _SpectralNorm):
            layer.eval()
    return skeleton


def _check_names(argument: str, expected: dict[str, Tensor], given: dict[str, Tensor]) -> None:
    if expected.keys() == given.keys():
        return
    missing = [name for name in expected if name not in given]
    unknown = [name for name in given if name not in expected]
    raise ValueError(
        f"`{argument}` must have the module's names: missing {missing}, unknown {unknown}"
    )


def _check_shape(argument: str, name: str, expected: Tensor, given: Tensor) -> None:
    if expected.shape != given.shape:
        shapes = f"expected shape {tuple(expected.shape)}, found {tuple(given.shape)}"
        raise ValueError(f"`{argument}` must be those of one run: at path {name!r}: {shapes}")


def _cause(said: str) -> str | None:
    """Say what some errors of vmap mean here and what to do about them."""
    shared = "were not batched" in said or ("vmap: " in said and "is not possible because" in said)
    if shared or ("doesn't match the broadcast shape" in said and plain.is_vmapped()):
        return (
            "under vmap, the model writes lane by lane into a tensor that all lanes share. Its "
            "buffers must be stacked like the parameters: pass `buffers` through vmap (in_dims "
            "0), for example from `vmap(model.init)(keys)`. A tensor that it makes and fills "
            "(`torch.empty(3).exponential_()`) must be drawn whole, by `torch.rand` and the like "
            "(docs/gotchas.md)."
        )
    if "Batching rule not implemented" in said or "vmap: It looks like" in said:
        return (
            "the model calls an operation that vmap cannot batch, or lets a tensor decide what "
            "Python does (`if`, `.item()`); replace it (`torch.where`), or run the lanes one after "
            "the other (docs/gotchas.md)."
        )
    return None
