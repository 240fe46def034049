"""`check`: every mistake is found where it is, and correct models are not accused of it."""

from __future__ import annotations

import copy
from collections.abc import Callable
from functools import partial
from typing import Any

import pytest
import torch
import torch.nn.functional as F
from asserts import assert_equal
from torch import Tensor, nn

from fdnn import functionalize, initializers, inspect, losses, optim, random, recipe, schedules
from fdnn import nn as fnn
from fdnn.inspect import Report

KEY = random.key(0)
MISTAKES = {
    "batch norm with a batch of one",
    "bias before batch norm",
    "dead units",
    "dropout with selu",
    "equal weights",
    "exploding gradient",
    "exploding signal",
    "initialization",
    "inputs not finite",
    "inputs not scaled",
    "labels out of range",
    "logits into binary cross-entropy",
    "logits into nll_loss",
    "not finite",
    "one class",
    "output activation",
    "schedule length",
    "sigmoid before binary cross-entropy",
    "softmax before cross-entropy",
    "target shape",
    "targets not finite",
    "unused parameters",
    "vanishing gradient",
    "vanishing signal",
    "weight decay on norms",
}


def normal(*shape: int, seed: int = 0) -> Tensor:
    return random.normal(random.key(seed), shape)


def classes(n: int = 32, count: int = 3) -> Tensor:
    return torch.arange(n) % count


def look(module: nn.Module, batch: Any = None, criterion: Any = None, **options: Any) -> Report:
    return inspect.check(functionalize(module), batch=batch, criterion=criterion, **options)


def mistakes(report: Report) -> list[str]:
    assert {finding.mistake for finding in report} <= MISTAKES
    for finding in report:
        text = str(report)
        assert all(finding) and finding.mistake in text and finding.where in text
    return [finding.mistake for finding in report]


def only(report: Report, mistake: str, where: str | None = None, cure: str = "") -> None:
    """There is that mistake and no other, at that place, and the cure names something."""
    assert mistakes(report) == [mistake], str(report)
    if where is not None:
        assert report.findings[0].where == where
    assert cure in report.findings[0].cure


def fine(report: Report) -> None:
    assert mistakes(report) == [], str(report)


def stack(
    activation: Callable[[], nn.Module], depth: int, out: int = 3, width: int = 64
) -> nn.Sequential:
    layers: list[nn.Module] = [nn.Linear(64, width), activation()]
    for _ in range(depth - 1):
        layers += [nn.Linear(width, width), activation()]
    return nn.Sequential(*layers, nn.Linear(width, out))


def drawn(module: nn.Module, weight: Any, n: int = 64, **options: Any) -> Report:
    """A classifier whose weights are drawn by a rule."""
    model = functionalize(module)
    bias = None if weight is None else initializers.zeros
    params, buffers = model.init(random.key(1), weight=weight, bias=bias)
    batch = normal(n, module[0].in_features), classes(n)
    return inspect.check(
        model, params, buffers, batch=batch, criterion=F.cross_entropy, key=KEY, **options
    )


# Output and loss


LAST = [nn.Linear(10, 1)]
REGRESSIONS = [
    F.mse_loss,
    F.l1_loss,
    F.huber_loss,
    F.smooth_l1_loss,
    nn.MSELoss(),
    nn.L1Loss(),
    nn.HuberLoss(),
    nn.SmoothL1Loss(),
    losses.mse_loss,
    losses.l1_loss,
    losses.smooth_l1_loss,
    losses.huber_loss,
    partial(losses.huber_loss, delta=2.0),
    lambda x, y: F.gaussian_nll_loss(x, y, torch.ones_like(x)),
]


@pytest.mark.parametrize("criterion", REGRESSIONS)
def test_regression_that_ends_in_relu(criterion: Any) -> None:
    """D14 of the chapter: a regression demo whose last layer is a ReLU."""
    batch = normal(32, 10), normal(32, 1, seed=1)
    only(
        look(nn.Sequential(*LAST, nn.ReLU()), batch, criterion), "output activation", "1", "linear"
    )
    fine(look(nn.Sequential(*LAST), batch, criterion))


@pytest.mark.parametrize(
    "last",
    [
        *(nn.ReLU6(), nn.Sigmoid(), nn.Tanh(), nn.Hardtanh(-0.5, 0.5), nn.Softplus(), nn.ELU()),
        *(nn.Softsign(), fnn.ReLUSquared(), nn.SELU(), nn.Hardsigmoid(), fnn.Swish()),
    ],
    ids=str,
)
def test_regression_that_ends_in_another_activation(last: nn.Module) -> None:
    batch = normal(32, 10), 3 * normal(32, 1, seed=1)
    report = look(nn.Sequential(*LAST, last, nn.Flatten()), batch, F.mse_loss)
    only(report, "output activation", "1")


