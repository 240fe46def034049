"""What the studies of uncertainty share: their nets, how these predict, what was measured."""

from __future__ import annotations

import argparse
import hashlib
import json
import time
from collections.abc import Callable
from typing import Any, NamedTuple

import torch
from _chapter import console, run
from torch import Tensor, nn

from fdnn import (
    data,
    functionalize,
    initializers,
    jit,
    losses,
    metrics,
    optim,
    random,
    study,
    train,
    tree,
    uncertainty,
)
from fdnn.model import Model
from fdnn.types import Buffers, Key, Params
from fdnn.uncertainty import Categorical

OWNER = "h03_mc_dropout"  # in whose folder of the store the trained nets are
MEMBERS, RATE = 5, 0.2
MANY, FEW = "55k images, 10 epochs", "5k images, 100 epochs"
MEASURES = {"accuracy": metrics.accuracy(), "loss": metrics.cross_entropy()}
WATCHED = 1000  # validation images on which runs are watched while they train
SEED = 10_000  # of the masks of unit 0, apart from the seeds of training
BATCH, CHUNK = 250, 10  # images, and masks, at once


class Nets(NamedTuple):
    """The trained nets of one training set.

    Attributes:
        found: the study, of the arms "dropout" and "none".
        units: how many ensembles there are in an arm.
        stacked: parameters and buffers by arm, of `units * MEMBERS` seeds.
    """

    found: study.Study
    units: int
    stacked: dict[str, tuple[Params, Buffers]]

    def ensemble(self, arm: str, unit: int) -> tuple[Params, Buffers]:
        """Give the nets of seeds `unit`, `unit + units`, ..., of which the first goes alone, too.

        So ensembles share no net, and each has a single net to be compared with.
        """
        return tree.map(lambda leaf: leaf[unit :: self.units], self.stacked[arm])


def network(splits: data.Splits, p: float) -> Model:
    """Build 784-100-100-10 with dropout before each linear layer.

    The names of its parameters do not depend on the rate, so nets of equal seeds begin equal.
    """
    classes, pixels = int(splits.train.targets.max()) + 1, splits.train.inputs[0].numel()
    layers: list[nn.Module] = [nn.Flatten()]
    for inputs in (pixels, 100):
        layers += [nn.Dropout(p), nn.Linear(inputs, 100), nn.ReLU()]
    return functionalize(nn.Sequential(*layers, nn.Dropout(p), nn.Linear(100, classes)))


def trained(args: argparse.Namespace, splits: data.Splits, regime: str) -> Nets:
    """Train the nets of a regime, or find them in the store of the study that owns them."""
    images, epochs = (len(splits.train.targets), 10) if regime == MANY else (5000, 100)
    if args.fast:
        images, epochs = (2000, 1) if regime == MANY else (500, 4)
    watched = data.Batch(*(part[:WATCHED] for part in splits.valid))

    def experiment(
        p: float, images: int, lr: float, momentum: float, **settings: Any
    ) -> study.Experiment:
        model = network(splits, p)
        return study.training(
            model,
            train.supervised(model, losses.cross_entropy),
            optim.sgd(lr=lr, momentum=momentum),
            data.Batch(*(part[:images] for part in splits.train)),
            evaluate=train.evaluator(model, MEASURES, valid=watched),
            weight=initializers.he_uniform(),
            bias=initializers.zeros,
            **settings,
        )

    common = {"images": images, "epochs": epochs, "batch_size": 32, "lr": 0.01, "momentum": 0.9}
    found = run(
        argparse.Namespace(**{**vars(args), "name": OWNER}),
        regime.split()[0],
        experiment,
        arms={"dropout": {"p": RATE, **common}, "none": {"p": 0.0, **common}},
        seeds=args.seeds * MEMBERS,
        keep_parameters=True,
    )
    return Nets(found, args.seeds, {arm: found.parameters(arm) for arm in ("dropout", "none")})


def together(
    model: Model, members: tuple[Params, Buffers], images: Tensor, average: Any = "probabilities"
) -> Categorical:
    """Predict by an ensemble, or by one net if it has one member. In float64, as all below."""
    outputs = [uncertainty.deep_ensemble(model, *members, x) for x in images.split(BATCH)]
    return uncertainty.categorical(torch.cat(outputs, 1).double(), average)


