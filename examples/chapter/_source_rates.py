"""D7 to D10: the learning rates that the source's loops really use, traced in torch itself."""

from __future__ import annotations

import re
import warnings
from collections.abc import Iterator
from typing import Any, NamedTuple

import matplotlib.pyplot as plt
import torch
import torch.nn.functional as F
from _finding import Finding, decide
from torch import nn
from torch.optim import lr_scheduler as torchs

from fdnn import functionalize, optim, random, schedules, train

# Validation accuracies with three epochs in a row that are no better, as in the printed run.
ACCURACIES = [0.81, 0.83, 0.85, 0.855, 0.86, 0.859, 0.858, 0.857, 0.87, 0.88, 0.88]


class Traces(NamedTuple):
    """What was in use, step by step or epoch by epoch, by label."""

    warmup: dict[str, list[float]]
    plateau: dict[str, list[float]]
    stepped: dict[str, list[float]]
    cycle: dict[str, list[float]]


def optimizer(lr: float, kind: Any = torch.optim.SGD) -> torch.optim.Optimizer:
    """An optimizer of torch over one parameter, which never gets a gradient."""
    return kind([nn.Parameter(torch.zeros(1))], lr=lr)


def trace() -> Traces:
    """Run the source's loops, without the training."""
    warnings.filterwarnings("ignore", "Detected call of `lr_scheduler.step")  # the loop of D7 does
    return Traces(warmup(), plateau(), stepped(), cycle())


def findings(traces: Traces) -> Iterator[Finding]:
    """Judge the four."""
    used, printed, meant = traces.warmup.values()
    yield Finding(
        "D7. The warm-up loop steps its scheduler before it trains, so the rate that it starts "
        "from is never used; and what it prints during warm-up is another object's old value.",
        "That loop in torch: `LinearLR(0.1 to 1, 3 epochs)` of 0.05 and `ReduceLROnPlateau`; "
        "`schedules.warmup`, a function of the epoch, has no order to get wrong.",
        f"used {shown(used[:3])}, printed {shown(printed[:3])}; meant {shown(meant[:4])}.",
        decide(
            close(used, [0.02, 0.035, 0.05, 0.05])
            and close(printed[:3], [0.005] * 3)
            and close(meant[1:], used[:-1])
        ),
    )
    of_lambda, printed, of_linear, ours = traces.plateau.values()
    low = next(i for i, rate in enumerate(printed) if i > 3 and rate < 0.01)  # after that epoch
    two = slice(low, low + 2)
    yield Finding(
        "D8. `LambdaLR` is not the same as `LinearLR` beside `ReduceLROnPlateau`: it sets the rate "
        "anew from its base in each epoch, and so takes the drop back (printed: 0.005 after epoch "
        "8, 0.05 after epoch 9).",
        "Both in torch, on one sequence of accuracies; and fdnn's product, the factor of "
        "`reduce_on_plateau` times `schedules.warmup`.",
        f"`LambdaLR` prints {shown(printed[two])} after epochs {low + 1} and {low + 2}, but used "
        f"{shown(of_lambda[low + 1 : low + 3])} in epochs {low + 2} and {low + 3}; `LinearLR` "
        f"used {shown(of_linear[low + 1 : low + 3])}, fdnn {shown(ours[low + 1 : low + 3])}.",
        decide(
            close(printed[two], [0.005, 0.05])
            and min(of_lambda[4:]) > 0.049
            and of_linear[-1] < 0.0051
            and close(ours, of_linear)
        ),
    )
    rates, betas = traces.stepped["one step each epoch"], traces.stepped["beta1"]
    refusal = refuse()
    yield Finding(
        "D9. The exercise sizes `OneCycleLR` for all batches of 60 epochs (21,120) and steps it "
        "once an epoch: no 1cycle ever ran.",
        "That scheduler stepped 60 times in torch; and `train.fit` with a schedule of another "
        "length than the run.",
        f"rate {min(rates):.2e} to {max(rates):.2e} instead of up to 1e-2, beta1 {min(betas):.4f} "
        f"to {max(betas):.4f}. fdnn: “{refusal}”.",
        decide(max(rates) < 1.01 * min(rates) and min(betas) > 0.9495 and refusal),
    )
    lr, momentum = traces.cycle["learning rate"], traces.cycle["momentum"]
    gaps = max(
        (torch.tensor(theirs, dtype=torch.float64) - schedule(torch.arange(100))).abs().max().item()
        for theirs, schedule in (
            (lr, schedules.one_cycle(0.1, total_steps=100)),
            (momentum, schedules.one_cycle_momentum(total_steps=100)),
        )
    )
    yield Finding(
        "D10. `OneCycleLR` on an SGD without momentum turns momentum on, and pays no heed to the "
        "optimizer's own rate.",
        "`OneCycleLR(max_lr=0.1, total_steps=100)` on `SGD(lr=0.5)` in torch; largest gap to "
        "`schedules.one_cycle` and `one_cycle_momentum`.",
        f"momentum {momentum[0]:.2f}, {min(momentum):.2f}, {momentum[-1]:.2f}; rate {lr[0]:.3g}, "
        f"{max(lr):.3g}, {lr[-1]:.3g}; gap {gaps:.0e}.",
        decide(min(momentum) > 0 and close([lr[0], lr[-1]], [0.004, 4e-7]) and gaps < 1e-12),
    )


