"""Some leaves one way, others another: masks, groups with their own optimizers, frozen leaves."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

import torch
from torch import Tensor, nn

from fdnn import tree
from fdnn.optim.core.chain import Chain, chain
from fdnn.optim.core.leafwise import leafwise, unpack
from fdnn.optim.core.part import Hyper, Notes, Part, sequence
from fdnn.types import GradientTransformation, Tree, Where

__all__ = ["freeze", "masked", "names_by_type", "partition", "set_to_zero"]

Labels = Mapping[str, Where] | Callable[[str, Any], str]
"""Which leaf belongs to which group."""


def masked(inner: GradientTransformation, where: Where) -> Chain:
    """Let a transformation act on some leaves only; it keeps no state for the others.

    What happens to the others depends on what `inner` is. A building block, which turns gradients
    into other gradients or directions, passes them on as they are. A whole optimizer, which turns
    them into steps, leaves their parameters where they are: a raw gradient never becomes a step.

    Args:
        inner: a transformation of fdnn.
        where: a glob on paths, several globs, or a predicate `(path, leaf)`.

    Raises:
        ValueError: a glob matches no path (when used); the message lists the paths.

    Example:
        >>> from fdnn import optim
        >>> params = {"weight": torch.ones(1), "bias": torch.ones(1)}
        >>> tx = masked(optim.add_decayed_weights(0.5), "weight")
        >>> updates, _ = tx.update(tree.zeros_like(params), tx.init(params), params)
        >>> updates
        {'weight': tensor([0.5000]), 'bias': tensor([0.])}
    """
    parts = chain(inner).parts
    part = sequence(parts[0].name if len(parts) == 1 else "masked", parts)
    return chain(_on(part, lambda leaves: where, rest_stays=part.is_step))


def partition(transforms: Mapping[str, GradientTransformation], labels: Labels) -> Chain:
    """Give each group of parameters an optimizer of its own, as torch's `param_groups` do.

    Args:
        transforms: a transformation for each label.
        labels: which leaves have which label: a glob, several globs or a predicate for each label,
            the first that matches counting (end with `"*"` for the rest); or a function
            `(path, leaf) -> label`.

    Returns:
        A transformation whose state names what belongs to a group `label.name`: `"head.lr"`.

    Raises:
        ValueError: a label has no transformation, or, when used, a leaf has no label or a glob
            matches no path.

    Example:
        >>> from fdnn import optim
        >>> tx = partition(
        ...     {"decay": optim.adamw(weight_decay=0.1), "rest": optim.adamw(weight_decay=0.0)},
        ...     {"decay": "*weight", "rest": "*"},
        ... )
        >>> state = tx.init({"weight": torch.ones(2, 2), "bias": torch.ones(2)})
        >>> state.hyperparams["decay.weight_decay"].item(), list(state.slots["rest.exp_avg"])
        (0.1, ['bias'])
    """
    if isinstance(labels, Mapping):
        unknown = [label for label in labels if label not in transforms]
        if unknown:
            raise ValueError(f"`labels` name {unknown}, `transforms` only {list(transforms)}")
    parts = []
    for label, transform in transforms.items():

        def own(leaves: Tree, label: str = label) -> Where:
            return _names(leaves, labels, transforms)[label]

        parts.append(_on(_prefixed(label, sequence(label, chain(transform).parts)), own))
    return chain(*parts)


def freeze(inner: GradientTransformation, where: Where) -> Chain:
    """Let an optimizer act on all leaves but some, which stay where they are and have no state.

    To spare their gradients as well, split them off with `fdnn.tree.partition` before the loss is
    differentiated.

    Args:
        inner: the optimizer of the other leaves.
        where: the frozen leaves: a glob on paths, several globs, or a predicate `(path, leaf)`.

    Raises:
        ValueError: a glob matches no path (when used).

    Example:
        >>> from fdnn import optim
        >>> params = {"body": torch.ones(1), "head": torch.ones(1)}
        >>> tx = freeze(optim.adam(lr=0.1), "body")
        >>> optim.step(tx, params, params, tx.init(params))[0]
        {'body': tensor([1.]), 'head': tensor([0.9000])}
    """
    return partition({"frozen": set_to_zero(), "": inner}, {"frozen": where, "": "*"})


def set_to_zero() -> Chain:
    """Turn every update into zero: nothing moves.

    Example:
        >>> tx = set_to_zero()
        >>> tx.update({"w": torch.ones(1)}, tx.init({"w": torch.ones(1)}))[0]
        {'w': tensor([0.])}
    """

    def update(
        updates: Tree, slots: dict[str, Tree], params: Tree, hyper: Hyper, count: Tensor, **_: Any
    ) -> tuple[Tree, dict[str, Tree], Notes]:
        return leafwise(torch.zeros_like, updates), {}, {}

    return chain(Part("set_to_zero", lambda params: {}, update, is_step=True))


def names_by_type(module: nn.Module, *types: type[nn.Module]) -> list[str]:
    """List the parameters of all layers of some types, for the arguments that choose leaves.

    A name does not tell what a parameter does: the batch norms of an `nn.Sequential` are called
    `1.weight`, not `bn.weight`, so that a search for "bn" finds none of them.

    Args:
        module: the module whose parameters are trained.
        *types: layer types; a subclass counts as its base.

    Returns:
        The dotted names, each as a glob that matches only itself.

    Raises:
        ValueError: `module` has no parameter in a layer of these types.

    Example:
        >>> net = nn.Sequential(nn.Linear(2, 3), nn.BatchNorm1d(3))
        >>> names_by_type(net, nn.BatchNorm1d)
        ['1.weight', '1.bias']
    """
    names = [
        f"{path}.{name}" if path else name
        for path, layer in module.named_modules()
        if isinstance(layer, types)
        for name, _ in layer.named_parameters(recurse=False)
    ]
    if not names:
        raise ValueError(f"`module` has no parameter in a layer of {[t.__name__ for t in types]}")
    return names


def _on(part: Part, where: Callable[[Tree], Where], *, rest_stays: bool = False) -> Part:
    """Restrict a part to the leaves that `where` chooses of a tree."""

    def choose(leaves: Tree) -> Callable[[str, Any], bool]:
        chosen = tree.select(leaves, where(leaves)) if tree.leaves(leaves) else {}
        return lambda path, leaf: path in chosen

    def init(params: Tree) -> dict[str, Tree]:
        return part.init(tree.partition(params, choose(params))[0])

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
        chosen = choose(stored)
        mine, rest = tree.partition(updates, chosen)
        own_params = None if params is None else tree.partition(params, chosen)[0]
        own_stored, others = tree.partition(stored, chosen)
        if extra.get("value_and_grad") is not None:
            extra["value_and_grad"] = _of_some(extra["value_and_grad"], chosen, others)
        mine, left, said = part.update(
            mine, slots, own_params, hyper, count, stored=own_stored, **extra
        )
        if rest_stays:
            rest = leafwise(torch.zeros_like, rest)
        return tree.combine(unpack(mine, own_stored), rest), left, said

    return part._replace(init=init, update=update)


def _of_some(
    value_and_grad: Callable[[Tree], tuple[Tensor, Tree]],
    chosen: Callable[[str, Any], bool],
    others: Tree,
) -> Callable[[Tree], tuple[Tensor, Tree]]:
    """Make a function of the chosen leaves, the others staying as they are."""

    def restricted(leaves: Tree) -> tuple[Tensor, Tree]:
        value, grads = value_and_grad(tree.combine(leaves, others))
        return value, tree.partition(grads, chosen)[0]

    return restricted


def _prefixed(label: str, part: Part) -> Part:
    """Put a label before all names of a part (none before those of the label "")."""

    def full(name: str) -> str:
        return f"{label}.{name}" if label else name

    def strip(values: dict[str, Any], names: Any) -> dict[str, Any]:
        return {name: values[full(name)] for name in names}

    def prefix(values: dict[str, Any]) -> dict[str, Any]:
        return {full(name): value for name, value in values.items()}

    def update(
        updates: Tree,
        slots: dict[str, Tree],
        params: Tree,
        hyper: Hyper,
        count: Tensor,
        **extra: Any,
    ) -> tuple[Tree, dict[str, Tree], Notes]:
        own, values = strip(slots, part.slots), strip(hyper, part.hyperparams)
        updates, left, said = part.update(updates, own, params, values, count, **extra)
        return updates, prefix(left), prefix(said)

    return part._replace(
        init=lambda params: prefix(part.init(params)),
        update=update,
        hyperparams=prefix(part.hyperparams),
        slots=tuple(map(full, part.slots)),
        diagnostics=tuple(map(full, part.diagnostics)),
    )


def _names(
    leaves: Tree, labels: Labels, transforms: Mapping[str, GradientTransformation]
) -> dict[str, Where]:
    """For each label, a predicate that holds for its leaves."""
    label_of: dict[str, str] = {}
    if isinstance(labels, Mapping):
        for label, where in labels.items() if tree.leaves(leaves) else ():
            for path in tree.select(leaves, where):
                label_of.setdefault(path, label)
    else:
        label_of = {path: labels(path, leaf) for path, leaf in tree.select(leaves).items()}
    unlabelled = [path for path in tree.paths(leaves) if label_of.get(path) not in transforms]
    if unlabelled:
        raise ValueError(
            f"`labels` give no label of `transforms` ({list(transforms)}) to {unlabelled}"
        )
    return {
        label: lambda path, leaf, label=label: label_of[path] == label  # type: ignore[misc]
        for label in transforms
    }
