"""The trajectories of the authors' own implementations (`make_wrappers_golden.py`)."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor

from fdnn import optim, tree
from fdnn.types import GradientTransformation, Params

GOLDEN = json.loads(Path(__file__).with_name("wrappers_golden.json").read_text())
SIZES = {"matrix": (3, 2), "vector": (3,), "scalar": ()}


def halved(lr: float) -> Callable[[Tensor], Tensor]:
    return lambda count: lr * (1 - 0.5 * (count >= 10).double())


def build(case: str, flags: dict[str, Any]) -> GradientTransformation:
    """The same optimizer under fdnn's names."""
    name, kind = case.split()[0], "".join(case.split()[1:])
    if kind == "drop":
        flags["lr"] = halved(flags["lr"])
    if kind == "momentum":
        return optim.schedule_free(optim.sgd(flags["lr"], momentum=0.5), flags["momentum"])
    if name == "lookahead":
        return optim.lookahead(optim.sgd(0.1, momentum=0.9), flags["k"], flags["alpha"])
    if name == "ademamix" and "t_alpha_beta3" in flags:
        flags["alpha_warmup"] = flags["beta3_warmup"] = flags.pop("t_alpha_beta3")
    if "decouple" in flags:
        flags["decoupled_weight_decay"] = flags.pop("decouple")
    if "clip_lambda" in flags:
        flags["clip_value"] = flags.pop("clip_lambda")
    tx: GradientTransformation = getattr(optim, name)(**flags)
    return tx


def start() -> Params:
    return {
        name: torch.cos(
            torch.arange(1.0, 1 + torch.Size(size).numel(), dtype=torch.float64) ** 2
        ).reshape(size)
        for name, size in SIZES.items()
    }


def gradient(x: Tensor, t: int) -> Tensor:
    place = torch.arange(1, x.numel() + 1, dtype=torch.float64).reshape(x.shape)
    return 2 * (x - 2) / (1 + (x - 2) ** 2) + torch.cos(place * (t + 1) + place**2)


def flat(params: Any) -> Tensor:
    leaves = [torch.as_tensor(params[name], dtype=torch.float64).flatten() for name in SIZES]
    return torch.cat(leaves)


@pytest.mark.parametrize("case", GOLDEN)
def test_trajectory(case: str) -> None:
    golden = GOLDEN[case]
    tx = build(case, dict(golden["flags"]))
    params = start()
    state, origin, travelled = tx.init(params), flat(params), 0.0
    for t in range(max(map(int, golden["params"]))):
        grads = {name: gradient(x, t) for name, x in params.items()}
        params, state = optim.step(tx, params, grads, state)
        travelled = max(travelled, (flat(params) - origin).norm().item())
        found = {"params": params}
        if "averages" in golden:
            found["averages"] = optim.schedule_free_eval_params(state, params)
        for kind, values in found.items():
            if wanted := golden[kind].get(str(t + 1)):
                assert (flat(values) - flat(wanted)).norm() <= 1e-12 * travelled, (kind, t)
    assert travelled > 1
    tree.assert_same_structure(tx.init(params), state)
