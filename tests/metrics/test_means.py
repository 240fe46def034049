import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from torch.nn import functional as F
from torchmetrics.classification import MulticlassAccuracy
from torchmetrics.regression import MeanAbsoluteError, MeanSquaredError
from torchmetrics.text import Perplexity

from fdnn import metrics

SIZES = st.lists(st.integers(1, 9), min_size=1, max_size=6)
SEEDS = st.integers(0, 2**31)
IGNORE = 1

METRICS = {
    "accuracy": (metrics.accuracy, "class"),
    "accuracy, top 2": (lambda: metrics.accuracy(2), "class"),
    "accuracy, ignoring": (lambda: metrics.accuracy(ignore_index=IGNORE), "class"),
    "cross_entropy": (metrics.cross_entropy, "class"),
    "cross_entropy, ignoring": (lambda: metrics.cross_entropy(ignore_index=IGNORE), "class"),
    "cross_entropy, float64": (lambda: metrics.cross_entropy(dtype=torch.float64), "class"),
    "mean_squared_error": (metrics.mean_squared_error, "real"),
    "mean_absolute_error": (metrics.mean_absolute_error, "real"),
}
every_metric = pytest.mark.parametrize(("make", "kind"), METRICS.values(), ids=METRICS)


def classes(seed, sizes, count, *, shape=(), lanes=()):
    """Batches of random logits and labels, of the given sizes."""
    generator = torch.Generator().manual_seed(seed)
    return [
        (
            torch.randn(*lanes, size, count, *shape, generator=generator),
            torch.randint(count, (size, *shape), generator=generator),
        )
        for size in sizes
    ]


def reals(seed, sizes, *, lanes=()):
    generator = torch.Generator().manual_seed(seed)
    return [
        (
            torch.randn(*lanes, size, 2, generator=generator),
            torch.randn(size, 2, generator=generator),
        )
        for size in sizes
    ]


def batches(kind, seed, sizes, *, lanes=()):
    return (
        classes(seed, sizes, 4, lanes=lanes) if kind == "class" else reals(seed, sizes, lanes=lanes)
    )


def run(metric, batches):
    state = metric.init()
    for output, target in batches:
        state = metric.update(state, output, target)
    return metric.compute(state)


def oracle(metric, batches):
    for output, target in batches:
        metric.update(output, target)
    return metric.compute()


@given(
    seed=SEEDS,
    sizes=SIZES,
    count=st.integers(2, 6),
    top_k=st.integers(1, 6),
    shape=st.sampled_from([(), (3,)]),
)
def test_accuracy_is_torchmetrics(seed, sizes, count, top_k, shape):
    top_k = min(top_k, count)
    data = classes(seed, sizes, count, shape=shape)
    expected = oracle(MulticlassAccuracy(count, top_k=top_k, average="micro"), data)
    torch.testing.assert_close(run(metrics.accuracy(top_k), data), expected)


@given(seed=SEEDS, sizes=SIZES, count=st.integers(2, 6))
def test_accuracy_ignores_as_torchmetrics_does(seed, sizes, count):
    data = [*classes(seed, sizes, count), (torch.eye(2, count), torch.zeros(2, dtype=torch.int64))]
    expected = oracle(MulticlassAccuracy(count, average="micro", ignore_index=IGNORE), data)
    torch.testing.assert_close(run(metrics.accuracy(ignore_index=IGNORE), data), expected)


@given(seed=SEEDS, sizes=SIZES)
def test_errors_are_torchmetrics(seed, sizes):
    data = reals(seed, sizes)
    for ours, theirs in (
        (metrics.mean_squared_error(), MeanSquaredError()),
        (metrics.mean_absolute_error(), MeanAbsoluteError()),
    ):
        torch.testing.assert_close(run(ours, data), oracle(theirs, data))


@given(seed=SEEDS, sizes=SIZES, count=st.integers(2, 6))
def test_cross_entropy_is_the_logarithm_of_torchmetrics_perplexity(seed, sizes, count):
    data = classes(seed, sizes, count)
    expected = oracle(Perplexity(), [(output[None], target[None]) for output, target in data])
    torch.testing.assert_close(run(metrics.cross_entropy(), data), expected.log())


@given(seed=SEEDS, sizes=SIZES, shape=st.sampled_from([(), (3,)]), ignore=st.booleans())
def test_cross_entropy_is_torchs_over_all_examples_together(seed, sizes, shape, ignore):
    data = classes(seed, sizes, 4, shape=shape)
    output, target = (torch.cat(part).double() for part in zip(*data, strict=True))
    index = IGNORE if ignore else -100
    metric = metrics.cross_entropy(ignore_index=index, dtype=torch.float64)
    torch.testing.assert_close(
        run(metric, [(logits.double(), labels) for logits, labels in data]),
        F.cross_entropy(output, target.long(), ignore_index=index),
        equal_nan=True,
        rtol=1e-12,
        atol=1e-12,
    )


@given(seed=SEEDS, sizes=SIZES, shape=st.sampled_from([(), (3,)]))
def test_cross_entropy_takes_probabilities(seed, sizes, shape):
    data = [
        (output, output.roll(1).softmax(1)) for output, _ in classes(seed, sizes, 4, shape=shape)
    ]
    output, target = (torch.cat(part) for part in zip(*data, strict=True))
    expected = F.cross_entropy(output, target)
    torch.testing.assert_close(run(metrics.cross_entropy(), data), expected)


