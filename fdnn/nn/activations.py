"""Activation functions as modules: those that torch has no module for."""

from __future__ import annotations

import torch
from torch import Tensor, nn

from fdnn import activations
from fdnn.initializers import constant
from fdnn.types import Initializer

__all__ = ["GEGLU", "ReGLU", "ReLUSquared", "SwiGLU", "Swish"]


class ReLUSquared(nn.Module):
    """max(x, 0)^2, element by element: `activations.relu_squared` as a module.

    Example:
        >>> ReLUSquared()(torch.tensor([-1.0, 2.0]))
        tensor([0., 4.])

    References:
        So, Mańke, Liu, Dai, Shazeer, Le (2021), "Primer: searching for efficient transformers for
        language modeling".
    """

    def forward(self, x: Tensor) -> Tensor:
        """Apply it to a tensor of any shape."""
        return activations.relu_squared(x)


class _WithBeta(nn.Module):
    """What has a number `beta` that may be learned."""

    def __init__(self, beta: float, learnable: bool):
        super().__init__()
        self.init = float(beta)
        self.beta = nn.Parameter(torch.tensor(self.init)) if learnable else self.init

    @property
    def initializers(self) -> dict[str, Initializer]:
        """What `Model.init` draws by: a learned beta begins where it was told to."""
        return {"beta": constant(self.init)} if isinstance(self.beta, Tensor) else {}

    def extra_repr(self) -> str:
        """Say what beta is, or begins with."""
        learnable = ", learnable=True" if isinstance(self.beta, Tensor) else ""
        return f"beta={self.init}{learnable}"


class Swish(_WithBeta):
    """x * sigmoid(beta * x), element by element: `activations.swish` as a module.

    Args:
        beta: how sharp the bend is; 1 is `nn.SiLU`.
        learnable: whether beta is a parameter, which then begins there; else it is a number.

    Example:
        >>> Swish(0.6)
        Swish(beta=0.6)
        >>> [name for name, _ in Swish(learnable=True).named_parameters()]
        ['beta']

    References:
        Ramachandran, Zoph, Le (2017), "Searching for activation functions".
    """

    def __init__(self, beta: float = 1.0, learnable: bool = False):
        super().__init__(beta, learnable)

    def forward(self, x: Tensor) -> Tensor:
        """Apply it to a tensor of any shape."""
        return activations.swish(x, self.beta)


class SwiGLU(_WithBeta):
    """swish(z1, beta) * z2 of the halves z1 and z2 of a tensor: `activations.swiglu` as a module.

    Args:
        beta: how sharp the bend of swish is.
        learnable: whether beta is a parameter, which then begins there; else it is a number.
        dim: the dimension that is halved.

    Example:
        >>> layer = nn.Sequential(nn.Linear(50, 80), SwiGLU(beta=0.2))
        >>> layer(torch.ones(32, 50)).shape
        torch.Size([32, 40])

    References:
        Shazeer (2020), "GLU variants improve transformer".
    """

    def __init__(self, beta: float = 1.0, learnable: bool = False, dim: int = -1):
        super().__init__(beta, learnable)
        self.dim = dim

    def forward(self, z: Tensor) -> Tensor:
        """Apply it to a tensor whose size along `dim` is even, and halve that."""
        return activations.swiglu(z, self.beta, self.dim)

    def extra_repr(self) -> str:
        """Say what beta is, and which dimension is halved."""
        return f"{super().extra_repr()}, dim={self.dim}"


class GEGLU(nn.Module):
    """gelu(z1) * z2 of the halves z1 and z2 of a tensor: `activations.geglu` as a module.

    Args:
        dim: the dimension that is halved.

    Example:
        >>> GEGLU()(torch.ones(3, 8)).shape
        torch.Size([3, 4])

    References:
        Shazeer (2020), "GLU variants improve transformer".
    """

    def __init__(self, dim: int = -1):
        super().__init__()
        self.dim = dim

    def forward(self, z: Tensor) -> Tensor:
        """Apply it to a tensor whose size along `dim` is even, and halve that."""
        return activations.geglu(z, self.dim)

    def extra_repr(self) -> str:
        """Say which dimension is halved."""
        return f"dim={self.dim}"


class ReGLU(nn.Module):
    """relu(z1) * z2 of the halves z1 and z2 of a tensor: `activations.reglu` as a module.

    Args:
        dim: the dimension that is halved.

    Example:
        >>> ReGLU()(torch.ones(3, 8)).shape
        torch.Size([3, 4])

    References:
        Shazeer (2020), "GLU variants improve transformer".
    """

    def __init__(self, dim: int = -1):
        super().__init__()
        self.dim = dim

    def forward(self, z: Tensor) -> Tensor:
        """Apply it to a tensor whose size along `dim` is even, and halve that."""
        return activations.reglu(z, self.dim)

    def extra_repr(self) -> str:
        """Say which dimension is halved."""
        return f"dim={self.dim}"