def sampler(model: Model, args: argparse.Namespace) -> Callable[..., Any]:
    """Make `sample(params, buffers, images, key=, passes=)`: MC dropout of one net.

    It gives the moments of its passes, of which `probabilities` and `logits` both make a
    distribution. They come in parts of one size, which are compiled once.
    """
    stream = uncertainty.categorical_stream()

    @torch.no_grad()
    def part(params: Params, buffers: Buffers, images: Tensor, state: Any, key: Key) -> Any:
        logits = uncertainty.mc_dropout(
            model, params, buffers, images, key=key, num_samples=CHUNK, chunk_size=None
        )
        return stream.update(state, logits.double())

    more = part if args.no_compile else jit(part)
    classes = model.params["8.bias"].shape

    def sample(params: Params, buffers: Buffers, images: Tensor, *, key: Key, passes: int) -> Any:
        states, missing = [], -len(images) % BATCH
        padded = torch.cat([images, images.new_zeros(missing, *images.shape[1:])])
        for place, x in enumerate(padded.split(BATCH)):
            state = stream.init(torch.zeros(len(x), *classes, dtype=torch.float64))
            for own in random.split(random.fold_in(key, place), passes // CHUNK):
                state = more(params, buffers, x, state, own)
            states.append(state)
        return states[0]._replace(
            mean=torch.cat([state.mean for state in states])[: len(images)],
            m2=torch.cat([state.m2 for state in states])[: len(images)],
        )

    return sample


def probabilities(state: Any) -> Categorical:
    """Average the probabilities of all passes."""
    found: Categorical = uncertainty.categorical_stream().compute(state)
    return found


def logits(state: Any) -> Categorical:
    """Average the logits of all passes."""
    found: Categorical = uncertainty.categorical_stream("logits").compute(state)
    return found


def at_temperature(probs: Tensor, valid_probs: Tensor, valid_targets: Tensor) -> Tensor:
    """Scale probabilities by the temperature that fits those of the validation images best."""
    temperature = uncertainty.temperature_scaling(valid_probs.log(), valid_targets)
    return uncertainty.apply_temperature(probs.log(), temperature).softmax(-1)


def scores(probs: Tensor, targets: Tensor) -> dict[str, float]:
    """Measure how good predicted probabilities are; `excess` is mean confidence - accuracy."""
    accuracy = (probs.argmax(-1) == targets).double().mean()
    found = {
        "accuracy": accuracy,
        "nll": uncertainty.nll(probs, targets),
        "brier": uncertainty.brier_score(probs, targets),
        "ece": uncertainty.expected_calibration_error(probs, targets, num_bins=15),
        "excess": uncertainty.max_probability(probs).mean() - accuracy,
    }
    return {name: value.item() for name, value in found.items()}


def remembered(
    args: argparse.Namespace, name: str, about: Any, compute: Callable[[], dict[str, Any]]
) -> dict[str, Any]:
    """Compute once, and keep it beside the store, with the seconds that it took.

    A change of `compute` itself goes unseen: delete the file then.

    Args:
        args: from `parse`.
        name: of what is computed.
        about: a tree with all that it depends on: parameters, numbers, names. If it changes, it is
            computed anew.
        compute: gives what can be written as JSON.
    """
    path = None if args.store is None else args.store / args.name / "measured.json"
    there = json.loads(path.read_text()) if path is not None and path.exists() else {}
    mark = hashlib.sha256()
    for leaf in tree.leaves(about):
        mark.update(leaf.numpy().tobytes() if isinstance(leaf, Tensor) else repr(leaf).encode())
    digest = mark.hexdigest()
    if there.get(name, {}).get("about") != digest:
        began = time.perf_counter()
        found = compute()
        there[name] = found | {"about": digest, "seconds": time.perf_counter() - began}
        console.print(f"{name}: {there[name]['seconds']:.0f} s")
        if path is not None:
            path.parent.mkdir(parents=True, exist_ok=True)
            half = path.with_suffix(".part")
            half.write_text(json.dumps(there))
            half.replace(path)
    kept: dict[str, Any] = there[name]
    return kept
