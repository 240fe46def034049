"""The mode under which each of a model's operations runs in the precision that suits it.

The lists hold those of `torch.autocast` on CUDA. Casts are made where a model calls torch, above
`vmap` and `grad`, not below them as torch's own are: an operation is the same one alone and in
lanes, on every device, and when compiled.
"""

from __future__ import annotations

import functools
from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor
from torch.overrides import TorchFunctionMode

__all__ = ["Autocast"]

# What profits from few bits: sums of products, which the hardware accumulates in float32.
_COMPUTE = frozenset(
    {
        *("linear", "matmul", "__matmul__", "__rmatmul__", "linalg_matmul", "mm", "bmm", "mv"),
        *("addmm", "addmv", "addr", "addbmm", "baddbmm", "einsum", "chain_matmul"),
        *("linalg_vecdot", "linalg_multi_dot", "prelu"),
        *("conv1d", "conv2d", "conv3d", "conv_tbc"),
        *("conv_transpose1d", "conv_transpose2d", "conv_transpose3d"),
        *("scaled_dot_product_attention", "_scaled_dot_product_attention_math"),
    }
)
# What needs float32 or more: wide ranges, sums of many terms, differences of close numbers.
_WIDE = frozenset(
    {
        *("exp", "expm1", "log", "log10", "log2", "log1p", "pow", "__pow__", "__rpow__"),
        *("reciprocal", "__rdiv__", "__rtruediv__", "rsqrt", "softplus"),
        *("acos", "asin", "tan", "cosh", "sinh", "erfinv"),
        *("softmax", "log_softmax", "softmin", "logsumexp", "sum", "prod", "cumsum", "cumprod"),
        *("layer_norm", "rms_norm", "group_norm", "normalize", "norm", "nuclear_norm", "renorm"),
        *("cosine_similarity", "pairwise_distance", "dist", "pdist", "cdist"),
        *("interpolate", "upsample"),
        *("nll_loss", "cross_entropy", "kl_div", "ctc_loss"),
        *("binary_cross_entropy", "binary_cross_entropy_with_logits"),
        *("l1_loss", "mse_loss", "smooth_l1_loss", "huber_loss"),
        *("gaussian_nll_loss", "poisson_nll_loss", "soft_margin_loss", "multi_margin_loss"),
        *("multilabel_margin_loss", "multilabel_soft_margin_loss", "margin_ranking_loss"),
        *("hinge_embedding_loss", "cosine_embedding_loss", "triplet_margin_loss"),
        *("inverse", "cholesky", "det", "logdet", "slogdet", "stft", "istft"),
        *(f"linalg_{name}" for name in dir(torch.linalg) if f"linalg_{name}" not in _COMPUTE),
        *(f"fft_{name}" for name in dir(torch.fft)),
    }
)
# What wants one dtype and promotes none by itself: the widest of those given.
_ALIKE = frozenset(
    {
        *("addcdiv", "addcmul", "atan2", "bilinear", "cross", "dot", "vdot", "inner", "tensordot"),
        *("lerp", "grid_sample", "index_put", "index_add", "index_copy", "scatter", "scatter_add"),
        *("masked_scatter", "select_scatter", "slice_scatter"),
    }
)
# What writes into its first argument, and wants the dtype of that.
_INTO = frozenset(
    {
        *("index_put_", "index_add_", "index_copy_", "scatter_", "scatter_add_"),
        *("masked_scatter_", "addmm_", "addbmm_", "baddbmm_", "addmv_", "addr_", "lerp_"),
    }
)
# As the wide ones, but the statistics are written to, and the result is as narrow as the input.
_BATCH_NORMS = frozenset({"batch_norm", "instance_norm"})


class Autocast(TorchFunctionMode):
    """Run the operations inside the `with` block in the precision of their kind.

    Args:
        compute: the dtype of matrix products, convolutions and attention.
    """

    def __init__(self, compute: torch.dtype):
        super().__init__()
        self.compute = compute

    def __torch_function__(
        self,
        func: Callable[..., Any],
        types: Any,
        args: tuple[Any, ...] = (),
        kwargs: dict[str, Any] | None = None,
    ) -> Any:
        kwargs = kwargs or {}
        name = getattr(func, "__name__", "")
        if kwargs.get("out") is not None:
            return func(*args, **kwargs)
        dtype: torch.dtype | None
        if name in _COMPUTE:
            dtype = self.compute
        elif name in _WIDE:
            dtype = _widest([args, kwargs], torch.float32)
        elif name in _ALIKE:
            dtype = _widest([args, kwargs], None)
        elif name in _INTO:
            return func(args[0], *_cast(args[1:], args[0].dtype), **_cast(kwargs, args[0].dtype))
        elif name in _BATCH_NORMS:
            return _batch_norm(func, *args, **kwargs)
        else:
            return func(*args, **kwargs)
        return func(*_cast(args, dtype), **_cast(kwargs, dtype))


def _batch_norm(
    func: Callable[..., Tensor],
    input: Tensor,
    running_mean: Tensor | None = None,
    running_var: Tensor | None = None,
    *args: Any,
    **kwargs: Any,
) -> Tensor:
    """Normalize in float32 or more, and write the statistics where they are kept."""
    stored = [running_mean, running_var]
    dtype = _widest([input, stored, args, kwargs], torch.float32)
    used = _cast(stored, dtype)
    output = func(_cast(input, dtype), *used, *_cast(args, dtype), **_cast(kwargs, dtype))
    for kept, new in zip(stored, used, strict=True):
        if kept is not None and kept.dtype != dtype:
            kept.copy_(new)
    return output.to(input.dtype)


def _floats(values: Any) -> list[Tensor]:
    """The floating-point tensors among arguments."""
    if isinstance(values, Tensor):
        return [values] if values.is_floating_point() else []
    if isinstance(values, dict):
        values = list(values.values())
    if not isinstance(values, list | tuple):
        return []
    return [found for value in values for found in _floats(value)]


def _widest(values: Any, least: torch.dtype | None) -> torch.dtype | None:
    """The dtype that holds all floating-point arguments, and `least`."""
    dtypes = [x.dtype for x in _floats(values)] + ([] if least is None else [least])
    return functools.reduce(torch.promote_types, dtypes) if dtypes else None


def _cast(values: Any, dtype: torch.dtype | None) -> Any:
    """Convert the floating-point tensors among arguments."""
    if isinstance(values, Tensor):
        return values.to(dtype) if values.is_floating_point() and dtype is not None else values
    if isinstance(values, dict):
        return {name: _cast(value, dtype) for name, value in values.items()}
    if type(values) in (list, tuple):
        return type(values)(_cast(value, dtype) for value in values)
    return values
