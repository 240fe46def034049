"""Write `preconditioned_golden.json`: trajectories of pytorch-optimizer's Shampoo and SOAP.

Made with pytorch-optimizer 4.1.0 and torch 2.13.0, in an environment of its own:

    python3 -m venv /tmp/ref && /tmp/ref/bin/pip install torch==2.13.0 pytorch-optimizer==4.1.0
    /tmp/ref/bin/python tests/optim/make_preconditioned_golden.py

Its SOAP orthogonalizes in float32; here that is float64, by another name for the dtype, so that
the trajectory can be compared to the last places.
"""

import json
from pathlib import Path
from types import ModuleType

import torch

STEPS = (1, 2, 3, 7, 15, 30)
CASES = {
    "shampoo": {"lr": 0.1, "epsilon": 1e-4},
    "shampoo decay": {"lr": 0.3, "epsilon": 1e-2, "weight_decay": 0.1},
    "soap": {"lr": 3e-3},
    "soap large steps": {"lr": 0.1, "weight_decay": 0.1, "precondition_frequency": 3},
    "soap vectors": {"lr": 0.1, "precondition_1d": True, "shampoo_beta": 0.7},
    "soap every step": {"lr": 0.1, "precondition_frequency": 1, "betas": (0.9, 0.8), "eps": 1e-3},
    "soap sizes": {"lr": 0.1, "max_precondition_dim": 2, "correct_bias": False},
}


def start() -> dict[str, torch.Tensor]:
    shapes = {"matrix": (3, 2), "vector": (2,), "order_3": (2, 3, 2)}
    return {
        name: torch.cos(torch.arange(1.0, 1 + torch.Size(size).numel(), dtype=torch.float64) ** 2)
        .reshape(size)
        .clone()
        for name, size in shapes.items()
    }


def gradient(x: torch.Tensor, t: int) -> torch.Tensor:
    """Of sum(log(1 + x^2)), and noise."""
    place = torch.arange(1, x.numel() + 1, dtype=torch.float64).reshape(x.shape)
    return 2 * x / (1 + x**2) + torch.cos(place * (t + 1) + place**2)


def main() -> None:
    from pytorch_optimizer import SOAP, Shampoo
    from pytorch_optimizer.optimizer import soap

    double = ModuleType("torch")
    double.__dict__.update(vars(torch), float32=torch.float64)
    soap.torch = double

    found = {}
    for name, flags in CASES.items():
        leaves = {path: x.requires_grad_() for path, x in start().items()}
        renamed = {"epsilon": "matrix_eps"}
        kind = SOAP if name.startswith("soap") else Shampoo
        optimizer = kind(leaves.values(), **{renamed.get(k, k): v for k, v in flags.items()})
        found[name] = {}
        for t in range(max(STEPS)):
            for x in leaves.values():
                x.grad = gradient(x.detach(), t)
            optimizer.step()
            if t + 1 in STEPS:
                found[name][t + 1] = {k: x.detach().flatten().tolist() for k, x in leaves.items()}
    Path(__file__).with_name("preconditioned_golden.json").write_text(json.dumps(found, indent=0))


if __name__ == "__main__":
    main()
