"""What normalization costs: compiled training steps of a deep network, with and without it.

    python benchmarks/normalization.py [--lanes 1 5 32] [--rounds 15] [--threads N] [--out FILE]

20 hidden layers of 100 SiLU units on 784 inputs and 10 classes, NAdam on batches of 128: plain,
with batch norm, with torch's kernel for it instead of what fdnn compiles, and with layer norm. One
or many seeds at once under `fdnn.jit(vmap(step))`.

Contenders take turns; the table shows medians over rounds of microseconds a call, and of the ratio
to the plain network within the round. Compilation comes before.
"""

from __future__ import annotations

import argparse
import json
from pathlib import Path
from typing import Any

import torch
import torch.nn.functional as F
from _turns import Contender, measure, report, stepping
from torch import Tensor, nn, vmap

import fdnn
from fdnn import functionalize, optim, random, train
from fdnn.nn import MLP

TX = optim.nadam(lr=1e-3)
BATCH_SIZE, WIDTH = 128, 100
ARMS: dict[str, Any] = {
    "plain": None,
    "batch norm": "batch",
    "torch's batch norm": "batch",
    "layer norm": "layer",
}


class TorchBatchNorm(nn.BatchNorm1d):
    """Batch norm by torch's kernel, called below the function that a model looks for."""

    def forward(self, x: Tensor) -> Tensor:
        """Normalize, and move the running statistics."""
        self.num_batches_tracked.add_(1)
        return torch.batch_norm(
            x,
            *(self.weight, self.bias, self.running_mean, self.running_var),
            *(self.training, self.momentum, self.eps, False),
        )


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--lanes", type=int, nargs="+", default=[1, 5, 32])
    parser.add_argument("--depth", type=int, default=20, help="hidden layers")
    parser.add_argument("--rounds", type=int, default=15)
    parser.add_argument("--threads", type=int, default=torch.get_num_threads())
    parser.add_argument("--out", type=Path, help="write the figures as JSON")
    args = parser.parse_args()
    torch.set_num_threads(args.threads)

    figures = []
    for lanes in args.lanes:
        group = {f"{lanes} lanes: {arm}": steps(network(arm, args.depth), lanes) for arm in ARMS}
        figures += measure(group, args.rounds)
    report(figures)
    if args.out:
        written = {"threads": args.threads, "depth": args.depth, "steps": figures}
        args.out.write_text(json.dumps(written, indent=2) + "\n")


def network(arm: str, depth: int) -> nn.Module:
    net = MLP(784, WIDTH, 10, depth=depth, activation="silu", norm=ARMS[arm])
    for layer in net.modules():
        if arm.startswith("torch's") and isinstance(layer, nn.BatchNorm1d):
            layer.__class__ = TorchBatchNorm
    return net


def steps(net: nn.Module, lanes: int) -> Contender:
    model = functionalize(net)
    batch = torch.rand(lanes, BATCH_SIZE, 784), torch.randint(10, (lanes, BATCH_SIZE))
    keys = random.split(random.key(0), lanes)
    state = vmap(lambda key: train.init(model, TX, key))(keys)
    step = train.make_step(train.supervised(model, F.cross_entropy), TX)
    return stepping(fdnn.jit(vmap(step), donate_argnums=0), state, batch)


if __name__ == "__main__":
    main()
