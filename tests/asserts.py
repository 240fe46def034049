"""Assertions about trees of tensors; a failure names the path."""

from __future__ import annotations

from typing import Any

import torch

from fdnn import tree


def assert_close(found: Any, expected: Any, rtol: float, atol: float) -> None:
    """The same structure, and leaves that differ by rounding."""
    tree.assert_same_structure(expected, found)
    for path, a, b in zip(
        tree.paths(found), tree.leaves(found), tree.leaves(expected), strict=True
    ):
        torch.testing.assert_close(a, b, rtol=rtol, atol=atol, msg=lambda m, p=path: f"{p}: {m}")


def assert_equal(found: Any, expected: Any) -> None:
    """The same structure, and leaves equal to the bit."""
    tree.assert_same_structure(expected, found)
    for path, a, b in zip(
        tree.paths(found), tree.leaves(found), tree.leaves(expected), strict=True
    ):
        assert torch.equal(a, b), path
