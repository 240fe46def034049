"""A residual connection around modules."""

from __future__ import annotations

from torch import Tensor, nn

__all__ = ["Residual"]


class Residual(nn.Module):
    """x + f(x), where f runs the given modules one after the other.

    Args:
        *modules: what f is made of. Its output has the shape of x.
        shortcut: a module in the place of the plain x, where f changes the shape: shortcut(x) +
            f(x).

    Attributes:
        body: the modules, an `nn.Sequential`.
        shortcut: the module beside it, or None.

    Raises:
        ValueError: there are no modules; or, when called, the two shapes differ (they are not
            broadcast).

    Example:
        >>> import torch
        >>> block = Residual(nn.Linear(4, 4), nn.ReLU())
        >>> block(torch.ones(2, 4)).shape
        torch.Size([2, 4])
        >>> wider = Residual(nn.Linear(4, 8), nn.ReLU(), shortcut=nn.Linear(4, 8, bias=False))
        >>> wider(torch.ones(2, 4)).shape
        torch.Size([2, 8])

    References:
        He, Zhang, Ren, Sun (2016), "Deep residual learning for image recognition".
    """

    def __init__(self, *modules: nn.Module, shortcut: nn.Module | None = None):
        super().__init__()
        if not modules:
            raise ValueError("`modules` must hold at least one module, got none")
        self.body = nn.Sequential(*modules)
        self.shortcut = shortcut

    def forward(self, x: Tensor) -> Tensor:
        """Add what the modules make of `x` to `x`, or to what `shortcut` makes of it."""
        beside: Tensor = x if self.shortcut is None else self.shortcut(x)
        y: Tensor = self.body(x)
        if y.shape != beside.shape:
            what = "the input" if self.shortcut is None else "the output of `shortcut`"
            raise ValueError(
                f"{what} must have the shape of what the modules return, got {tuple(beside.shape)} "
                f"and {tuple(y.shape)}; `shortcut` may change it: nn.Linear, or nn.Conv2d with "
                "kernel_size=1"
            )
        return beside + y
