"""The contract's rows of `fdnn.inspect`."""

from __future__ import annotations

import torch.nn.functional as F
from contracts.shared import MODEL, Row, batch, key, nested, two, weights

from fdnn import inspect

ROWS: dict[str, Row] = {
    "inspect.gradient_norms": Row(inspect.gradient_norms, nested, exact=False),
    "inspect.signal_propagation": Row(
        lambda p, b, data, k: inspect.signal_propagation(MODEL, p, b, data, F.cross_entropy, key=k),
        lambda i: (*weights(i), batch(i), *key(i)),
        exact=False,
    ),
    "inspect.weight_update_ratio": Row(inspect.weight_update_ratio, two, exact=False),
}

EXEMPT: dict[str, str] = {
    "inspect.check": "words about values, so not under transforms; its purity is tested with it",
    "inspect.plot_gradient_norms": "a picture",
    "inspect.plot_signals": "a picture",
    "inspect.plot_weight_update_ratio": "a picture",
    "inspect.summary": "a table of numbers; its purity is tested with it",
}
