"""Mixed precision: a model that computes in few bits what can be, and the rest in float32."""

from __future__ import annotations

import dataclasses
from typing import Any, NamedTuple

import torch
from torch import Tensor

from fdnn import tree
from fdnn.model import Model
from fdnn.train.autocast import Autocast
from fdnn.types import Buffers, Key, Params

__all__ = ["Policy", "mixed_precision"]


class Policy(NamedTuple):
    """In which dtypes a model keeps, computes and returns numbers.

    Attributes:
        params: of the parameters, and so of their gradients and of the optimizer's state.
        compute: of matrix products, convolutions and attention.
        output: of what the model returns, and so of the loss.
    """

    params: torch.dtype = torch.float32
    compute: torch.dtype = torch.bfloat16
    output: torch.dtype = torch.float32


_DEFAULT = Policy()


def mixed_precision(model: Model, policy: Policy = _DEFAULT) -> Model:
    """Make the same model compute in mixed precision, as `torch.autocast` does on CUDA.

    `apply` converts the arguments of each operation as it comes. Matrix products, convolutions and
    attention run in the dtype `compute`. Softmax, layer and group norm, exponentials, powers, sums
    and losses run in float32 (in float64 if an argument has that). So does batch norm, with its
    statistics in the dtype in which they are kept; its result is as narrow as its input. All else
    runs in the dtypes that arrive, promoted as usual.

    A parameter is converted anew at each use. Its gradient comes back through the conversion, in
    the dtype in which it is stored. With float16 small gradients vanish on their way, which
    `with_loss_scaling` prevents; bfloat16 has the range of float32 and needs nothing.

    Args:
        model: from `functionalize`.
        policy: the dtypes, floating-point ones. `params` is that of `model.params` and of what
            `init` draws; `apply` takes others as well. Buffers keep theirs.

    Returns:
        An ordinary `Model`, for `train.init`, `supervised`, `fit`, `evaluate` and `transfer`, under
        every transform. The criterion is given the output, and runs outside.

    Raises:
        TypeError: a dtype of `policy` is not a floating-point one.

    Example:
        >>> from torch import nn
        >>> from fdnn import functionalize, random
        >>> model = mixed_precision(functionalize(nn.Linear(4, 2)))
        >>> params, buffers = model.init(random.key(0))
        >>> output, _ = model.apply(params, buffers, torch.full((1, 4), 1.001))
        >>> one, _ = model.apply(params, buffers, torch.ones(1, 4))
        >>> output.dtype, torch.equal(output, one)  # bfloat16 does not tell them apart
        (torch.float32, True)

    References:
        Micikevicius, Narang, Alben, Diamos, Elsen, Garcia, Ginsburg, Houston, Kuchaiev, Venkatesh,
        Wu (2018), "Mixed precision training". Which operation runs in which precision follows
        `torch.autocast` for CUDA, but for batch norm, which torch leaves to the kernel.
    """
    for name, dtype in policy._asdict().items():
        if not dtype.is_floating_point:
            raise TypeError(f"`policy.{name}` must be a floating-point dtype, got {dtype}")
    fields = {field.name: getattr(model, field.name) for field in dataclasses.fields(Model)}
    fields["params"] = tree.cast(model.params, policy.params)
    return MixedPrecisionModel(**fields, policy=policy)


@dataclasses.dataclass(frozen=True, eq=False, repr=False)
class MixedPrecisionModel(Model):
    """A model whose `apply` runs by a policy; made by `mixed_precision`."""

    policy: Policy = _DEFAULT

    def apply(
        self,
        params: Params,
        buffers: Buffers,
        *args: Any,
        key: Key | None = None,
        train: bool = False,
        **kwargs: Any,
    ) -> tuple[Any, Buffers]:
        """Run the forward pass as a pure function; as `Model.apply`."""
        with Autocast(self.policy.compute):
            output, buffers = Model.apply(
                self, params, buffers, *args, key=key, train=train, **kwargs
            )
        return tree.map(self._returned, output), buffers

    def _returned(self, x: Any) -> Any:
        is_float = isinstance(x, Tensor) and x.is_floating_point()
        return x.to(self.policy.output) if is_float else x

    def __repr__(self) -> str:
        dtypes = [str(dtype).removeprefix("torch.") for dtype in self.policy]
        return f"{super().__repr__()[:-1]}, {'/'.join(dtypes)})"
