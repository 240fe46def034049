"""The same numbers as laplace-torch 0.3, by Daxberger and others, to nine digits.

Its numbers are in `laplace_torch.json`, which `laplace_torch.py` made with it: it is no dependency.
"""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor, nn

from fdnn import functionalize
from fdnn.uncertainty import (
    laplace_fit,
    laplace_posterior,
    laplace_predictive,
    log_marginal_likelihood,
    probit,
)

THEIRS = json.loads(Path(__file__).with_name("laplace_torch.json").read_text())
NAMES = ["0.weight", "0.bias", "2.weight", "2.bias"]  # the order of its rows and columns


def tensor(numbers: Any) -> Tensor:
    return torch.tensor(numbers, dtype=torch.float64)


def close(found: Tensor, numbers: Any) -> None:
    wanted = numbers if isinstance(numbers, Tensor) else tensor(numbers)
    torch.testing.assert_close(found, wanted, rtol=1e-9, atol=1e-10)


def places(params: dict[str, Tensor], names: list[str]) -> Tensor:
    """Where our numbers, sorted by name, stand in theirs."""
    begin, blocks = 0, {}
    for name in names:
        blocks[name] = torch.arange(begin, begin := begin + params[name].numel())
    return torch.cat([blocks[name] for name in sorted(names)])


@pytest.mark.parametrize("likelihood", ["classification", "regression"])
@pytest.mark.parametrize("subset", ["last_layer", "all"])
@pytest.mark.parametrize("structure", ["full", "diagonal"])
def test_same_numbers(likelihood: Any, subset: str, structure: Any) -> None:
    theirs = THEIRS[likelihood]
    case = theirs["cases"][f"{subset}_{structure}"]
    params = {name: tensor(values) for name, values in theirs["params"].items()}
    x, new = tensor(theirs["x"]), tensor(theirs["new"])
    target = torch.tensor(theirs["y"]) if likelihood == "classification" else tensor(theirs["y"])
    outputs = len(params["2.bias"])
    model = functionalize(nn.Sequential(nn.Linear(2, 4), nn.Tanh(), nn.Linear(4, outputs)).double())
    where = None if subset == "last_layer" else "*"
    fit = laplace_fit(
        model, params, {}, (x, target), likelihood=likelihood, where=where, structure=structure
    )
    order = places(params, NAMES[2:] if subset == "last_layer" else NAMES)
    curvature = tensor(case["H"])
    close(fit.curvature, (curvature[order] if curvature.ndim == 1 else curvature[order][:, order]))
    delta = THEIRS["prior_precision"]
    sigma = 1.0 if likelihood == "classification" else THEIRS["sigma_noise"]
    close(log_marginal_likelihood(fit, delta, sigma), case["log_marginal_likelihood"])
    posterior = laplace_posterior(fit, delta, sigma)
    mean, covariance = laplace_predictive(model, params, {}, posterior, new)
    close(mean, case["mean"])
    close(covariance, case["covariance"])
    if likelihood == "classification":
        close(probit(mean, covariance), case["probit"])
