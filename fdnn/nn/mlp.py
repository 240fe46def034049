"""The multilayer perceptron, its weights drawn as its activation asks for."""

from __future__ import annotations

import itertools
import math
from collections import OrderedDict
from collections.abc import Sequence
from typing import Any, Literal

import torch
from torch import Tensor, nn

from fdnn.initializers import for_activation, matching_variance, zeros
from fdnn.nn.naming import Activation, identify
from fdnn.types import Initializer

__all__ = ["MLP"]


class MLP(nn.Module):
    """A stack of hidden layers and a linear output.

    A hidden layer is linear, norm, activation, dropout (or linear, activation, norm, dropout if
    not `norm_first`); what is not asked for is absent. Parameters are called
    "hidden.0.linear.weight", "hidden.0.norm.weight", ..., "output.weight".

    Weights are uniform with the variance of `initializers.for_activation` for the activation that
    follows, biases 0: in `Model.init`, and in the module itself, where torch's own draws, of
    variance 1 / (3 fan_in), are multiplied by a number (sqrt(6) for relu).

    Args:
        in_features: the size of an input.
        hidden_features: the sizes of the hidden layers, or the one size of `depth` layers.
        out_features: the size of an output.
        depth: the number of hidden layers if `hidden_features` is one size; 1 if left out.
        activation: a name ("relu", "leaky_relu", "selu", "silu", "tanh", "swiglu", ...), a module,
            of which every layer gets a copy, a class of modules, or a function of a tensor. Before
            a gated one (glu, swiglu, geglu, reglu) the linear map is twice as wide. One without a
            known name is initialized as relu.
        norm: None, "batch" or "layer".
        norm_first: whether the norm comes before the activation. The linear map before a batch norm
            then has no bias, which would have no effect.
        dropout: the probability with which hidden units are dropped in training; alpha dropout if
            the activation is selu.
        bias: whether the other linear maps have a bias.
        device: where the parameters live.
        dtype: their dtype.

    Attributes:
        hidden: the hidden layers, an `nn.Sequential` of `nn.Sequential`.
        output: the last layer, an `nn.Linear`.

    Raises:
        ValueError: a size is not positive, `depth` is given beside a sequence or is negative,
            `activation` or `norm` is not known, or `dropout` is not in [0, 1].
        TypeError: `activation` is neither name, module nor function.

    Example:
        >>> MLP(784, 100, 10, depth=2, activation="silu", norm="batch", dropout=0.1)
        MLP(
          (hidden): Sequential(
            (0): Sequential(
              (linear): Linear(in_features=784, out_features=100, bias=False)
              (norm): BatchNorm1d(100, eps=1e-05, momentum=0.1, affine=True, bias=True, \
track_running_stats=True)
              (activation): SiLU()
              (dropout): Dropout(p=0.1, inplace=False)
            )
            (1): Sequential(
              (linear): Linear(in_features=100, out_features=100, bias=False)
              (norm): BatchNorm1d(100, eps=1e-05, momentum=0.1, affine=True, bias=True, \
track_running_stats=True)
              (activation): SiLU()
              (dropout): Dropout(p=0.1, inplace=False)
            )
          )
          (output): Linear(in_features=100, out_features=10, bias=True)
        )

    References:
        He, Zhang, Ren, Sun (2015), "Delving deep into rectifiers"; Ioffe, Szegedy (2015), "Batch
        normalization", which puts the norm before the activation.
    """

    def __init__(
        self,
        in_features: int,
        hidden_features: int | Sequence[int],
        out_features: int,
        *,
        depth: int | None = None,
        activation: Activation = "relu",
        norm: Literal["batch", "layer"] | None = None,
        norm_first: bool = True,
        dropout: float = 0.0,
        bias: bool = True,
        device: torch.device | str | None = None,
        dtype: torch.dtype | None = None,
    ):
        super().__init__()
        sizes = [in_features, *_hidden_sizes(hidden_features, depth)]
        for argument, checked in (
            ("in_features", sizes[:1]),
            ("hidden_features", sizes[1:]),
            ("out_features", [out_features]),
        ):
            if not all(size > 0 for size in checked):
                raise ValueError(f"`{argument}` must be positive, got {checked}")
        if norm not in (None, "batch", "layer"):
            raise ValueError(f"`norm` must be None, 'batch' or 'layer', got {norm!r}")
        if not 0.0 <= dropout <= 1.0:
            raise ValueError(f"`dropout` must be in [0, 1], got {dropout}")
        named = identify(activation)
        self._law = (named.name or "relu", named.negative_slope)
        made: dict[str, Any] = {"device": device, "dtype": dtype}

        def layer(fan_in: int, size: int) -> nn.Sequential:
            width = 2 * size if named.halves else size
            centred = norm == "batch" and norm_first  # the norm takes off any bias
            linear = nn.Linear(fan_in, width, bias and not centred, **made)
            _rescale(linear, *self._law)
            after = [("activation", named.new().to(device=device, dtype=dtype))]
            if norm is not None:
                kind = nn.BatchNorm1d if norm == "batch" else nn.LayerNorm
                normed = kind(width if norm_first else size, **made)
                after.insert(0 if norm_first else 1, ("norm", normed))
            if dropout > 0:
                drop = nn.AlphaDropout if named.name == "selu" else nn.Dropout
                after.append(("dropout", drop(dropout)))
            return nn.Sequential(OrderedDict([("linear", linear), *after]))

        self.hidden = nn.Sequential(*(layer(*pair) for pair in itertools.pairwise(sizes)))
        self.output = nn.Linear(sizes[-1], out_features, bias, **made)
        _rescale(self.output, *_LINEAR)

    @property
    def initializers(self) -> dict[str, Initializer]:
        """What `Model.init` draws by: the laws of the weights, and zeros for the biases."""
        laws: dict[str, Initializer] = {}
        for path, module in self.named_modules():
            if isinstance(module, nn.Linear):
                suited, slope = _LINEAR if module is self.output else self._law
                weight = for_activation(suited, negative_slope=slope, distribution="uniform")
                laws |= {f"{path}.weight": weight, f"{path}.bias": zeros}
        return laws

    def forward(self, x: Tensor) -> Tensor:
        """Map (..., in_features) to (..., out_features); with batch norm (N, in_features) only."""
        output: Tensor = self.output(self.hidden(x))
        return output


_LINEAR: tuple[str, float | None] = ("linear", None)


def _hidden_sizes(hidden_features: int | Sequence[int], depth: int | None) -> list[int]:
    if not isinstance(hidden_features, int):
        if depth is not None:
            raise ValueError(
                f"`depth` must be left out if `hidden_features` is a sequence, got {depth}"
            )
        return list(hidden_features)
    if depth is not None and depth < 0:
        raise ValueError(f"`depth` must not be negative, got {depth}")
    return [hidden_features] * (1 if depth is None else depth)


@torch.no_grad()
def _rescale(linear: nn.Linear, suited: str, negative_slope: float | None) -> None:
    """Give torch's draw, U(-1/sqrt(fan_in), 1/sqrt(fan_in)), the variance that it should have."""
    variance = matching_variance(suited, linear.weight.shape, negative_slope=negative_slope)
    linear.weight.mul_(math.sqrt(3 * linear.in_features * variance))
    if linear.bias is not None:
        linear.bias.zero_()
