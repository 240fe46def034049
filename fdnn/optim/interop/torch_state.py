"""The state of an optimizer, to `torch.optim` and back."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import torch
from torch import Tensor

from fdnn.optim.core.chain import OptState
from fdnn.optim.interop.torch_groups import SLOTS, groups_of, kept, numbers_of, set_group
from fdnn.types import GradientTransformation, Params

__all__ = ["from_torch", "to_torch"]

_UNCOUNTED = ("SGD", "Muon")


@torch.no_grad()
def to_torch(opt_state: OptState, params: Params, optimizer: torch.optim.Optimizer) -> None:
    """Hand a run over to `torch.optim`: parameters, optimizer state and hyperparameters.

    Everything is copied into `optimizer`, which is the one thing that changes. Its flags
    (`maximize`, `nesterov`, ...) must be those of the fdnn optimizer. What fdnn does and it does
    not (clipping, a schedule) is up to the torch loop that follows.

    Args:
        opt_state: of one run, of an optimizer of fdnn that has torch's name, or of several in a
            `partition`, one for each of torch's groups.
        params: parameters by name.
        optimizer: torch's. Which of its parameters has which name it knows if it was made from
            `module.named_parameters()`; or `params` are the very tensors that it holds; otherwise
            the order counts, that of the labels of `partition` and that of `params`.

    Raises:
        ValueError: names, shapes, slots or hyperparameters do not fit, or the state is of many
            runs (`fdnn.tree.unstack` first).

    Example:
        >>> from fdnn import optim
        >>> params, tx = {"w": torch.ones(2)}, optim.adam(lr=0.1)
        >>> params, state = optim.step(tx, params, params, tx.init(params))
        >>> weight = torch.nn.Parameter(torch.zeros(2))
        >>> adam = torch.optim.Adam([weight])
        >>> to_torch(state, params, adam)
        >>> adam.state[weight]["step"], adam.param_groups[0]["lr"], weight.data
        (tensor(1.), 0.1, tensor([0.9000, 0.9000]))
    """
    kind = type(optimizer).__name__
    if kind not in SLOTS:
        raise ValueError(f"`optimizer` must be one of {list(SLOTS)}, got {kind}")
    if opt_state.count.ndim:
        raise ValueError(
            f"`opt_state` must be of one run, got {len(opt_state.count)}; take one with "
            "`fdnn.tree.unstack`"
        )
    held = [group["params"] for group in optimizer.param_groups]
    by_identity = {id(value): name for name, value in params.items()}
    found = [[by_identity.get(id(p)) for p in group] for group in held]
    known = None if any(None in names for names in found) else found
    whole = optimizer.state_dict()
    groups = groups_of(whole["param_groups"], params, opt_state, known)
    state: dict[int, dict[str, Tensor]] = {}
    for (label, names), group, tensors in zip(groups, whole["param_groups"], held, strict=True):
        for name, index, tensor in zip(names, group["params"], tensors, strict=True):
            if tensor.shape != params[name].shape:
                raise ValueError(
                    f"at path {name!r}: expected {tuple(tensor.shape)} as the optimizer has it, "
                    f"found {tuple(params[name].shape)}"
                )
            own = kept(opt_state, label, name)
            wanted = _wanted(kind, group, tensor)
            if set(own) != wanted:
                raise ValueError(
                    f"at path {name!r}: {kind} with these flags keeps {sorted(wanted)}, "
                    f"`opt_state` has {sorted(own)}"
                )
            if opt_state.count > 0 or kind == "Adagrad":  # before, the others have no state
                state[index] = {slot: value.clone() for slot, value in own.items()}
                if kind not in _UNCOUNTED:
                    state[index]["step"] = opt_state.count.to("cpu", torch.float32, copy=True)
        set_group(group, label, opt_state)
    for (_, names), tensors in zip(groups, held, strict=True):
        for name, tensor in zip(names, tensors, strict=True):
            tensor.copy_(params[name])
    optimizer.load_state_dict({**whole, "state": state})


@torch.no_grad()
def from_torch(
    state_dict: Mapping[str, Any],
    tx: GradientTransformation,
    params: Params,
    *,
    count: int | None = None,
) -> OptState:
    """Take a run over from `torch.optim`: the state with which `tx` goes on where torch stopped.

    Hyperparameters are torch's, but for those that follow a schedule of `tx`. Flags (`maximize`,
    `nesterov`, ...) are not in the state: give `tx` those of torch's optimizer. Slots that are not
    torch's (an average of parameters) begin anew.

    Args:
        state_dict: `optimizer.state_dict()`.
        tx: the optimizer of fdnn with torch's name, or a `partition` of several, one for each of
            torch's groups.
        params: parameters by name. Which of torch's is which, `to_torch` says.
        count: the steps taken, where torch keeps no count (SGD, Muon) and one is needed: by a
            schedule, or by you. Without it the count is 1 if there is any state.

    Raises:
        ValueError: names, shapes, slots or hyperparameters do not fit, the parameters have taken
            different numbers of steps, or a schedule needs `count`.

    Example:
        >>> from fdnn import optim
        >>> weight = torch.nn.Parameter(torch.ones(2))
        >>> sgd = torch.optim.SGD([weight], lr=0.1, momentum=0.9)
        >>> weight.grad = torch.ones(2)
        >>> sgd.step()
        >>> tx = optim.sgd(lr=0.1, momentum=0.9)
        >>> state = from_torch(sgd.state_dict(), tx, {"w": weight.detach()})
        >>> state.slots["momentum_buffer"]
        {'w': tensor([1., 1.])}
    """
    state = tx.init(params)
    if not isinstance(state, OptState):
        raise ValueError(f"`tx` must be an optimizer of fdnn, whose state is no {type(state)}")
    groups = groups_of(state_dict["param_groups"], params, state, None)
    slots = {name: dict(s) if isinstance(s, dict) else s for name, s in state.slots.items()}
    hyperparams = dict(state.hyperparams)
    steps: dict[str, int] = {}
    seen: dict[str, tuple[int, Tensor]] = {}
    for i, ((label, names), group) in enumerate(
        zip(groups, state_dict["param_groups"], strict=True)
    ):
        for full, value in numbers_of(group, label, state).items():
            hyperparams[full] = torch.zeros_like(state.hyperparams[full]) + value
            j, other = seen.setdefault(full, (i, hyperparams[full]))
            if other != hyperparams[full]:
                raise ValueError(
                    f"`{full}` is {other.item()} in torch's group {j} and "
                    f"{hyperparams[full].item()} in group {i}; `tx` has one for both: use "
                    "`optim.partition`"
                )
        for name, index in zip(names, group["params"], strict=True):
            theirs = {k: v for k, v in state_dict["state"].get(index, {}).items() if v is not None}
            ours = kept(state, label, name)
            if not (ours or theirs):  # plain SGD
                continue
            steps[name] = int(theirs.pop("step", 1 if theirs else 0))
            if not theirs:
                continue
            if set(theirs) != set(ours):
                raise ValueError(
                    f"at path {name!r}: `tx` keeps {sorted(ours)}, torch's state has "
                    f"{sorted(theirs)}; are the flags the same?"
                )
            for slot, old in ours.items():
                _put(slots, f"{label}.{slot}" if label else slot, name, old, theirs[slot])
    if len(set(steps.values())) > 1:
        raise ValueError(
            f"the parameters must have taken the same number of steps, got {steps}; leave those "
            "without a gradient out of `params` and of torch's optimizer, or freeze them"
        )
    is_counted = any("step" in each for each in state_dict["state"].values())
    total = next(iter(steps.values()), 0)
    if is_counted and count not in (None, total):
        raise ValueError(f"`count` must be torch's {total}, got {count}")
    if not is_counted and count is None and _is_scheduled(tx):
        raise ValueError(
            "`count` must be given: `tx` follows a schedule, and this optimizer of torch keeps no "
            "count of steps"
        )
    taken = torch.zeros_like(state.count) + (total if count is None else count)
    return state._replace(count=taken, hyperparams=hyperparams, slots=slots)


def _wanted(kind: str, group: Mapping[str, Any], tensor: Tensor) -> set[str]:
    flags = {**group, "matrix": tensor.ndim > 1, "vector": tensor.ndim < 2}
    return {slot for slot, flag in SLOTS[kind].items() if flag is None or flags[flag]}


def _put(slots: dict[str, Any], full: str, name: str, old: Tensor, new: Tensor) -> None:
    """Store a tensor of torch's where `old` is."""
    if new.shape != old.shape:
        raise ValueError(
            f"at path {name!r}: expected `{full}` of shape {tuple(old.shape)}, found "
            f"{tuple(new.shape)}"
        )
    value = new.detach().to(old.device, old.dtype, copy=True)
    if isinstance(slots[full], dict):
        slots[full][name] = value
    else:  # one for all parameters
        slots[full] = value


def _is_scheduled(tx: GradientTransformation) -> bool:
    parts = getattr(tx, "parts", ())
    return any(callable(value) for part in parts for value in part.hyperparams.values())
