"""The contract's rows of `fdnn.model`."""

from __future__ import annotations

from contracts.shared import MODEL, Row, applied

ROWS: dict[str, Row] = {
    "functionalize": applied(MODEL),
}

EXEMPT: dict[str, str] = {
    "jit": "compiles; donation is tested with it",
    "model.functionalize": "is fdnn.functionalize",
}
