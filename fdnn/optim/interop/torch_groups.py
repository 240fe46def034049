"""How a state of fdnn and the groups of a `torch.optim` optimizer correspond: names, numbers."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any, NamedTuple

import torch
from torch import Tensor

from fdnn.optim.core.chain import OptState
from fdnn.types import Params

__all__ = ["SLOTS", "groups_of", "kept", "numbers_of", "set_group"]

# What torch.optim keeps for a parameter besides `step`, and the flag of the group that asks for it.
SLOTS: dict[str, dict[str, str | None]] = {
    "ASGD": {"eta": None, "mu": None, "ax": None},
    "Adadelta": {"square_avg": None, "acc_delta": None},
    "Adafactor": {"row_var": "matrix", "col_var": "matrix", "variance": "vector"},
    "Adagrad": {"sum": None},
    "Adam": {"exp_avg": None, "exp_avg_sq": None, "max_exp_avg_sq": "amsgrad"},
    "AdamW": {"exp_avg": None, "exp_avg_sq": None, "max_exp_avg_sq": "amsgrad"},
    "Adamax": {"exp_avg": None, "exp_inf": None},
    "Muon": {"momentum_buffer": None},
    "NAdam": {"exp_avg": None, "exp_avg_sq": None, "mu_product": None},
    "RAdam": {"exp_avg": None, "exp_avg_sq": None},
    "RMSprop": {"square_avg": None, "momentum_buffer": "momentum", "grad_avg": "centered"},
    "Rprop": {"prev": None, "step_size": None},
    "SGD": {"momentum_buffer": "momentum"},
}
_KNOWN = {slot for slots in SLOTS.values() for slot in slots}
# fdnn's names of the numbers in torch's tuples.
_TUPLES = {
    "betas": ("beta1", "beta2"),
    "eps": ("eps", "eps2"),
    "etas": ("eta_minus", "eta_plus"),
    "step_sizes": ("step_size_min", "step_size_max"),
}
_OFF_AT_ZERO = ("weight_decay", "momentum")  # of these fdnn keeps nothing where they are 0


class Group(NamedTuple):
    """What corresponds to a group of torch: a label of `partition` ("" without), and names."""

    label: str
    names: list[str]


def groups_of(
    groups: Sequence[Mapping[str, Any]],
    params: Params,
    state: OptState,
    known: Sequence[Sequence[Any]] | None,
) -> list[Group]:
    """Find out which names the parameters of each group of torch have, and which label."""
    members = _members(params, state)
    labels = list(members)
    if all("param_names" in group for group in groups):
        named = [list(group["param_names"]) for group in groups]
    elif known is not None:
        named = [list(names) for names in known]
    elif len(groups) == len(labels) and None not in members.values():
        named = [list(names or ()) for names in members.values()]
    else:
        raise ValueError(
            f"torch's {len(groups)} groups have no names to find their parameters by; make the "
            "optimizer from `module.named_parameters()`"
        )
    sizes = [len(group["params"]) for group in groups]
    if [len(names) for names in named] != sizes:
        raise ValueError(f"torch's groups have {sizes} parameters, the state has those of {named}")
    unknown = [name for names in named for name in names if name not in params]
    missing = [
        name for own in members.values() for name in own or () if not any(name in n for n in named)
    ]
    if unknown or missing:
        raise ValueError(f"names must match: torch lacks {missing}, `params` lack {unknown}")
    owner = {name: label for label, names in members.items() for name in names or ()}
    result = []
    for i, names in enumerate(named):
        own = {owner[name] for name in names if name in owner}
        if len(own) > 1:
            raise ValueError(
                f"torch's group {i} holds parameters of the labels {sorted(own)}: {names}"
            )
        if not own and len(labels) not in (1, len(groups)):
            raise ValueError(f"no label of {labels} is that of torch's group {i}: {names}")
        result.append(Group(next(iter(own), labels[i % len(labels)]), names))
    return result


def _members(params: Params, state: OptState) -> dict[str, list[str] | None]:
    """The labels that have a learning rate, and the names in each, None where nothing tells."""
    labels = [_split(full)[0] for full in state.hyperparams if _split(full)[1] == "lr"]
    if not labels:
        raise ValueError(f"the state must have an `lr`, got {list(state.hyperparams)}")
    tells: dict[str, set[str]] = {label: set() for label in labels}
    for full, slot in state.slots.items():
        label, base = _split(full)
        if base in _KNOWN and label in tells and isinstance(slot, dict):
            tells[label] |= set(slot)
    silent = [label for label, names in tells.items() if not names]
    rest = set(params) - set().union(*tells.values())
    if len(silent) == 1:
        tells[silent[0]] = rest
    return {
        label: [name for name in params if name in names]
        if label not in silent or len(silent) == 1
        else None
        for label, names in tells.items()
    }


def _split(full: str) -> tuple[str, str]:
    label, _, base = full.rpartition(".")
    return label, base


def kept(state: OptState, label: str, name: str) -> dict[str, Tensor]:
    """What the state keeps for a parameter, by torch's names."""
    own = {_split(full)[1]: slot for full, slot in state.slots.items() if _split(full)[0] == label}
    values = {
        slot: value.get(name) if isinstance(value, dict) else value for slot, value in own.items()
    }
    return {slot: value for slot, value in values.items() if value is not None and slot in _KNOWN}


def numbers_of(group: Mapping[str, Any], label: str, state: OptState) -> dict[str, Any]:
    """The numbers of a group of torch, by fdnn's names."""
    numbers: dict[str, Any] = {}
    for key, value in group.items():
        values = value if isinstance(value, tuple | list) else (value,)
        for base, number in zip(_TUPLES.get(key, (key,)), values, strict=False):
            full = f"{label}.{base}" if label else base
            if full in state.hyperparams and number is not None:
                numbers[full] = number
            elif key in _OFF_AT_ZERO and number != 0:
                raise ValueError(f"torch's group has `{key}` {number}, the state no `{full}`")
    return numbers


def set_group(group: dict[str, Any], label: str, state: OptState) -> None:
    """Write the state's hyperparameters into a group of torch."""
    for key, old in group.items():
        several = key in _TUPLES and isinstance(old, tuple | list)
        values = list(old) if several else [old]
        for i, base in enumerate(_TUPLES.get(key, (key,))[: len(values)]):
            new = state.hyperparams.get(f"{label}.{base}" if label else base)
            if new is not None:
                is_tensor = isinstance(values[i], Tensor)
                values[i] = torch.zeros_like(values[i]) + new if is_tensor else new.item()
            elif key in _OFF_AT_ZERO and values[i] != 0:
                raise ValueError(f"torch's group has `{key}` {values[i]}, `opt_state` has none")
        group[key] = type(old)(values) if several else values[0]
