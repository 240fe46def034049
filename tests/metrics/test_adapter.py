import copy

import pytest
import torch
import torchmetrics
from hypothesis import given
from hypothesis import strategies as st
from torchmetrics.classification import (
    MulticlassAccuracy,
    MulticlassAUROC,
    MulticlassCalibrationError,
    MulticlassConfusionMatrix,
    MulticlassF1Score,
)
from torchmetrics.regression import MeanSquaredError, PearsonCorrCoef, R2Score
from torchmetrics.wrappers import MinMaxMetric, Running

from fdnn import metrics

CLASSES = 3
METRICS = {
    "accuracy": (lambda: MulticlassAccuracy(CLASSES), "class"),
    "f1": (lambda: MulticlassF1Score(CLASSES), "class"),
    "confusion": (lambda: MulticlassConfusionMatrix(CLASSES), "class"),
    "exact auroc": (lambda: MulticlassAUROC(CLASSES), "class"),
    "calibration": (lambda: MulticlassCalibrationError(CLASSES), "class"),
    "mse": (MeanSquaredError, "real"),
    "r2": (R2Score, "real"),
    "pearson": (PearsonCorrCoef, "real"),
    "composed": (lambda: MeanSquaredError() + 2 * R2Score(), "real"),
}
every_metric = pytest.mark.parametrize(("make", "kind"), METRICS.values(), ids=METRICS)


def batches(kind, seed, sizes):
    generator = torch.Generator().manual_seed(seed)
    if kind == "real":
        return [
            (torch.randn(size, generator=generator), torch.randn(size, generator=generator))
            for size in sizes
        ]
    data = [
        (
            torch.randn(size, CLASSES, generator=generator).softmax(1),
            torch.randint(CLASSES, (size,), generator=generator),
        )
        for size in sizes
    ]
    return [*data, (torch.full((CLASSES, CLASSES), 1 / CLASSES), torch.arange(CLASSES))]


def content(metric):
    """All that a metric remembers."""
    return copy.deepcopy(
        [(part.metric_state, part._update_count, part._computed) for part in metric.modules()]
    )


@every_metric
@given(seed=st.integers(0, 2**31), sizes=st.lists(st.integers(2, 9), min_size=1, max_size=5))
def test_it_is_torchmetrics_own_value(make, kind, seed, sizes):
    theirs = make()
    ours = metrics.from_torchmetrics(theirs)
    state = ours.init()
    for output, target in batches(kind, seed, sizes):
        state = ours.update(state, output, target)
        theirs.update(output, target)
    torch.testing.assert_close(ours.compute(state), theirs.compute(), rtol=0, atol=0)


@every_metric
def test_neither_the_metric_nor_a_state_is_touched(make, kind):
    first, second, *_ = batches(kind, 0, (5, 6, 7))
    theirs = make()
    theirs.update(*first)
    theirs.compute()
    before = content(theirs)
    ours = metrics.from_torchmetrics(theirs)
    one = ours.update(ours.init(), *first)
    kept = copy.deepcopy(one)
    value = ours.compute(one)
    ours.update(one, *second)
    ours.update(ours.init(), *second)
    torch.testing.assert_close(one, kept, rtol=0, atol=0)
    torch.testing.assert_close(ours.compute(one), value, rtol=0, atol=0)
    torch.testing.assert_close(value, theirs.compute(), rtol=0, atol=0)
    torch.testing.assert_close(content(theirs), before, rtol=0, atol=0)


@every_metric
def test_init_is_of_nothing_seen_whatever_the_metric_saw(make, kind):
    used = make()
    used.update(*batches(kind, 0, (5,))[0])
    fresh = metrics.from_torchmetrics(make()).init()
    torch.testing.assert_close(metrics.from_torchmetrics(used).init(), fresh, rtol=0, atol=0)


def test_composed_states_have_names():
    state = metrics.from_torchmetrics(MeanSquaredError() + PearsonCorrCoef()).init()
    assert {"metric_a.sum_squared_error", "metric_a.total", "metric_b.mean_x"} <= set(state)


def test_the_state_moves_to_the_outputs():
    metric = metrics.from_torchmetrics(MeanSquaredError())
    output = torch.zeros(3, device="meta")
    state = metric.update(metric.init(), output, output)
    assert {value.device.type for value in state.values()} == {"meta"}
    assert metric.compute(state).device.type == "meta"


def test_under_vmap_it_runs_or_says_what_to_do():
    output, target = torch.randn(3, 5), torch.randn(5)
    lanes = {"in_dims": (0, 0, None)}

    ours = metrics.from_torchmetrics(MeanSquaredError())
    state = {name: value.expand(3) for name, value in ours.init().items()}
    together = torch.vmap(ours.compute)(torch.vmap(ours.update, **lanes)(state, output, target))
    torch.testing.assert_close(together, (output - target).square().mean(1))

    for theirs in (R2Score(), PearsonCorrCoef()):
        ours = metrics.from_torchmetrics(theirs)
        state = {name: value.expand(3, *value.shape) for name, value in ours.init().items()}
        with pytest.raises(RuntimeError, match=f"{type(theirs).__name__} does not run under vmap"):
            torch.vmap(ours.compute)(torch.vmap(ours.update, **lanes)(state, output, target))


def test_other_errors_pass_through():
    ours = metrics.from_torchmetrics(MeanSquaredError())
    with pytest.raises(RuntimeError, match="same shape"):
        ours.update(ours.init(), torch.zeros(2), torch.zeros(3))


def test_hidden_state_is_refused():
    x = torch.randn(4)
    running = metrics.from_torchmetrics(Running(MeanSquaredError()))
    with pytest.raises(ValueError, match=r"Running keeps state outside `add_state`, in _num_vals_"):
        running.update(running.init(), x, x)
    extremes = metrics.from_torchmetrics(MinMaxMetric(MeanSquaredError()))
    state = extremes.update(extremes.init(), x, x)
    with pytest.raises(ValueError, match=r"MinMaxMetric keeps state .* in min_val, max_val"):
        extremes.compute(state)


def test_only_a_metric_is_taken():
    collection = torchmetrics.MetricCollection([MeanSquaredError()])
    with pytest.raises(TypeError, match=r"got MetricCollection \(of a collection, pass each"):
        metrics.from_torchmetrics(collection)
    with pytest.raises(TypeError, match="got function"):
        metrics.from_torchmetrics(torchmetrics.functional.mean_squared_error)