def test_bounded_outputs_for_bounded_targets_are_right() -> None:
    """An autoencoder of images ends in a sigmoid; counts may come from a softplus."""
    x, share = normal(32, 10), normal(32, 1, seed=1).sigmoid()
    fine(look(nn.Sequential(*LAST, nn.Sigmoid()), (x, share), F.mse_loss))
    fine(look(nn.Sequential(*LAST, nn.Tanh()), (x, 2 * share - 1), F.mse_loss))
    fine(look(nn.Sequential(*LAST, nn.Softplus()), (x, 9 * share), F.l1_loss))
    fine(look(nn.Sequential(*LAST, nn.ELU(alpha=9.0)), (x, -8 * share), F.l1_loss))
    only(look(nn.Sequential(*LAST, nn.ReLU()), (x, share), F.mse_loss), "output activation")


class Written(nn.Module):
    """A model whose last line is a function."""

    def __init__(self, last: Callable[[Tensor], Tensor], out: int = 1):
        super().__init__()
        self.linear, self.last = nn.Linear(10, out), last

    def forward(self, x: Tensor) -> Tensor:
        return self.last(self.linear(x))


@pytest.mark.parametrize(
    "last", [F.relu, torch.relu, lambda x: x.clamp(min=0), lambda x: torch.maximum(x, 0 * x)]
)
def test_outputs_with_a_floor_are_seen_in_functions_and_by_what_they_do(last: Any) -> None:
    batch = normal(32, 10), normal(32, 1, seed=1)
    only(look(Written(last), batch, F.mse_loss), "output activation", cure="softplus")
    fine(look(Written(lambda x: 5 * torch.tanh(x)), batch, F.mse_loss))
    fine(look(Written(lambda x: 0 * x), batch, F.mse_loss))  # a head of zeros


CLASSIFIERS = [
    F.cross_entropy,
    nn.CrossEntropyLoss(label_smoothing=0.1),
    losses.cross_entropy,
    losses.softmax_focal_loss,
    lambda x, y: F.cross_entropy(x, y) + 0.1,
]


@pytest.mark.parametrize("criterion", CLASSIFIERS)
def test_softmax_before_cross_entropy(criterion: Any) -> None:
    batch = normal(32, 10), classes()
    for last in (nn.Softmax(1), nn.LogSoftmax(1), nn.Sigmoid()):
        report = look(nn.Sequential(nn.Linear(10, 3), last), batch, criterion)
        only(report, "softmax before cross-entropy", "1", "leave the")
    fine(look(nn.Linear(10, 3), batch, criterion))
    report = look(nn.Sequential(nn.Linear(10, 3), nn.ReLU()), batch, criterion)
    only(report, "output activation", "1")


@pytest.mark.parametrize(
    "last", [lambda x: x.exp() / x.exp().sum(1, keepdim=True), lambda x: x - x.logsumexp(1, True)]
)
def test_softmax_is_seen_by_what_it_does(last: Any) -> None:
    report = look(Written(last, 3), (normal(32, 10), classes()), F.cross_entropy)
    only(report, "softmax before cross-entropy")


def test_softmax_inside_the_criterion() -> None:
    report = look(
        nn.Linear(10, 3),
        (normal(32, 10), classes()),
        lambda x, y: F.cross_entropy(x.softmax(1), y),
    )
    only(report, "softmax before cross-entropy", "criterion")


@pytest.mark.parametrize(
    "criterion",
    [
        F.binary_cross_entropy_with_logits,
        nn.BCEWithLogitsLoss(),
        losses.binary_cross_entropy_with_logits,
        losses.sigmoid_focal_loss,
    ],
)
def test_sigmoid_before_binary_cross_entropy(criterion: Any) -> None:
    batch = normal(32, 10), classes(count=2)[:, None].float()
    report = look(nn.Sequential(*LAST, nn.Sigmoid()), batch, criterion)
    only(report, "sigmoid before binary cross-entropy", "1", "leave the sigmoid out")
    fine(look(nn.Sequential(*LAST), batch, criterion))


def test_losses_of_probabilities_want_what_the_others_do_not() -> None:
    x, y = normal(32, 10), classes(count=2)
    only(look(nn.Linear(10, 2), (x, y), F.nll_loss), "logits into nll_loss", cure="cross_entropy")
    fine(look(nn.Sequential(nn.Linear(10, 2), nn.LogSoftmax(1)), (x, y), F.nll_loss))
    one = y[:, None].float()
    only(
        look(nn.Linear(10, 1), (x, one), F.binary_cross_entropy),
        "logits into binary cross-entropy",
        cure="binary_cross_entropy_with_logits",
    )
    fine(look(nn.Sequential(*LAST, nn.Sigmoid()), (x, one), F.binary_cross_entropy))


# Targets


@pytest.mark.parametrize("criterion", CLASSIFIERS)
def test_labels_out_of_range(criterion: Any) -> None:
    x = normal(32, 10)
    for target in (classes() + 1, classes() - 1):
        report = look(nn.Linear(10, 3), (x, target), criterion)
        only(report, "labels out of range", "target", "from 0 on")
        assert any("signals" in line for line in report.not_checked)


