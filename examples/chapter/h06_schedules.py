"""H6: do learning-rate schedules beat a constant rate, and does 1cycle beat the others?

    python examples/chapter/h06_schedules.py            # 7 arms, 20 seeds each
    python examples/chapter/h06_schedules.py --fast

Trains the net 784-100-100-100-10 for 10 epochs of plain SGD in batches of 32. All arms of a seed
share its first values and the order of its batches.
"""

from __future__ import annotations

from typing import Any

import matplotlib.pyplot as plt
from _chapter import Claim, judge, parse, publish, run, summary_rows
from _fashion_mnist import load, stack
from torch import nn

from fdnn import functionalize, initializers, losses, metrics, optim, schedules, study, train

PROTOCOL = """
The net 784-100-100-100-10 (ReLU, He) on Fashion-MNIST, 10 epochs in batches of 32, cross-entropy.
Every arm is plain SGD but for its learning rate: constant 0.05; exponential, times 0.9 each epoch;
cosine from 0.05 to 0.001; 1cycle up to 0.1 and to 0.2. torch's `OneCycleLR` also moves the
momentum (0.95 to 0.85 and back), even of an optimizer that was built without; "with momentum" are
those arms, at the same peak and at one tenth of it. Arms of a seed share its start and its batches.
Test accuracy of the last epoch, no choice by validation.
"""


def main() -> None:
    args = parse(__doc__, seeds=20)
    epochs = 2 if args.fast else 10
    splits, _ = load(args)
    measures = {"accuracy": metrics.accuracy(), "loss": metrics.cross_entropy()}
    per_epoch = -(-len(splits.train.targets) // 32)
    total = epochs * per_epoch

    def cycle(peak: float) -> dict[str, Any]:
        return {"lr": schedules.one_cycle(peak, total_steps=total)}

    momentum = schedules.one_cycle_momentum(total_steps=total)
    settings: dict[str, dict[str, Any]] = {
        "constant": {"lr": 0.05},
        "exponential": {"lr": schedules.step(0.05, per_epoch, gamma=0.9)},
        "cosine": {"lr": schedules.cosine_annealing(0.05, T_max=total, eta_min=0.001)},
        "1cycle 0.1": cycle(0.1),
        "1cycle 0.2": cycle(0.2),
        "1cycle 0.1 with momentum": cycle(0.1) | {"momentum": momentum},
        "1cycle 0.01 with momentum": cycle(0.01) | {"momentum": momentum},
    }

    def experiment(schedule: str, epochs: int) -> study.Experiment:
        model = functionalize(stack(splits, 3, nn.ReLU))
        return study.training(
            model,
            train.supervised(model, losses.cross_entropy),
            optim.sgd(**settings[schedule]),
            splits.train,
            epochs=epochs,
            evaluate=train.evaluator(model, measures, valid=splits.valid, test=splits.test),
            weight=initializers.he_uniform(),
            bias=initializers.zeros,
        )

    arms = {name: {"schedule": name, "epochs": epochs} for name in settings}
    found = run(args, "schedules", experiment, arms=arms)
    publish(
        args,
        title="H6. Learning-rate schedules",
        protocol=PROTOCOL,
        claims=claims(found),
        tables={
            "Test accuracy, per cent": summary_rows(found, "test_accuracy"),
            "Test loss": summary_rows(found, "test_loss", points=False),
        },
        figure=draw(found),
        studies=[found],
    )


def claims(found: study.Study) -> list[Claim]:
    """Judge what the chapter says of schedules."""
    against = found.compare_all("test_accuracy", baseline="constant")
    said = {
        "exponential": "Exponential decay beats a constant rate (printed, one seed: .8828 against "
        ".8724 of validation).",
        "cosine": "So does cosine annealing (no figure printed).",
        "1cycle 0.1": "1cycle beats a constant rate.",
    }
    rows = [
        Claim(text, *judge(against[arm, "constant"], arm, "constant")) for arm, text in said.items()
    ]
    best = found.compare("test_accuracy", "1cycle 0.1", "cosine")
    rows.append(Claim("1cycle is the best of them.", *judge(best, "1cycle 0.1", "cosine")))
    moved = found.compare("test_accuracy", "1cycle 0.1 with momentum", "1cycle 0.1")
    rows.append(
        Claim(
            "`OneCycleLR` up to 0.1 does for plain SGD as it comes. (It turns momentum on: steps "
            "become ten times as large.)",
            *judge(moved, "with momentum", "without"),
        )
    )
    return rows


def draw(found: study.Study) -> plt.Figure:
    figure, (left, right) = plt.subplots(1, 2, figsize=(12, 4.5), layout="constrained")
    found.plot("test_accuracy", ax=left)
    found.plot("valid_loss", "curves", ax=right)
    return figure


if __name__ == "__main__":
    main()
