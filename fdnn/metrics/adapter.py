"""torchmetrics as pure state: the metric is copied, the state laid into the copy and read back."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor

from fdnn.metrics.metric import Metric

if TYPE_CHECKING:
    import torchmetrics  # at run time where it is used: it takes longer to import than torch

__all__ = ["from_torchmetrics"]

# What torchmetrics itself writes down on a metric besides its state.
_BOOKKEEPING = {"_cache", "_computed", "_forward_cache", "_is_synced", "_update_count"}


def from_torchmetrics(metric: torchmetrics.Metric) -> Metric:
    """Make a metric of torchmetrics pure.

    Args:
        metric: any that keeps its state where torchmetrics' `add_state` puts it, also sums and
            other compositions of such. It is copied, reset, and never touched.

    Returns:
        A metric whose state is a dict of tensors, and of lists of tensors that grow with every
        update where torchmetrics keeps all examples (an exact AUROC); `update(state, output,
        target)` calls torchmetrics with `(output, target)`.

    Raises:
        TypeError: `metric` is not one; a collection wants one call for each of its members.
        ValueError: the metric keeps state elsewhere (when used), so that it cannot be pure.
        RuntimeError: under `vmap`, which most of torchmetrics does not support. `train.evaluate`
            measures the lanes of a stacked state one after the other (`in_lanes`).

    Example:
        >>> from torchmetrics.regression import R2Score
        >>> metric = from_torchmetrics(R2Score())
        >>> x = torch.tensor([1.0, 2.0, 3.0])
        >>> metric.compute(metric.update(metric.init(), x, x))
        tensor(1.)
    """
    import torchmetrics

    if not isinstance(metric, torchmetrics.Metric):
        raise TypeError(
            f"`metric` must be a torchmetrics.Metric, got {type(metric).__name__}"
            " (of a collection, pass each member by itself)"
        )
    pristine = metric.clone()
    pristine.reset()

    def init() -> dict[str, Any]:
        return _read(pristine)

    def update(state: dict[str, Any], output: Any, target: Any) -> dict[str, Any]:
        worker = _restore(pristine, state, _device(output))
        _call(worker, "update", output, target)
        return _read(worker)

    def compute(state: dict[str, Any]) -> Any:
        return _call(_restore(pristine, state), "compute")

    return Metric(init, update, compute, vmaps=False)


def _parts(metric: torchmetrics.Metric) -> list[tuple[str, torchmetrics.Metric]]:
    """The metric and those it is composed of, each under the prefix of its state's names."""
    import torchmetrics

    return [
        (f"{path}." if path else "", part)
        for path, part in metric.named_modules()
        if isinstance(part, torchmetrics.Metric)
    ]


def _read(metric: torchmetrics.Metric) -> dict[str, Any]:
    """Copy the state out."""
    return {
        prefix + name: value.clone() if isinstance(value, Tensor) else list(value)
        for prefix, part in _parts(metric)
        for name, value in part.metric_state.items()
    }


def _restore(
    pristine: torchmetrics.Metric, state: dict[str, Any], device: torch.device | None = None
) -> torchmetrics.Metric:
    """A copy of the metric that has the state, on `device` or else where the state is."""
    worker = pristine.clone()
    for prefix, part in _parts(worker):
        for name in part.metric_state:
            value = state[prefix + name]
            device = device or _device(value)
            setattr(part, name, value.clone() if isinstance(value, Tensor) else list(value))
        part._update_count = 1  # `compute` need not warn of a state that was made elsewhere
    return worker if device in (None, worker.device) else worker.to(device)


def _device(value: Any) -> torch.device | None:
    """Where a tensor is, or the first of several."""
    several = value if isinstance(value, list) else [value]
    return next((one.device for one in several if isinstance(one, Tensor)), None)


def _call(metric: torchmetrics.Metric, method: str, *args: Any) -> Any:
    """Run `update` or `compute`, and see that it wrote nothing that a state does not hold."""
    before = _hidden(metric)
    try:
        result = getattr(metric, method)(*args)
    except RuntimeError as err:
        if "vmap" not in str(err) and "batching rule" not in str(err).lower():
            raise
        raise RuntimeError(
            f"torchmetrics' {type(metric).__name__} does not run under vmap "
            f"({str(err).splitlines()[0]}). Use a metric of "
            "fdnn.metrics (accuracy, cross_entropy, mean_squared_error, ...), or "
            "`metrics.in_lanes`, which measures one lane after the other."
        ) from err
    after = _hidden(metric)
    changed = [name for name in after if after[name] is not before.get(name)]
    if changed:
        raise ValueError(
            f"torchmetrics' {type(metric).__name__} keeps state outside `add_state`, in "
            f"{', '.join(changed)}, so that it cannot be made pure; use it as it is"
        )
    return result


def _hidden(metric: torchmetrics.Metric) -> dict[str, Any]:
    """All attributes that are neither state nor torchmetrics' bookkeeping."""
    return {
        prefix + name: value
        for prefix, part in _parts(metric)
        for name, value in {**vars(part), **part._buffers}.items()
        if name not in _BOOKKEEPING and name not in part.metric_state
    }