def test_labels_that_are_ignored_may_be_anything() -> None:
    x, y = normal(32, 10), classes()
    module = nn.Linear(10, 3)
    fine(look(module, (x, y.where(y > 0, -100)), F.cross_entropy))
    y = y.where(y > 0, 255)
    only(look(module, (x, y), F.cross_entropy), "labels out of range", cure="ignore_index")
    for criterion in (
        partial(F.cross_entropy, ignore_index=255),
        nn.CrossEntropyLoss(ignore_index=255),
        partial(losses.cross_entropy, ignore_index=255),
        lambda x, y: losses.cross_entropy(x, y, ignore_index=255),
        lambda x, y: F.cross_entropy(x, y, None, None, 255),
    ):
        fine(look(module, (x, y), criterion))


def test_labels_of_segmentation() -> None:
    module, x = nn.Conv2d(2, 3, 3, padding=1), normal(4, 2, 5, 5)
    fine(look(module, (x, torch.ones(4, 5, 5, dtype=torch.int64)), F.cross_entropy))
    bad = torch.full((4, 5, 5), 3)
    only(look(module, (x, bad), F.cross_entropy), "labels out of range")
    only(look(module, (x, bad[:, None]), F.cross_entropy), "target shape", cure="squeeze(1)")


def test_targets_of_cross_entropy_that_are_no_classes() -> None:
    x, module = normal(32, 10), nn.Linear(10, 3)
    fine(look(module, (x, normal(32, 3).softmax(1)), F.cross_entropy))
    only(look(module, (x, normal(32, 3)), F.cross_entropy), "labels out of range", cure="sum to 1")
    only(look(module, (x, classes().float()), F.cross_entropy), "labels out of range", cure="long")
    only(look(module, (x, classes()[:, None]), F.cross_entropy), "target shape", cure="squeeze")
    hot = F.one_hot(classes())
    only(look(module, (x, hot), F.cross_entropy), "target shape", cure="argmax")
    report = look(nn.Linear(10, 1), (x, 0 * classes()), F.cross_entropy)
    only(report, "one class", cure="binary")


def test_binary_targets() -> None:
    x, y = normal(32, 10), classes(count=2)[:, None].float()
    for criterion in (F.binary_cross_entropy_with_logits, losses.binary_cross_entropy_with_logits):
        only(
            look(nn.Linear(10, 1), (x, 2 * y - 1), criterion), "labels out of range", cure="0 and 1"
        )
        only(look(nn.Linear(10, 1), (x, y[:, 0]), criterion), "target shape", cure="unsqueeze")


@pytest.mark.parametrize("criterion", REGRESSIONS[:-1])
def test_targets_that_would_be_broadcast(criterion: Any) -> None:
    report = look(nn.Linear(10, 1), (normal(32, 10), normal(32)), criterion)
    only(report, "target shape", "target", "unsqueeze(-1)")
    assert "(32, 32)" in report.findings[0].problem
    report = look(nn.Linear(10, 2), (normal(32, 10), normal(32, 3)), criterion)
    only(report, "target shape")
    assert "differ" in report.findings[0].problem


# Structure


@pytest.mark.parametrize("dropout", [nn.Dropout(0.2), nn.Dropout1d(), fnn.MCDropout(0.2)], ids=str)
def test_dropout_with_selu(dropout: nn.Module) -> None:
    module = nn.Sequential(nn.Linear(10, 8), nn.SELU(), dropout, nn.Linear(8, 3))
    report = look(module)
    only(report, "dropout with selu", "2", "AlphaDropout")
    batch = normal(32, 10), classes()
    only(look(module, batch, F.cross_entropy, key=KEY), "dropout with selu", "2")


def test_dropout_that_does_not_hurt_selu() -> None:
    for dropout in (nn.AlphaDropout(0.1), nn.Dropout(0.0), fnn.MCAlphaDropout(0.1)):
        fine(look(nn.Sequential(nn.Linear(10, 8), nn.SELU(), dropout)))
    fine(look(nn.Sequential(nn.Linear(10, 8), nn.ReLU(), nn.Dropout())))


def test_dropout_with_selu_as_functions() -> None:
    def last(x: Tensor) -> Tensor:
        return F.dropout(F.selu(x), 0.1)

    report = look(Written(last), (normal(8, 10), None), key=KEY)
    only(report, "dropout with selu", "dropout()")


@pytest.mark.parametrize(
    ("layers", "x"),
    [
        ((nn.Linear(10, 8), nn.BatchNorm1d(8)), normal(32, 10)),
        ((nn.Conv2d(2, 8, 3), nn.BatchNorm2d(8)), normal(8, 2, 6, 6)),
        ((nn.Conv2d(2, 8, 3), nn.MaxPool2d(2), nn.BatchNorm2d(8)), normal(8, 2, 6, 6)),
        ((nn.Conv1d(2, 8, 3), nn.InstanceNorm1d(8)), normal(8, 2, 6)),
    ],
)
def test_bias_before_batch_norm(layers: tuple[nn.Module, ...], x: Tensor) -> None:
    only(look(nn.Sequential(*layers), (x, None)), "bias before batch norm", "0", "bias=False")


