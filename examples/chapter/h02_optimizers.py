"""H2: which optimizer is best, if each may have its own learning rate?

    python examples/chapter/h02_optimizers.py            # 10 arms: 9 rates, then 20 seeds
    python examples/chapter/h02_optimizers.py --fast

The chapter's notebook trains one seed of each optimizer at the same learning rate, 0.05. Here each
arm's rate is chosen on validation first; then it is tried with other seeds, at that rate and at the
chapter's.
"""

from __future__ import annotations

from typing import Any

from _chapter import parse, publish, run
from _fashion_mnist import load, stack
from _optimizer_findings import RATE, At, best_rate, claims, draw, tables
from torch import nn

from fdnn import data, functionalize, initializers, losses, metrics, optim, study, train

PROTOCOL = """
The net 784-100-100-100-10 (ReLU, He) on Fashion-MNIST (55 000 images to train on, 5 000 to
validate, 10 000 to test), cross-entropy, 10 epochs in batches of 32, constant rate. Momentum 0.9;
RMSProp with alpha 0.9; AdamW with weight decay 1e-5; all else torch's defaults. First nine rates,
from 1e-4 to 1, three seeds each: an arm's best rate has the highest mean validation accuracy after
the last epoch. Then 20 other seeds, at the best rate and at the chapter's 0.05. Arms of a seed
share its start and its batches. "Early loss" is the training loss averaged over the first three
epochs, at the rate that ends best. A run that diverged counts as a guess, 10 %. Families of
comparisons are corrected by Holm. A tie means: equal within 0.3 points (of loss: 0.01), a margin
set before any run.
"""
ARMS: dict[str, dict[str, Any]] = {
    "SGD": {"optimizer": "sgd"},
    "momentum": {"optimizer": "sgd", "momentum": 0.9},
    "Nesterov": {"optimizer": "sgd", "momentum": 0.9, "nesterov": True},
    "AdaGrad": {"optimizer": "adagrad"},
    "RMSProp": {"optimizer": "rmsprop", "alpha": 0.9},
    "Adam": {"optimizer": "adam"},
    "AdaMax": {"optimizer": "adamax"},
    "NAdam": {"optimizer": "nadam"},
    "AdamW": {"optimizer": "adamw", "weight_decay": 1e-5},
    "RAdam": {"optimizer": "radam"},
}
RATES = [1e-4, 3e-4, 1e-3, 3e-3, 1e-2, 3e-2, 0.1, 0.3, 1.0]
TUNING_SEEDS = [100, 101, 102]  # none of those that are reported


def main() -> None:
    args = parse(__doc__, seeds=20)
    splits, _ = load(args)
    if args.fast:
        splits = data.Splits(*(data.Batch(*(x[:2000] for x in part)) for part in splits))
    measures = {"accuracy": metrics.accuracy(), "loss": metrics.cross_entropy()}

    def experiment(optimizer: str, epochs: int, **options: Any) -> study.Experiment:
        model = functionalize(stack(splits, 3, nn.ReLU))
        return study.training(
            model,
            train.supervised(model, losses.cross_entropy),
            getattr(optim, optimizer)(**options),
            splits.train,
            epochs=epochs,
            evaluate=train.evaluator(model, measures, valid=splits.valid, test=splits.test),
            weight=initializers.he_uniform(),
            bias=initializers.zeros,
        )

    arms = {name: {"epochs": 1 if args.fast else 10} | arm for name, arm in ARMS.items()}
    seeds, rates = (TUNING_SEEDS[:2], [1e-3, 0.1]) if args.fast else (TUNING_SEEDS, RATES)
    tuning = run(args, "rates", experiment, arms=arms, seeds=seeds, sweep={"lr": rates})
    best = {name: best_rate(tuning, name) for name in arms}
    reported = {
        name: run(args, "seeds", experiment, arms={name: arm}, sweep={"lr": [best[name], RATE]})
        for name, arm in arms.items()
    }
    at_best = {name: At.read(one, name, best[name]) for name, one in reported.items()}
    at_book = {name: At.read(one, name, RATE) for name, one in reported.items()}
    publish(
        args,
        title="H2. Optimizers, each at its own rate",
        protocol=PROTOCOL,
        claims=claims(tuning, at_best, at_book),
        tables=tables(tuning, at_best, at_book),
        figure=draw(tuning, at_best, at_book),
        studies=[tuning, *reported.values()],
        numbers={"best rates": best},
    )


if __name__ == "__main__":
    main()
