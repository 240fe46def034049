"""The contract's rows of `fdnn.data`."""

from __future__ import annotations

from contracts.shared import Row

ROWS: dict[str, Row] = {}

EXEMPT: dict[str, str] = {
    "data.california_housing": "reads files",
    "data.diabetes": "reads files",
    "data.digits": "reads files",
    "data.fashion_mnist": "reads files",
    "data.read_idx": "reads files",
}