@pytest.mark.parametrize(
    "layers",
    [
        (nn.Linear(10, 8, bias=False), nn.BatchNorm1d(8)),
        (nn.Linear(10, 8), nn.ReLU(), nn.BatchNorm1d(8)),
        (nn.Linear(10, 8), nn.LayerNorm(8)),
        (nn.Unflatten(1, (5, 2)), nn.Linear(2, 8), nn.BatchNorm1d(5)),  # of places, not of units
    ],
)
def test_bias_that_has_an_effect(layers: tuple[nn.Module, ...]) -> None:
    fine(look(nn.Sequential(*layers), (normal(32, 10), None)))


def test_bias_before_batch_norm_has_no_effect() -> None:
    """What the report says is so."""
    model = functionalize(nn.Sequential(nn.Linear(10, 8), nn.BatchNorm1d(8)))
    x = normal(32, 10)
    shifted = model.params | {"0.bias": model.params["0.bias"] + 5}
    outputs = [model.apply(p, model.buffers, x, train=True)[0] for p in (model.params, shifted)]
    torch.testing.assert_close(*outputs, rtol=0, atol=1e-5)


def test_batch_norm_with_a_batch_of_one() -> None:
    module = nn.Sequential(nn.Linear(10, 8, bias=False), nn.BatchNorm1d(8), nn.Linear(8, 3))
    report = look(module, (normal(1, 10), classes(1)), F.cross_entropy)
    only(report, "batch norm with a batch of one", "1", "larger batches")
    images = nn.Sequential(nn.Conv2d(2, 8, 3, bias=False), nn.BatchNorm2d(8))
    report = look(images, (normal(1, 2, 6, 6), None))
    only(report, "batch norm with a batch of one", "1")
    fine(look(module, (normal(2, 10), classes(2)), F.cross_entropy))


# Initialization


def test_he_before_selu() -> None:
    """D12 of the chapter: SELU drawn by He's law; of 1,000 layers the signal explodes."""
    report = drawn(stack(nn.SELU, 20), initializers.he_normal())
    only(report, "initialization", cure='for_activation("selu")')
    assert "grow" in report.findings[0].problem
    only(drawn(stack(nn.SELU, 3), initializers.he_normal()), "initialization", "0, 2, 4")
    fine(drawn(stack(nn.SELU, 2), initializers.he_normal()))
    fine(drawn(stack(nn.SELU, 20), initializers.lecun_normal()))
    found = drawn(stack(nn.SELU, 1000, width=32), initializers.he_normal(), n=16)
    assert "initialization" in mistakes(found)
    assert {"exploding signal", "not finite"} & set(mistakes(found))


def test_torchs_default_before_relu() -> None:
    """Of one or two hidden layers no mistake, of three one, of twenty the network is lost."""
    for depth in (1, 2):
        fine(drawn(stack(nn.ReLU, depth), None))
    report = drawn(stack(nn.ReLU, 3), None)
    only(report, "initialization", "0, 2, 4", 'for_activation("relu")')
    assert "fade" in report.findings[0].problem
    report = drawn(stack(nn.ReLU, 20, width=100), None)
    assert mistakes(report) == ["initialization", "vanishing gradient"]
    assert report.findings[0].where == "0, 2, 4, ... (20 in all)"


@pytest.mark.parametrize("depth", [1, 3, 20])
@pytest.mark.parametrize(
    ("activation", "weight"),
    [
        (nn.ReLU, "he_uniform"),
        (nn.Tanh, "glorot_uniform"),
        (nn.SELU, "lecun_normal"),
        (nn.GELU, "he_normal"),
        (nn.ELU, "he_normal"),
        (nn.ReLU6, "he_normal"),
    ],
)
def test_matching_weights(activation: Any, weight: str, depth: int) -> None:
    fine(drawn(stack(activation, depth, width=100), getattr(initializers, weight)()))


@pytest.mark.parametrize("activation", [partial(nn.LeakyReLU, 0.9), partial(nn.PReLU, init=0.9)])
def test_leaky_slopes(activation: Any) -> None:
    """With a slope of 0.9 He's variance is 1.1 / n, and that for relu is too large."""
    suited = initializers.for_activation("leaky_relu", negative_slope=0.9)
    fine(drawn(stack(activation, 6), suited))
    report = drawn(stack(activation, 6), initializers.he_normal())
    assert mistakes(report)[0] == "initialization"
    assert "negative_slope=0.9" in report.findings[0].cure


def test_sigmoid() -> None:
    fine(drawn(stack(nn.Sigmoid, 4), initializers.glorot_normal()))
    found = drawn(stack(nn.Sigmoid, 4), initializers.normal(1.0))
    assert mistakes(found)[0] == "initialization"
    assert "saturate" in found.findings[0].problem
    found = mistakes(drawn(stack(nn.Sigmoid, 20), initializers.glorot_normal()))
    assert found == ["vanishing gradient"]


def test_one_layer_may_be_wrong_enough() -> None:
    module = nn.Sequential(nn.Linear(784, 64), nn.ReLU(), nn.Linear(64, 3))
    model = functionalize(module)
    params, _ = model.init(KEY, rules=[("0.weight", initializers.normal(1.0))])
    report = inspect.check(model, params, batch=(normal(32, 784), None))
    only(report, "initialization", "0", 'for_activation("relu")')


