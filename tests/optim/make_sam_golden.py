"""Write `sam_golden.json`: trajectories of the SAM of pytorch-optimizer, with no constant added.

Made with pytorch-optimizer 4.1.0 and torch 2.13.0, in an environment of its own:

    python3 -m venv /tmp/ref
    /tmp/ref/bin/pip install torch==2.13.0 pytorch-optimizer==4.1.0
    /tmp/ref/bin/python tests/optim/make_sam_golden.py
"""

import json
from pathlib import Path

import torch
from pytorch_optimizer import SAM

STEPS = (1, 2, 8, 30)
CASES = {
    "sgd": {"rho": 0.1, "lr": 0.05},
    "sgd adaptive": {"rho": 0.2, "adaptive": True, "lr": 0.05},
    "adam": {"rho": 0.2, "lr": 0.1},
    "adam adaptive": {"rho": 0.5, "adaptive": True, "lr": 0.1},
}


def walk(name: str, flags: dict) -> dict:
    x = torch.tensor([[0.5, -1.2], [2.0, 0.3]], dtype=torch.float64, requires_grad=True)
    y = torch.tensor([-0.7, 1.5, 0.1], dtype=torch.float64, requires_grad=True)
    if name.startswith("sgd"):
        optimizer = SAM([x, y], torch.optim.SGD, perturb_eps=0.0, momentum=0.9, **flags)
    else:
        optimizer = SAM([x, y], torch.optim.Adam, perturb_eps=0.0, **flags)

    def closure():
        optimizer.zero_grad()
        loss = torch.log(1 + (x - 1) ** 2).sum() + (0.1 * x.sum() * y + (y + 0.5) ** 2 / 2).sum()
        loss.backward()
        return loss

    path = {}
    for step in range(1, STEPS[-1] + 1):
        closure()
        optimizer.step(closure)
        if step in STEPS:
            path[step] = {"x": x.tolist(), "y": y.tolist()}
    return {"flags": flags, "path": path}


golden = {name: walk(name, flags) for name, flags in CASES.items()}
Path(__file__).with_name("sam_golden.json").write_text(json.dumps(golden, indent=1) + "\n")
