"""The contract's rows of `fdnn.transfer`."""

from __future__ import annotations

from typing import Any

import torch
import torch.nn.functional as F
from contracts.shared import MODEL, TX, Row, applied, batch, key, normal, state, weights
from torch import Tensor

from fdnn import optim, random, train, transfer


def released(grads: Any, release: Tensor) -> Any:
    tx = transfer.gradual_unfreezing(optim.sgd(0.1), [(lambda path, leaf: path == "a", release)])
    return tx.update(grads, tx.init(grads), grads)


FROZEN = transfer.freeze(MODEL, transfer.by_depth(MODEL, 2))


FROZEN_STEP = train.make_step(train.supervised(FROZEN, F.cross_entropy), TX)


ADAPTED = transfer.lora(MODEL, 2, 4.0)


TRUNCATED = transfer.truncate(MODEL)


NEW_HEAD = transfer.replace_head(MODEL, 2)


ROWS: dict[str, Row] = {
    "transfer.carry_over": Row(
        lambda state: transfer.carry_over(state, FROZEN, TX), lambda i: (state(i),)
    ),
    "transfer.freeze": Row(
        FROZEN_STEP, lambda i: (train.init(FROZEN, TX, random.key(i)), batch(i)), exact=False
    ),
    "transfer.gradual_unfreezing": Row(
        released,
        lambda i: ({"a": normal(i, 3), "b": normal(i + 9, 2)}, torch.tensor(i)),
        exact=False,
    ),
    "transfer.init": Row(
        lambda k, p, b: transfer.init(NEW_HEAD, TX, k, {**p, **b}),
        lambda i: (*key(i + 9), *weights(i)),
    ),
    "transfer.lora": Row(
        lambda k, x: ADAPTED.apply(*ADAPTED.init(k), x, key=k, train=True),
        lambda i: (*key(i), batch(i)[0]),
        exact=False,
    ),
    "transfer.merge": Row(
        lambda k: transfer.merge(ADAPTED, *ADAPTED.init(k, weight=None)), key, exact=False
    ),
    "transfer.reuse": Row(
        lambda k, p, b: transfer.reuse({**p, **b}, NEW_HEAD, key=k)[:2],
        lambda i: (*key(i + 9), *weights(i)),
    ),
    "transfer.truncate": applied(TRUNCATED),
}

EXEMPT: dict[str, str] = {
    "transfer.by_depth": "a predicate from a model",
    "transfer.by_type": "a predicate from a model",
    "transfer.discriminative": "is `optim.partition`; tested with it",
    "transfer.features": "a loop over batches with a copied module; `truncate` has a row",
    "transfer.layers": "names from a model",
    "transfer.rename": "a function of names",
    "transfer.replace_head": "a model from a model; in the rows of `init` and `reuse`",
    "transfer.unfreeze": "undoes `freeze`; tested with it",
}
