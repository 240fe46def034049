"""Write `wrappers_golden.json`: trajectories of the authors' own optimizers, and of others.

Made with schedulefree 1.4.1, torch-adopt 0.1.0, pytorch-optimizer 4.1.0 and torch 2.13.0, in an
environment of its own:

    python3 -m venv /tmp/ref
    /tmp/ref/bin/pip install torch==2.13.0 schedulefree==1.4.1 pytorch-optimizer==4.1.0
    /tmp/ref/bin/pip install --no-deps torch-adopt==0.1.0
    /tmp/ref/bin/python tests/optim/make_wrappers_golden.py

Each case has the parameters after some steps and, of schedulefree, also those of its eval mode.
A learning rate `drop` halves it after 10 steps.
"""

import json
from pathlib import Path

import torch

STEPS = (1, 2, 3, 8, 21, 55)
FULL = {"weight_decay": 0.1, "warmup_steps": 5, "r": 1.0, "weight_lr_power": 1.0}
CASES = {
    "schedule_free_sgd": {"lr": 0.5},
    "schedule_free_sgd full": {"lr": 0.5, "momentum": 0.7, **FULL},
    "schedule_free_sgd drop": {"lr": 0.5, "warmup_steps": 3},
    "schedule_free_adamw": {"lr": 0.05},
    "schedule_free_adamw full": {"lr": 0.1, "betas": (0.8, 0.9), "eps": 1e-3, **FULL},
    "schedule_free_adamw drop": {"lr": 0.1, "r": 0.5},
    "schedule_free momentum": {"lr": 0.1, "momentum": 0.8},
    "adopt": {"lr": 0.1},
    "adopt penalty": {"lr": 0.1, "betas": (0.8, 0.9), "eps": 0.5, "weight_decay": 0.1},
    "adopt decoupled": {"lr": 0.1, "weight_decay": 0.1, "decouple": True, "maximize": True},
    "adopt unclipped": {"lr": 0.1, "clip_lambda": None},
    "ademamix": {"lr": 0.05, "weight_decay": 0.1},
    "ademamix warm": {"lr": 0.05, "alpha": 3.0, "betas": (0.8, 0.9, 0.99), "t_alpha_beta3": 20},
    "lion": {"lr": 0.05},
    "lion decay": {"lr": 0.05, "betas": (0.8, 0.9), "weight_decay": 0.1, "maximize": True},
    "lookahead": {"k": 5, "alpha": 0.5},
    "lookahead slow": {"k": 3, "alpha": 0.2},
}


def start() -> dict[str, torch.Tensor]:
    sizes = {"matrix": (3, 2), "vector": (3,), "scalar": ()}
    return {
        name: torch.cos(torch.arange(1.0, 1 + torch.Size(size).numel(), dtype=torch.float64) ** 2)
        .reshape(size)
        .clone()
        for name, size in sizes.items()
    }


def gradient(x: torch.Tensor, t: int) -> torch.Tensor:
    """Of sum(log(1 + (x - 2)^2)), and noise."""
    place = torch.arange(1, x.numel() + 1, dtype=torch.float64).reshape(x.shape)
    return 2 * (x - 2) / (1 + (x - 2) ** 2) + torch.cos(place * (t + 1) + place**2)


def build(name: str, leaves: list, flags: dict):
    import adopt
    import pytorch_optimizer
    import schedulefree

    if name == "schedule_free_sgd":
        return schedulefree.SGDScheduleFree(leaves, foreach=False, **flags)
    if name == "schedule_free_adamw":
        return schedulefree.AdamWScheduleFree(leaves, foreach=False, **flags)
    if name == "schedule_free momentum":
        # Of torch's optimizers its wrapper works with SGD only: others find the state initialized.
        base = torch.optim.SGD(leaves, lr=flags["lr"], momentum=0.5)
        return schedulefree.ScheduleFreeWrapperReference(base, momentum=flags["momentum"])
    if name == "lookahead":
        base = torch.optim.SGD(leaves, lr=0.1, momentum=0.9)
        return pytorch_optimizer.Lookahead(base, **flags)
    if name == "adopt":
        return adopt.ADOPT(leaves, foreach=False, **flags)
    if name == "ademamix":
        return pytorch_optimizer.AdEMAMix(leaves, weight_decouple=True, **flags)
    return pytorch_optimizer.Lion(leaves, **flags)


def values(leaves: dict) -> dict:
    return {name: x.detach().flatten().tolist() for name, x in leaves.items()}


def main() -> None:
    found = {}
    for case, flags in CASES.items():
        leaves = {path: x.requires_grad_() for path, x in start().items()}
        name = case if case.startswith("schedule_free ") else case.split()[0]
        optimizer = build(name, list(leaves.values()), flags)
        averages = hasattr(optimizer, "train")
        found[case] = {"flags": {k: v for k, v in flags.items()}, "params": {}}
        if averages:
            optimizer.train()
            found[case]["averages"] = {}
        for t in range(max(STEPS)):
            if t == 10 and case.endswith("drop"):
                optimizer.param_groups[0]["lr"] *= 0.5
            for x in leaves.values():
                x.grad = gradient(x.detach(), t)
            optimizer.step()
            if t + 1 in STEPS:
                found[case]["params"][t + 1] = values(leaves)
                if averages:
                    kept = [x.detach().clone() for x in leaves.values()]
                    optimizer.eval()
                    found[case]["averages"][t + 1] = values(leaves)
                    optimizer.train()
                    for x, y in zip(leaves.values(), kept, strict=True):
                        x.data.copy_(y)
    Path(__file__).with_name("wrappers_golden.json").write_text(json.dumps(found) + "\n")


if __name__ == "__main__":
    main()
