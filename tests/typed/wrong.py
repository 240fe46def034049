"""Mistakes that a type checker must find; nobody runs this.

mypy counts an ignore that ignores nothing as an error (`warn_unused_ignores`, part of `strict`), so
each line below is a test that the mistake on it is seen.
"""

import torch.nn.functional as F
from torch import nn, vmap

import fdnn
from fdnn import metrics, optim, random, study, train, tree

model = fdnn.functionalize(nn.Linear(4, 2))
tx = optim.sgd(lr=0.1)
step = train.make_step(train.supervised(model, F.cross_entropy), tx)
state = train.init(model, tx, random.key(0))
params, buffers = model.init(random.key(0))

fdnn.functionalize({"weight": 1.0})  # type: ignore[arg-type]
model.init(0)  # type: ignore[arg-type]
model.init(random.key(0), weigth=None)  # type: ignore[call-arg]
model.apply(params, train=True)  # type: ignore[call-arg]
optim.sgd(lr="0.1")  # type: ignore[arg-type]
optim.adam(0.1, beta=(0.9, 0.99))  # type: ignore[call-arg]
optim.step(tx, state, params, tx.init(params))  # type: ignore[arg-type]
_ = tx.init(params).learning_rate  # type: ignore[attr-defined]
train.make_step(model, tx)  # type: ignore[arg-type]
train.init(model, tx, random.key(0), weights=None)  # type: ignore[call-arg]
step(params, None)  # type: ignore[arg-type]
fdnn.jit(vmap(step))(params, None)  # type: ignore[arg-type]
train.fit(step, params, None, epochs=1)  # type: ignore[arg-type]
train.fit(step, state, None)  # type: ignore[call-arg]
train.evaluate(model, state, None, {"accuracy": metrics.accuracy})  # type: ignore[dict-item]
study.run(lambda: model, arms={"a": {}}, seeds=2)  # type: ignore[arg-type,return-value]
tree.unstack(params).keys()  # type: ignore[attr-defined]