def warmup(epochs: int = 6) -> dict[str, list[float]]:
    """D7: the rate used, the rate printed, and the rate meant."""
    sgd = optimizer(0.05)
    rise = torchs.LinearLR(sgd, start_factor=0.1, total_iters=3)
    watch = torchs.ReduceLROnPlateau(sgd, mode="max", patience=2, factor=0.1)
    used, printed = [], []
    for epoch in range(epochs):
        if epoch < 3:
            rise.step()
        used.append(sgd.param_groups[0]["lr"])  # here the source trains
        if epoch >= 3:
            watch.step(0.8 + epoch / 100)
        printed.append(watch.get_last_lr()[0])
    meant = schedules.warmup(0.05, steps=3, start_factor=0.1)
    return {
        "used": used,
        "printed": printed,
        "meant: schedules.warmup": [meant(epoch).item() for epoch in range(epochs)],
    }


def plateau() -> dict[str, list[float]]:
    """D8: warm-up by two schedulers that are said to be the same, beside a plateau."""

    def rise(epoch: int) -> float:
        return min(0.1 + 0.9 * epoch / 3, 1.0)

    def loop(build: Any) -> tuple[list[float], list[float]]:
        sgd = optimizer(0.05)
        warm, used, printed = build(sgd), [], []
        watch = torchs.ReduceLROnPlateau(sgd, mode="max", patience=2, factor=0.1)
        for accuracy in ACCURACIES:
            used.append(sgd.param_groups[0]["lr"])
            watch.step(accuracy)
            printed.append(sgd.param_groups[0]["lr"])
            warm.step()
        return used, printed

    watch = schedules.reduce_on_plateau("max", patience=2)
    warm, state, ours = schedules.warmup(0.05, steps=3, start_factor=0.1), watch.init(), []
    for epoch, accuracy in enumerate(ACCURACIES):
        ours.append((warm(epoch) * state.factor).item())
        state, _ = watch.update(state, accuracy)
    of_lambda, printed = loop(lambda sgd: torchs.LambdaLR(sgd, rise))
    return {
        "LambdaLR, used": of_lambda,
        "LambdaLR, printed": printed,
        "LinearLR, used": loop(lambda sgd: torchs.LinearLR(sgd, 0.1, 1.0, 3))[0],
        "fdnn: a product": ours,
    }


def stepped() -> dict[str, list[float]]:
    """D9: the schedule of 21,120 steps, of which the loop takes 60; and as it was meant."""
    adam = optimizer(0.002, torch.optim.NAdam)
    cycle = torchs.OneCycleLR(adam, max_lr=0.01, total_steps=60 * 352)
    rates, betas = [], []
    for _ in range(60):
        rates.append(adam.param_groups[0]["lr"])
        betas.append(adam.param_groups[0]["betas"][0])
        cycle.step()
    meant = schedules.one_cycle(0.01, total_steps=60 * 352)(torch.arange(0, 60 * 352, 352))
    return {"one step each epoch": rates, "one step each batch": meant.tolist(), "beta1": betas}


def refuse() -> str:
    """What `fit` says to a schedule of another length than the run's."""
    model = functionalize(nn.Linear(2, 1))
    tx = optim.sgd(schedules.one_cycle(0.01, total_steps=60 * 352))
    step = train.make_step(train.supervised(model, F.mse_loss), tx)
    data = torch.zeros(64, 2), torch.zeros(64, 1)
    state = train.init(model, tx, random.key(0))
    try:
        train.fit(step, state, data, epochs=60, batch_size=64, compile=False, progress=False)
    except ValueError as refused:
        return re.sub(r"\s+", " ", str(refused)).split(". ")[0]
    return ""


def cycle() -> dict[str, list[float]]:
    """D10: what `OneCycleLR` does to an SGD that was built without momentum."""
    sgd = optimizer(0.5)
    schedule = torchs.OneCycleLR(sgd, max_lr=0.1, total_steps=100)
    rates, momenta = [], []
    for step in range(100):
        rates.append(sgd.param_groups[0]["lr"])
        momenta.append(sgd.param_groups[0]["momentum"])
        if step < 99:
            schedule.step()
    return {"learning rate": rates, "momentum": momenta}


def draw(traces: Traces) -> plt.Figure:
    """Draw the four, a panel each."""
    figure, axes = plt.subplots(2, 2, figsize=(11, 7.5), layout="constrained")
    titles = (
        "D7. Warm-up stepped before training",
        "D8. Warm-up beside a plateau that drops after epoch 8",
        "D9. 1cycle of 21,120 steps, stepped 60 times",
        "D10. OneCycleLR on SGD(lr=0.5, momentum=0)",
    )
    for ax, title, curves in zip(axes.flat, titles, traces, strict=True):
        shown = {k: v for k, v in curves.items() if k not in ("beta1", "momentum")}
        for (label, values), style in zip(shown.items(), ("o-", "s--", "^:", "x:"), strict=False):
            epochs = range(1, len(values) + 1)
            ax.plot(epochs, values, style if len(values) < 20 else style[1:], label=label, ms=7)
        ax.set(title=title, xlabel="epoch", ylabel="learning rate of the epoch", ylim=(0, None))
        ax.legend(fontsize="small")
    last = axes.flat[3]
    last.set(xlabel="step", ylabel="learning rate")
    right = last.twinx()
    right.plot(range(1, 101), traces.cycle["momentum"], color="C1", ls="--", label="momentum")
    right.set(ylabel="momentum", ylim=(0, 1))
    last.legend(handles=[*last.lines, *right.lines], loc="center right")
    figure.suptitle("The learning rates that the source's loops really use (torch's schedulers)")
    return figure


def close(found: list[float], wanted: list[float]) -> bool:
    """Whether two traces agree for as long as the shorter one is, to rounding."""
    pairs = zip(found, wanted, strict=False)
    return all(abs(a - b) <= 1e-9 * abs(b) for a, b in pairs)


def shown(values: list[float]) -> str:
    return ", ".join(f"{value:.3g}" for value in values)