@every_metric
@given(seed=SEEDS, sizes=SIZES, lanes=st.integers(1, 4))
def test_a_lane_is_the_run_made_alone(make, kind, seed, sizes, lanes):
    metric = make()
    data = batches(kind, seed, sizes, lanes=(lanes,))
    state = torch.utils._pytree.tree_map(lambda leaf: leaf.expand(lanes), metric.init())
    for output, target in data:
        state = torch.vmap(metric.update, in_dims=(0, 0, None))(state, output, target)
    together = torch.vmap(metric.compute)(state)
    alone = [
        run(metric, [(output[lane], target) for output, target in data]) for lane in range(lanes)
    ]
    torch.testing.assert_close(together, torch.stack(alone), equal_nan=True)


@every_metric
def test_it_compiles_in_one_graph(make, kind):
    metric = make()
    update = torch.compile(metric.update, fullgraph=True, backend="aot_eager", dynamic=False)
    compute = torch.compile(metric.compute, fullgraph=True, backend="aot_eager", dynamic=False)
    data = batches(kind, 0, (5, 5))
    torch.testing.assert_close(
        run(metric._replace(update=update, compute=compute), data), run(metric, data)
    )
    lanes = torch.compile(
        torch.vmap(metric.update, in_dims=(None, 0, None)), fullgraph=True, backend="aot_eager"
    )
    [(output, target)] = batches(kind, 0, (5,), lanes=(3,))
    expected = torch.vmap(metric.update, in_dims=(None, 0, None))(metric.init(), output, target)
    torch.testing.assert_close(lanes(metric.init(), output, target), expected)


@every_metric
def test_it_is_pure_and_its_state_keeps_its_form(make, kind):
    metric = make()
    state = metric.init()
    kept = [leaf.clone() for leaf in state]
    [(output, target)] = batches(kind, 0, (5,))
    before = output.clone(), target.clone()
    output.requires_grad_()
    generator = torch.get_rng_state()
    new = metric.update(state, output, target)
    value = metric.compute(new)
    assert torch.equal(generator, torch.get_rng_state())
    assert all(map(torch.equal, state, kept))
    assert torch.equal(output, before[0])
    assert torch.equal(target, before[1])
    assert not value.requires_grad  # or memory would grow with every batch
    for fresh, updated in zip(state, new, strict=True):
        assert (updated.dtype, updated.shape) == (fresh.dtype, fresh.shape)
    assert torch.equal(metric.compute(metric.update(state, output, target)), value)


@every_metric
def test_an_empty_batch_changes_nothing(make, kind):
    metric = make()
    full, empty = batches(kind, 0, (5, 0))
    assert metric.compute(metric.init()).isnan()
    assert torch.equal(run(metric, [full, empty]), run(metric, [full]))


@every_metric
def test_the_state_moves_to_the_outputs(make, kind):
    metric = make()
    [(output, target)] = batches(kind, 0, (5,))
    state = metric.update(metric.init(), output.to("meta"), target.to("meta"))
    assert {leaf.device.type for leaf in state} == {"meta"}


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16])
@every_metric
def test_low_precision_is_summed_in_high(make, kind, dtype):
    data = [(output.to(dtype), target) for output, target in batches(kind, 0, (500,) * 20)]
    precise = [(output.double(), target) for output, target in data]
    torch.testing.assert_close(run(make(), data), run(make(), precise), check_dtype=False)


def test_accuracy_is_of_all_examples_not_the_mean_of_batches():
    right, wrong = torch.eye(3), torch.eye(3).roll(1, 0)
    data = [(right, torch.arange(3)), (wrong[:1], torch.arange(1))]
    assert run(metrics.accuracy(), data) == 0.75


def test_one_example_without_a_batch():
    logits, label = torch.tensor([0.1, 0.7, 0.2]), torch.tensor(1)
    assert run(metrics.accuracy(), [(logits, label)]) == 1
    expected = F.cross_entropy(logits, label)
    torch.testing.assert_close(run(metrics.cross_entropy(), [(logits, label)]), expected)


def test_shapes_are_never_broadcast():
    for metric in (metrics.mean_squared_error(), metrics.mean_absolute_error()):
        with pytest.raises(ValueError, match=r"shape of `output`, \(4, 1\), got \(4,\)"):
            metric.update(metric.init(), torch.zeros(4, 1), torch.zeros(4))
    for metric in (metrics.accuracy(), metrics.cross_entropy()):
        with pytest.raises(ValueError, match=r"`target` must have shape \(4,\), .*got \(4, 1\)"):
            metric.update(metric.init(), torch.zeros(4, 3), torch.zeros(4, 1, dtype=torch.int64))
        with pytest.raises(ValueError, match="dimension of classes"):
            metric.update(metric.init(), torch.tensor(0.5), torch.tensor(1))
    with pytest.raises(ValueError, match="shape of `output`"):
        metric.update(metric.init(), torch.zeros(4, 3), torch.zeros(4))


def test_top_k_is_between_one_and_the_classes():
    with pytest.raises(ValueError, match="`top_k` must be at least 1, got 0"):
        metrics.accuracy(0)
    metric = metrics.accuracy(4)
    with pytest.raises(ValueError, match="at most the 3 classes, got 4"):
        metric.update(metric.init(), torch.zeros(2, 3), torch.zeros(2, dtype=torch.int64))
