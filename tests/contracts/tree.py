"""The contract's rows of `fdnn.tree`."""

from __future__ import annotations

import torch
from contracts.shared import Row, nested, normal, two

from fdnn import tree

ROWS: dict[str, Row] = {
    "tree.all_finite": Row(tree.all_finite, nested),
    "tree.cast": Row(lambda t: tree.cast(t, torch.float64), nested),
    "tree.column": Row(lambda a, b: tree.column(a, b), two),
    "tree.columns": Row(lambda a, b: tree.columns(a, b), two),
    "tree.combine": Row(lambda t: tree.combine(*tree.partition(t, "a")), nested),
    "tree.global_norm": Row(tree.global_norm, nested, exact=False),
    "tree.leaves": Row(tree.leaves, nested),
    "tree.map": Row(lambda a, b: tree.map(torch.maximum, a, b), two),
    "tree.map_with_path": Row(lambda t: tree.map_with_path(lambda p, x: x * len(p), t), nested),
    "tree.partition": Row(lambda t: tree.partition(t, "b.*"), nested),
    "tree.ravel": Row(lambda t: tree.ravel(t)[1](tree.ravel(t)[0] * 2), nested),
    "tree.refill": Row(lambda t: tree.refill(t, [2 * x for x in tree.columns(t)[0]]), nested),
    "tree.select": Row(lambda t: tree.select(t, "b*"), nested),
    "tree.stack": Row(lambda a, b: tree.stack([a, b]), two),
    "tree.unstack": Row(lambda x: tree.unstack({"x": x}), lambda i: (normal(i, 2, 3),)),
    "tree.where": Row(lambda a, b: tree.where(a["a"].sum() > 0, a, b), two),
    "tree.zeros_like": Row(tree.zeros_like, nested),
}

EXEMPT: dict[str, str] = {
    "tree.assert_same_structure": "returns nothing",
    "tree.paths": "returns names",
}
