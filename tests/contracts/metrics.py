"""The contract's rows of `fdnn.metrics`."""

from __future__ import annotations

from contracts.shared import Row, labels, logits, metric

from fdnn import metrics

ROWS: dict[str, Row] = {
    "metrics.accuracy": metric(metrics.accuracy(), logits, labels),
    "metrics.cross_entropy": metric(metrics.cross_entropy(), logits, labels),
    "metrics.mean_absolute_error": metric(metrics.mean_absolute_error(), logits, logits),
    "metrics.mean_squared_error": metric(metrics.mean_squared_error(), logits, logits),
}

EXEMPT: dict[str, str] = {
    "metrics.in_lanes": "is `vmap`, or a loop; tested with `train.evaluate`",
    "metrics.from_torchmetrics": "does not vmap; its purity is tested with it",
}
