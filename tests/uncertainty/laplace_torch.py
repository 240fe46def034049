"""Make `laplace_torch.json`: what laplace-torch says of two small networks. Not run by the tests.

It needs laplace-torch 0.3 and what that imports, in an environment of its own:

    python tests/uncertainty/laplace_torch.py
"""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import laplace
import torch
import torch.nn.functional as F
from laplace.curvature import BackPackGGN
from torch import Tensor, nn
from torch.utils.data import DataLoader, TensorDataset

PRIOR_PRECISION, SIGMA_NOISE = 0.7, 0.4
CASES = {
    "last_layer_full": ("last_layer", "full"),
    "last_layer_diagonal": ("last_layer", "diag"),
    "all_full": ("all", "full"),
    "all_diagonal": ("all", "diag"),
}


def numbers(x: Any) -> Any:
    return torch.as_tensor(x).detach().double().tolist()


def trained(net: nn.Module, x: Tensor, y: Tensor, loss: Any) -> None:
    """Near an optimum, with weight decay."""
    tx = torch.optim.Adam(net.parameters(), lr=0.02, weight_decay=0.01)
    for _ in range(300):
        tx.zero_grad()
        loss(net(x), y).backward()
        tx.step()


def record(likelihood: str, net: nn.Module, x: Tensor, y: Tensor, new: Tensor) -> dict[str, Any]:
    found: dict[str, Any] = {
        "params": {name: numbers(p) for name, p in net.named_parameters()},
        "x": numbers(x),
        "y": y.tolist(),
        "new": numbers(new),
        "cases": {},
    }
    loader = DataLoader(TensorDataset(x, y), batch_size=8)
    options = {"sigma_noise": SIGMA_NOISE} if likelihood == "regression" else {}
    for name, (subset, structure) in CASES.items():
        la = laplace.Laplace(
            net,
            likelihood,
            subset_of_weights=subset,
            hessian_structure=structure,
            prior_precision=PRIOR_PRECISION,
            backend=BackPackGGN,
            **options,
        )
        la.fit(loader)
        mean, variance = la._glm_predictive_distribution(new)
        case = {
            "H": numbers(la.H),
            "log_marginal_likelihood": numbers(la.log_marginal_likelihood()),
            "mean": numbers(mean),
            "covariance": numbers(variance),
        }
        if likelihood == "classification":
            case["probit"] = numbers(la(new, link_approx="probit"))
        found["cases"][name] = case
    return found


def main() -> None:
    torch.set_default_dtype(torch.float64)
    torch.manual_seed(0)
    x, new = torch.randn(20, 2), torch.randn(4, 2)
    classes = (x[:, 0] > 0).long() + (x[:, 1] > 0.3).long()
    targets = torch.stack([x[:, 0].sin() + 0.3 * torch.randn(20), x.prod(1)], 1)
    classifier = nn.Sequential(nn.Linear(2, 4), nn.Tanh(), nn.Linear(4, 3))
    regressor = nn.Sequential(nn.Linear(2, 4), nn.Tanh(), nn.Linear(4, 2))
    trained(classifier, x, classes, F.cross_entropy)
    trained(regressor, x, targets, F.mse_loss)
    found = {
        "prior_precision": PRIOR_PRECISION,
        "sigma_noise": SIGMA_NOISE,
        "classification": record("classification", classifier, x, classes, new),
        "regression": record("regression", regressor, x, targets, new),
    }
    text = json.dumps(json.loads(json.dumps(found), parse_float=lambda s: round(float(s), 12)))
    Path(__file__).with_suffix(".json").write_text(text + "\n")


if __name__ == "__main__":
    main()
