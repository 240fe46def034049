"""Optimizers, steps, `fit`: what a user's type checker knows of them."""

from collections.abc import Callable, Mapping
from typing import Any, assert_type

import torch
import torch.nn.functional as F
from torch import Tensor, nn, vmap

import fdnn
from fdnn import data, initializers, metrics, optim, random, schedules, train, uncertainty
from fdnn.optim import OptState
from fdnn.train import TrainState
from fdnn.types import GradientTransformation

model = fdnn.functionalize(nn.Linear(64, 10))
params, buffers = model.init(random.key(0))

# Optimizers: torch's, chains, ones with schedules, wrappers.
tx = optim.adamw(lr=1e-3)
assert_type(tx.init(params), OptState)
assert_type(tx.total_steps, int | None)
clipped = optim.chain(optim.clip_by_global_norm(1.0), optim.sgd(lr=lambda count: 0.1 / (1 + count)))
assert_type(clipped.init(params), OptState)
assert_type(clipped.update(params, clipped.init(params))[1], OptState)
decaying: GradientTransformation = optim.sgd(lr=schedules.exponential(0.1, gamma=0.9))
looking: GradientTransformation = optim.lookahead(tx)

grads = {name: torch.ones_like(value) for name, value in params.items()}
params, opt_state = optim.step(tx, params, grads, tx.init(params))
assert_type(params, dict[str, Tensor])
assert_type(opt_state, OptState)
assert_type(optim.diagnostics(opt_state), dict[str, Tensor])
assert_type(optim.set_hyperparams(opt_state, lr=0.1), OptState)

# One step, one run.
step = train.make_step(train.supervised(model, F.cross_entropy), tx)
assert_type(step.total_steps, int | None)
state = train.init(model, tx, random.key(0), weight=initializers.he_normal(nonlinearity="relu"))
assert_type(state, TrainState)
batch = torch.rand(8, 64), torch.randint(10, (8,))
state, info = step(state, batch)
assert_type(state, TrainState)
assert_type(state.count, Tensor)
assert_type(info, dict[str, Tensor])

# Many runs, compiled: the signature stays.
runs = vmap(lambda key: train.init(model, tx, key))(random.split(random.key(1), 2))
assert_type(runs, TrainState)
each = vmap(step, in_dims=(0, None))
fast = fdnn.jit(each, donate_argnums=0)
assert_type(each(runs, batch), tuple[TrainState, dict[str, Tensor]])
assert_type(fast(runs, batch), tuple[TrainState, dict[str, Tensor]])

# fit, evaluate, predict.
splits = data.digits()
assert_type(splits.train.inputs, Tensor)
measure = train.evaluator(model, {"accuracy": metrics.accuracy()}, valid=splits.valid)
assert_type(measure, Callable[[TrainState], dict[str, Tensor]])
runs, history = train.fit(
    step,
    runs,
    batch,
    epochs=1,
    evaluate=measure,
    monitors={"stop": train.early_stopping("valid_accuracy", mode="max", patience=3)},
    compile=False,
    progress=False,
)
assert_type(runs, TrainState)
assert_type(history, dict[str, Tensor])
found = train.evaluate(model, runs, splits.test, {"accuracy": metrics.accuracy()})
assert_type(found, dict[str, Tensor])
assert_type(train.predict(model, runs, splits.test.inputs), Any)


# A step of one's own is a step.
def descend(state: TrainState, batch: Any) -> tuple[TrainState, dict[str, Tensor]]:
    return state._replace(count=state.count + 1), {"loss": torch.zeros(())}


train.fit(descend, state, batch, epochs=1, compile=False, progress=False)


def evaluate(state: TrainState) -> Mapping[str, Tensor]:
    return {"steps": state.count}


train.fit(step, state, batch, epochs=1, evaluate=evaluate, compile=False, progress=False)
logits = train.predict(model, state, splits.test.inputs)
assert_type(uncertainty.predictive_entropy(logits.softmax(-1)), Tensor)
