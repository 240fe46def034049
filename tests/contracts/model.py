"""The contract's rows of `fdnn.model`."""

from __future__ import annotations

from contracts.shared import MODEL, Row, batch, key, weights

ROWS: dict[str, Row] = {
    "functionalize": Row(
        lambda p, b, x, k: MODEL.apply(p, b, x, key=k, train=True),
        lambda i: (*weights(i), batch(i)[0], *key(i)),
        exact=False,
    ),
}

EXEMPT: dict[str, str] = {
    "jit": "compiles; donation is tested with it",
    "model.functionalize": "is fdnn.functionalize",
}