def test_a_norm_makes_the_weights_harmless() -> None:
    blocks = [
        nn.Sequential(nn.Linear(64, 64, bias=False), norm(64), nn.ReLU())
        for norm in (nn.BatchNorm1d, nn.LayerNorm, nn.BatchNorm1d, nn.RMSNorm)
    ]
    module = nn.Sequential(nn.Linear(10, 64), *blocks, nn.Linear(64, 3))
    fine(drawn(module, None))
    fine(drawn(module, initializers.normal(1.0)))
    after = [nn.Sequential(nn.Linear(64, 64), nn.ReLU(), nn.LayerNorm(64)) for _ in range(5)]
    module = nn.Sequential(nn.Linear(10, 64), *after, nn.Linear(64, 3))
    fine(drawn(module, None))
    fine(drawn(module, initializers.normal(3.0)))


def test_residual_connections_break_the_row() -> None:
    blocks = [
        nn.Sequential(
            nn.LayerNorm(64), fnn.Residual(nn.Linear(64, 64), nn.ReLU(), nn.Linear(64, 64))
        )
        for _ in range(6)
    ]
    fine(drawn(nn.Sequential(nn.Linear(10, 64), *blocks, nn.Linear(64, 3)), None))


def test_transformers_are_not_accused() -> None:
    layer = nn.TransformerEncoderLayer(16, 2, 32, batch_first=True, norm_first=True)
    module = nn.Sequential(nn.TransformerEncoder(layer, 4, enable_nested_tensor=False))
    x = normal(8, 5, 16)
    fine(look(module, (x, x), F.mse_loss, key=KEY))


def test_few_weights_prove_nothing() -> None:
    """Of 2 x 2 weights drawn by the right law, the variance is often wrong by 2: not accused."""
    model = functionalize(
        nn.Sequential(*(nn.Sequential(nn.Linear(2, 2), nn.ReLU()) for _ in range(6)))
    )
    for seed in range(30):
        params, _ = model.init(random.key(seed), weight=initializers.he_normal())
        found = inspect.check(model, params, batch=(normal(32, 2), None))
        assert "initialization" not in mistakes(found)


def test_convolutions_and_functions() -> None:
    class Net(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.convs = nn.ModuleList(nn.Conv2d(8 if i else 2, 8, 3, padding=1) for i in range(4))
            self.head = nn.Linear(8, 3)

        def forward(self, x: Tensor) -> Tensor:
            for conv in self.convs:
                x = F.relu(F.avg_pool2d(conv(x), 3, 1, 1))
            return self.head(x.mean((2, 3)))

    model = functionalize(Net())
    batch = normal(16, 2, 6, 6), classes(16)
    report = inspect.check(model, batch=batch, criterion=F.cross_entropy)
    assert mistakes(report)[0] == "initialization"
    assert report.findings[0].where == "convs.1, convs.2, convs.3"
    params, _ = model.init(KEY, weight=initializers.he_normal(), bias=initializers.zeros)
    fine(inspect.check(model, params, batch=batch, criterion=F.cross_entropy))


@pytest.mark.parametrize(
    "activation", ["swish", "swiglu", "geglu", "reglu", "glu", "mish", "relu_squared"]
)
def test_our_own_perceptrons(activation: str) -> None:
    for depth, norm in ((2, None), (5, "layer"), (5, "batch")):
        module = fnn.MLP(10, 64, 3, depth=depth, activation=activation, norm=norm)
        fine(look(module, (normal(64, 10), classes(64)), F.cross_entropy))
    model = functionalize(fnn.MLP(10, 64, 3, depth=3, activation=activation))
    params, _ = model.init(KEY, weight=initializers.normal(0.01))
    found = inspect.check(model, params, batch=(normal(64, 10), None))
    only(
        found,
        "initialization",
        cure=f'for_activation("{activation}")' if activation != "swish" else "swish",
    )


def test_equal_weights() -> None:
    report = drawn(stack(nn.Tanh, 2), initializers.constant(0.1))
    assert mistakes(report)[0] == "equal weights"
    assert report.findings[0].where == "0, 2"
    model = functionalize(stack(nn.Tanh, 2))
    params = model.params | {"4.weight": torch.zeros(3, 64)}  # a last layer of zeros is common
    fine(inspect.check(model, params, batch=(normal(32, 64), classes()), criterion=F.cross_entropy))


# Unused parameters


class Spare(nn.Module):
    def __init__(self, detach: bool, spare: bool) -> None:
        super().__init__()
        self.body, self.head = nn.Linear(10, 8), nn.Linear(8, 3)
        self.detach = detach
        if spare:
            self.spare = nn.Linear(10, 8)

    def forward(self, x: Tensor) -> Tensor:
        h = self.body(x)
        return self.head(h.detach() if self.detach else h)


def test_unused_parameters() -> None:
    batch = normal(32, 10), classes()
    report = look(Spare(False, True), batch, F.cross_entropy)
    only(report, "unused parameters", "spare.weight, spare.bias", "forward")
    report = look(Spare(True, False), batch, F.cross_entropy)
    only(report, "unused parameters", "body.weight, body.bias", "detach")
    fine(look(Spare(False, False), batch, F.cross_entropy))


def test_a_gradient_of_0_is_a_path() -> None:
    class Zero(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.linear, self.gate = nn.Linear(10, 3), nn.Parameter(torch.ones(3))

        def forward(self, x: Tensor) -> Tensor:
            return self.linear(x) + 0 * self.gate

    fine(look(Zero(), (normal(32, 10), classes()), F.cross_entropy))
    fine(look(nn.LSTM(4, 4), (normal(5, 8, 4), None), lambda output, _: output[0].square().mean()))


# The optimizer


def test_schedule_sized_for_batches_but_stepped_per_epoch() -> None:
    """D9 of the chapter: 1cycle of 60 x 352 = 21,120 steps that is stepped 60 times."""
    tx = optim.sgd(schedules.one_cycle(0.1, total_steps=60 * 352))
    module = nn.Linear(10, 3)
    report = look(module, tx=tx, steps=60)
    only(report, "schedule length", "tx", "for each batch")
    assert "21120 steps, the run 60" in report.findings[0].problem
    only(look(module, tx=tx, steps=60 * 352 + 1), "schedule length")
    fine(look(module, tx=tx, steps=60 * 352))
    fine(look(module, tx=optim.sgd(0.1), steps=60))
    assert "schedule length (needs `steps`)" in look(module, tx=tx).not_checked


NORMED = nn.Sequential(nn.Linear(10, 8, bias=False), nn.BatchNorm1d(8), nn.Linear(8, 3))


def matrices(path: str, leaf: Any) -> bool:
    return bool(leaf.ndim > 1)


@pytest.mark.parametrize(
    "tx",
    [
        optim.adamw(0.1),
        optim.sgd(0.1, weight_decay=1e-4),
        optim.adam(0.1, weight_decay=1e-4),
        # D6: that "bn" is in no name of an nn.Sequential
        optim.chain(
            optim.add_decayed_weights(0.1, lambda path, leaf: "bn" not in path), optim.sgd(0.1)
        ),
        optim.lamb(0.1, weight_decay=0.1),
    ],
)
def test_weight_decay_on_norms(tx: Any) -> None:
    only(look(NORMED, tx=tx), "weight decay on norms", "1.weight, 1.bias", "leaf.ndim > 1")
    fine(look(nn.Linear(10, 3), tx=tx))


@pytest.mark.parametrize(
    "tx",
    [
        optim.adamw(0.1, weight_decay=0.0),
        optim.chain(optim.add_decayed_weights(0.1, matrices), optim.sgd(0.1, momentum=0.9)),
        optim.freeze(optim.adamw(0.1), "1.*"),
        optim.chain(optim.sgd(0.1), optim.project(optim.projection_l2_ball, scale=0.5)),
    ],
)
def test_no_weight_decay_on_norms(tx: Any) -> None:
    report = look(NORMED, tx=tx)
    fine(report)
    assert not any("decay" in line for line in report.not_checked)


@pytest.mark.parametrize(
    "tx",
    [optim.lbfgs(), optim.chain(optim.add_noise(0.1, 0.5, random.key(0)), optim.adamw(0.1))],
)
def test_weight_decay_that_cannot_be_seen(tx: Any) -> None:
    report = look(NORMED, tx=tx)
    fine(report)
    assert any("weight decay" in line for line in report.not_checked)


# Signals


def test_dead_units() -> None:
    model = functionalize(stack(nn.ReLU, 1))
    params, _ = model.init(KEY, weight=initializers.he_normal())
    batch = normal(32, 64), classes()
    bias = torch.full((64,), -20.0)
    bias[:16] = 0
    report = inspect.check(model, params | {"0.bias": bias}, batch=batch, criterion=F.cross_entropy)
    only(report, "dead units", "1", "leaky_relu")
    assert "75 %" in report.findings[0].problem
    bias[:48] = 0
    fine(inspect.check(model, params | {"0.bias": bias}, batch=batch, criterion=F.cross_entropy))


def test_half_of_the_units_may_be_0_for_one_example() -> None:
    for seed in range(5):
        model = functionalize(fnn.MLP(10, 100, 3, depth=5))
        params, buffers = model.init(random.key(seed))
        batch = normal(1, 10, seed=seed), classes(1)
        fine(inspect.check(model, params, buffers, batch=batch, criterion=F.cross_entropy))


def test_signals_without_an_activation() -> None:
    def linear(scale: float) -> Report:
        module = nn.Sequential(*(nn.Linear(10, 10, bias=False) for _ in range(6)))
        model = functionalize(module)
        params, _ = model.init(
            KEY, weight=initializers.variance_scaling(scale**2, "fan_in", "normal")
        )
        return inspect.check(
            model, params, batch=(normal(32, 10), normal(32, 10)), criterion=F.mse_loss
        )

    fine(linear(1.0))
    only(linear(10.0), "exploding signal", "0 to 4", "for_activation")
    only(linear(0.1), "vanishing signal", "0 to 4", "for_activation")


def test_exploding_gradient() -> None:
    class Steep(nn.Module):
        """The signal stays, the gradient grows a hundredfold."""

        def forward(self, x: Tensor) -> Tensor:
            return torch.sin(100 * x)

    layers = [nn.Sequential(nn.Linear(16, 16), Steep()) for _ in range(4)]
    report = look(
        nn.Sequential(*layers, nn.Linear(16, 3)), (normal(32, 16), classes()), F.cross_entropy
    )
    only(report, "exploding gradient", cure="clip gradients")


def test_zeros_on_purpose_are_no_vanishing_gradient() -> None:
    block = fnn.Residual(nn.Linear(8, 8), nn.ReLU(), nn.Linear(8, 8))
    block.body[2].weight.data.zero_()
    report = look(
        nn.Sequential(nn.Linear(8, 8), block, nn.Linear(8, 3)),
        (normal(32, 8), classes()),
        F.cross_entropy,
    )
    fine(report)
    assert "vanishing gradients (all weights of 1.body.2 are 0)" in report.not_checked


class Log(nn.Module):
    def forward(self, x: Tensor) -> Tensor:
        return x.log()


def test_what_is_not_finite() -> None:
    module = nn.Sequential(
        nn.Linear(10, 8),
        Log(),
        nn.Linear(8, 3),
    )
    report = look(module, (normal(32, 10), classes()), F.cross_entropy)
    only(report, "not finite", "1", "logarithm")


def test_gradients_that_are_not_finite() -> None:
    class Root(nn.Module):
        def forward(self, x: Tensor) -> Tensor:
            return (0 * x).sqrt()

    report = look(
        nn.Sequential(nn.Linear(10, 8), Root(), nn.Linear(8, 3)),
        (normal(32, 10), classes()),
        F.cross_entropy,
    )
    only(report, "not finite", "0")
    assert "gradient" in report.findings[0].problem


# Inputs


@pytest.mark.parametrize(
    "x",
    [
        255 * normal(32, 10).sigmoid(),
        normal(32, 10) + torch.tensor([2020.0] + 9 * [0.0]),
        normal(32, 10) * torch.tensor([1000.0] + 9 * [1.0]),
        normal(32, 10) / 1000,
    ],
)
def test_inputs_that_are_not_scaled(x: Tensor) -> None:
    only(look(nn.Linear(10, 3), (x, None)), "inputs not scaled", cure="standard deviation")


class Divide(nn.Module):
    def forward(self, x: Tensor) -> Tensor:
        return x / 255


def test_inputs_of_images() -> None:
    module = nn.Conv2d(3, 8, 3)
    x = normal(8, 3, 6, 6).sigmoid()
    fine(look(module, (x, None)))
    only(look(module, (255 * x, None)), "inputs not scaled", cure="divide by 255")
    fine(look(nn.Sequential(nn.BatchNorm2d(3), module), (255 * x, None)))
    fine(look(nn.Sequential(Divide(), module), (255 * x, None)))
    flat = nn.Sequential(nn.Flatten(), nn.Linear(108, 3))
    only(look(flat, (255 * x, None)), "inputs not scaled", "inputs of 1")


def test_selu_presumes_standardized_inputs() -> None:
    x = normal(64, 10).sigmoid()  # mean 0.5, standard deviation 0.2
    relu, selu = (nn.Sequential(nn.Linear(10, 8), last) for last in (nn.ReLU(), nn.SELU()))
    fine(look(relu, (x, None)))
    only(look(selu, (x, None)), "inputs not scaled", cure="standard deviation")
    fine(look(selu, ((x - 0.5) / 0.2, None)))


def test_tokens_and_sequences() -> None:
    fine(look(nn.Embedding(500, 8), (torch.arange(500)[None], None)))
    x = 100 * normal(4, 6, 8)
    only(look(nn.GRU(8, 8, batch_first=True), (x, None)), "inputs not scaled")


def test_what_is_not_finite_in_a_batch() -> None:
    x, y = normal(32, 10), normal(32, 3)
    x[3, 4] = torch.inf
    report = look(nn.Linear(10, 3), (x, y), F.mse_loss)
    assert mistakes(report) == ["inputs not finite", "inputs not scaled"][: len(report)]
    y[0, 0] = torch.nan
    report = look(nn.Linear(10, 3), (normal(32, 10), y), F.mse_loss)
    only(report, "targets not finite", "target", "drop")


# The whole


@pytest.mark.parametrize("task", ["classification", "binary", "regression"])
@pytest.mark.parametrize(("depth", "self_normalizing"), [(2, False), (8, False), (8, True)])
def test_our_recipes_pass(task: Any, depth: int, self_normalizing: bool) -> None:
    chosen = recipe(depth, task, total_steps=100, self_normalizing=self_normalizing, dropout=0.1)
    model = chosen.build(10, 3 if task == "classification" else 1)
    target = {
        "classification": classes(64),
        "binary": classes(64, 2)[:, None].float(),
        "regression": normal(64, 1, seed=3),
    }[task]
    report = inspect.check(
        model,
        *model.init(KEY),
        batch=(normal(64, 10), target),
        criterion=chosen.criterion,
        tx=chosen.transform,
        steps=100,
        key=KEY,
    )
    assert report == Report((), ())
    assert not report and str(report) == "no mistakes found"


def test_says_what_it_did_not_look_at() -> None:
    module = nn.Sequential(nn.Linear(10, 8), nn.Dropout(), nn.Linear(8, 3))
    assert look(module).not_checked[0] == "all that shows when the model runs (needs `batch`)"
    batch = normal(32, 10), classes()
    assert any("needs `criterion`" in line for line in look(module, batch).not_checked)
    report = look(module, batch, F.cross_entropy)
    assert "train mode, since the model draws (needs `key`)" in report.not_checked
    assert "not looked at: train mode" in str(report)
    report = look(module, batch, lambda x, y: x.square().mean(), key=KEY)
    assert any("no loss of torch" in line for line in report.not_checked)


def test_batch_norm_in_eval_mode_says_nothing_about_signals() -> None:
    """Its first running statistics leave the signal as it is."""
    model = functionalize(fnn.MLP(10, 64, 3, depth=20, norm="batch", dropout=0.1))
    params, buffers = model.init(KEY, weight=initializers.normal(0.01))
    batch, options = (normal(64, 10), classes(64)), {"criterion": F.cross_entropy}
    report = inspect.check(model, params, buffers, batch=batch, **options)
    fine(report)
    assert "signals, gradients (first: batch norm, which works in train mode)" in report.not_checked
    fine(inspect.check(model, params, buffers, batch=batch, key=KEY, **options))


def test_several_mistakes_at_once() -> None:
    module = nn.Sequential(
        nn.Linear(10, 8), nn.BatchNorm1d(8), nn.SELU(), nn.Dropout(), nn.Linear(8, 3), nn.Softmax(1)
    )
    tx = optim.adamw(schedules.one_cycle(0.1, 50))
    x = 255 * normal(32, 10)
    report = look(module, (x, classes()), F.cross_entropy, tx=tx, steps=10, key=KEY)
    assert set(mistakes(report)) == {
        "inputs not scaled",
        "softmax before cross-entropy",
        "dropout with selu",
        "bias before batch norm",
        "schedule length",
        "weight decay on norms",
    }
    assert len(report) == 6 and report


def test_changes_nothing_and_draws_from_its_key_alone() -> None:
    model = functionalize(
        nn.Sequential(nn.Linear(10, 8), nn.BatchNorm1d(8), nn.ReLU(), nn.Dropout(), nn.Linear(8, 3))
    )
    batch = normal(32, 10), classes()
    before = copy.deepcopy((model.params, model.buffers, batch))
    generator = torch.get_rng_state()
    names = [set(vars(layer)) for mode in (True, False) for layer in model.skeleton(mode).modules()]
    tx = optim.adamw(0.1)
    reports = [
        inspect.check(model, batch=batch, criterion=F.cross_entropy, tx=tx, key=KEY)
        for _ in range(2)
    ]
    assert reports[0] == reports[1]
    assert torch.equal(torch.get_rng_state(), generator)
    assert_equal((model.params, model.buffers, batch), before)
    assert not any(x.requires_grad for x in model.params.values())
    assert names == [
        set(vars(layer)) for mode in (True, False) for layer in model.skeleton(mode).modules()
    ]


def test_works_without_grad_and_with_keywords_and_several_inputs() -> None:
    module, x, y = nn.Bilinear(4, 4, 3), normal(32, 4), classes()
    with torch.no_grad():
        fine(look(module, (x, x, y), F.cross_entropy))
    fine(look(nn.Linear(4, 3), ({"input": x}, y), F.cross_entropy))
    fine(look(nn.utils.parametrizations.weight_norm(nn.Linear(4, 3)), (x, y), F.cross_entropy))
    fine(look(nn.Linear(4, 3).double(), (x.double(), y), F.cross_entropy))
    fine(look(nn.Identity(), (normal(32, 3), y), F.cross_entropy))


def test_refusals() -> None:
    model, x = functionalize(nn.Linear(10, 3)), normal(32, 10)
    with pytest.raises(
        TypeError, match=r"`model` must be what fdnn\.functionalize returns, got Lin"
    ):
        inspect.check(nn.Linear(10, 3))  # type: ignore[arg-type]
    with pytest.raises(ValueError, match="`steps` must be at least 1, got 0"):
        inspect.check(model, steps=0)
    with pytest.raises(
        ValueError, match=r"`criterion` must return a 0-d tensor, got shape \(32,\)"
    ):
        inspect.check(
            model, batch=(x, classes()), criterion=partial(F.cross_entropy, reduction="none")
        )
    with pytest.raises(RuntimeError, match="outside of them"):
        torch.vmap(lambda x: inspect.check(model, batch=(x, None)) and x)(x[None])
    with pytest.raises(ValueError, match="`key` must be given"):
        look(nn.Sequential(nn.Linear(10, 3), fnn.MCDropout()), (x, None))
    with pytest.raises(RuntimeError, match="shapes cannot be multiplied"):
        inspect.check(model, batch=(x[:, 1:], None))
