"""Networks made smaller give what the masked ones gave, wherever constants end up."""

from __future__ import annotations

from typing import Any

import pytest
import torch
import torch.nn.functional as F
from asserts import assert_equal
from hypothesis import given
from hypothesis import strategies as st
from torch import Tensor, nn, vmap

from fdnn import compress, functionalize, optim, random, train, transfer
from fdnn.nn import MLP, ReLUSquared, Residual

SHAPES = {"rows": (5, 6), "maps1d": (5, 3, 12), "maps2d": (5, 3, 10, 10), "maps3d": (2, 3, 6, 6, 6)}

NETS: dict[str, tuple[Any, str]] = {
    "linear": (
        lambda: [nn.Linear(6, 8), nn.ReLU(), nn.Linear(8, 7), nn.Sigmoid(), nn.Linear(7, 3)],
        "rows",
    ),
    "no bias": (
        lambda: [
            *(nn.Linear(6, 8, bias=False), nn.BatchNorm1d(8), nn.GELU()),
            *(nn.Linear(8, 7, bias=False), nn.Sigmoid(), nn.Linear(7, 3, bias=False)),
        ],
        "rows",
    ),
    "batch norm and dropout": (
        lambda: [
            *(nn.Linear(6, 8), nn.Dropout(0.5), nn.BatchNorm1d(8), nn.LeakyReLU(inplace=True)),
            *(nn.Linear(8, 7), nn.SELU(), nn.BatchNorm1d(7), nn.AlphaDropout(), nn.Linear(7, 3)),
        ],
        "rows",
    ),
    "slopes": (
        lambda: [nn.Linear(6, 8), nn.PReLU(8), nn.Linear(8, 7), nn.PReLU(), nn.Linear(7, 3)],
        "rows",
    ),
    "flattened rows": (
        lambda: [nn.Linear(6, 8), nn.Flatten(), ReLUSquared(), nn.Linear(8, 3)],
        "rows",
    ),
    "maps": (
        lambda: [
            *(nn.Conv2d(3, 8, 3), nn.BatchNorm2d(8), nn.SiLU(), nn.MaxPool2d(3, 2, 1)),
            *(nn.Conv2d(8, 6, 3), nn.Softplus(), nn.AvgPool2d(2), nn.Flatten(), nn.Dropout()),
            *(nn.Linear(6, 7), nn.Tanh(), nn.Linear(7, 2)),
        ],
        "maps2d",
    ),
    "many places a channel": (
        lambda: [nn.Conv2d(3, 8, 3), nn.PReLU(8), nn.Flatten(), nn.ELU(), nn.Linear(512, 3)],
        "maps2d",
    ),
    "padded by itself": (
        lambda: [
            *(nn.Conv2d(3, 8, 3, padding=1, padding_mode="reflect"), nn.Sigmoid()),
            *(nn.Conv2d(8, 5, 3, padding=1, padding_mode="circular"), nn.Sigmoid()),
            *(nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(5, 2)),
        ],
        "maps2d",
    ),
    "sequences": (
        lambda: [
            *(nn.Conv1d(3, 8, 3), nn.BatchNorm1d(8), nn.Mish(), nn.Conv1d(8, 4, 2), nn.ReLU6()),
            *(nn.AvgPool1d(2, padding=1, count_include_pad=False), nn.Flatten(), nn.Linear(20, 2)),
        ],
        "maps1d",
    ),
    "volumes": (
        lambda: [nn.Conv3d(3, 8, 3), nn.Hardswish(), nn.AdaptiveMaxPool3d(2), nn.Conv3d(8, 2, 2)],
        "maps3d",
    ),
    "inside of others": (
        lambda: [
            Residual(nn.Sequential(nn.Linear(6, 9), nn.Tanh(), nn.Linear(9, 6))),
            nn.Sequential(nn.Linear(6, 8), nn.Sequential(nn.CELU(), nn.Linear(8, 6))),
            nn.LayerNorm(6),
            MLP(6, [8, 7], 2, norm="batch", activation="elu"),
        ],
        "rows",
    ),
}  # fmt: skip


def inputs(shape: str, seed: int = 1) -> Tensor:
    return random.normal(random.key(seed), SHAPES[shape], torch.float64)


def trained(layers: Any, shape: str) -> tuple[Any, Any, Any]:
    model = functionalize(nn.Sequential(*layers()).double())
    params = {
        name: value + random.normal(random.key(i), value.shape, value.dtype) / 4
        for i, (name, value) in enumerate(model.params.items())
    }
    _, buffers = model.apply(params, model.buffers, inputs(shape), key=random.key(5), train=True)
    return model, params, buffers


def inner(model: Any) -> list[str]:
    """Weights of units that may go: those of all layers but the last, and but ends of branches."""
    names = [n for n, p in model.params.items() if p.ndim > 1]
    ends = ("0.body.0.2", "1.1.1")
    return [n for n in names[:-1] if not any(end in n for end in ends)]


def assert_shrunk(model: Any, params: Any, buffers: Any, masks: Any, shape: str) -> Any:
    small = compress.shrink(model, params, buffers, masks)
    x = inputs(shape, 9)
    wanted, _ = model.apply(compress.apply_masks(params, masks), buffers, x)
    found, _ = small.apply(small.params, small.buffers, x)
    torch.testing.assert_close(found, wanted, rtol=1e-12, atol=1e-12)
    return small


@pytest.mark.parametrize("amount", [0.0, 0.5, 0.9, 1.0])
@pytest.mark.parametrize(("layers", "shape"), NETS.values(), ids=NETS)
def test_pruned_units_are_gone(layers: Any, shape: str, amount: float) -> None:
    model, params, buffers = trained(layers, shape)
    names = inner(model)
    masks = compress.ln_structured(params, amount, where=names)
    small = assert_shrunk(model, params, buffers, masks, shape)
    for name in names:
        units = params[name].shape[0]
        assert small.params[name].shape[0] == max(units - round(amount * units), 1), name
    if amount == 0:
        assert_equal(small.params, params)
        assert_equal(small.buffers, buffers)


@pytest.mark.parametrize(("layers", "shape"), NETS.values(), ids=NETS)
def test_units_that_nothing_reads_are_gone(layers: Any, shape: str) -> None:
    model, params, buffers = trained(layers, shape)
    last = [n for n, p in params.items() if p.ndim > 1][-1]
    masks = compress.ln_structured(params, 0.5, dim=1, where=last)
    small = assert_shrunk(model, params, buffers, masks, shape)
    units = params[inner(model)[-1]].shape[0]
    read = masks[last].movedim(1, 0).reshape(units, -1).any(1)
    assert small.params[inner(model)[-1]].shape[0] == read.sum()
    assert small.params[last].shape[1] * units == params[last].shape[1] * read.sum()


@given(st.lists(st.integers(1, 9), min_size=2, max_size=4), st.integers(0, 99), st.floats(0, 1))
def test_any_masks_of_any_network(sizes: list[int], seed: int, amount: float) -> None:
    layers: list[nn.Module] = []
    for fan_in, fan_out in zip([6, *sizes], [*sizes, 2], strict=True):
        layers += [nn.Linear(fan_in, fan_out), nn.BatchNorm1d(fan_out), nn.Sigmoid()]
    model = functionalize(nn.Sequential(*layers[:-2]).double())
    params, buffers = model.init(random.key(seed))
    masks = compress.random_structured(random.key(seed), params, amount)
    masks = compress.random_unstructured(random.key(seed + 1), params, 0.3, masks=masks)
    assert_shrunk(model, params, buffers, masks, "rows")


PADDED: dict[str, Any] = {
    "conv": lambda: [nn.Conv2d(3, 8, 3, padding=1), nn.ReLU(), nn.Conv2d(8, 2, 3, padding=1)],
    "batch norm": lambda: [
        *(nn.Conv2d(3, 8, 3), nn.BatchNorm2d(8), nn.Tanh(), nn.Conv2d(8, 2, 3, padding="same")),
    ],
    "average": lambda: [
        *(nn.Conv2d(3, 8, 3), nn.Dropout2d(), nn.BatchNorm2d(8), nn.GELU()),
        *(nn.AvgPool2d(2, padding=1), nn.Conv2d(8, 2, 3)),
    ],
    "divisor": lambda: [
        *(nn.Conv2d(3, 8, 3), nn.AvgPool2d(2, divisor_override=3), nn.Conv2d(8, 2, 3)),
    ],
}


@pytest.mark.parametrize("layers", PADDED.values(), ids=PADDED)
def test_zero_padding_needs_units_that_are_0(layers: Any) -> None:
    model, params, buffers = trained(layers, "maps2d")
    params["0.bias"] = params["0.bias"].abs() + 0.1  # not 0 behind a ReLU
    masks = compress.ln_structured(params, 0.5, where="0.weight")
    with pytest.raises(ValueError, match=r"padded with zeros. Make them 0, by `with_biases"):
        compress.shrink(model, params, buffers, masks)
    masks = compress.with_biases(model, masks)
    small = assert_shrunk(model, params, buffers, masks, "maps2d")
    assert small.params["0.weight"].shape[0] == 4


def test_masks_with_biases() -> None:
    net = nn.Sequential(
        *(nn.Linear(6, 4), nn.Dropout(), nn.BatchNorm1d(4), nn.ReLU()),
        *(nn.Linear(4, 4, bias=False), nn.ReLU(), nn.BatchNorm1d(4), nn.Linear(4, 2)),
    )
    model = functionalize(net)
    masks = {name: torch.ones_like(p) > 0 for name, p in model.params.items() if p.ndim > 1}
    masks["0.weight"][1] = False
    masks["0.weight"][2, 1] = False
    masks["4.weight"][0] = False
    masks["7.weight"][1] = False
    masks["0.bias"] = torch.tensor([False, True, True, True])
    given_ = {name: mask.clone() for name, mask in masks.items()}
    found = compress.with_biases(model, masks)
    assert {n: m.tolist() for n, m in found.items() if m.ndim == 1} == {
        "0.bias": [False, False, True, True],
        "2.weight": [True, False, True, True],
        "2.bias": [True, False, True, True],
        "7.bias": [True, False],
    }
    assert_equal(masks, given_)
    stacked = {name: torch.stack([mask, torch.ones_like(mask)]) for name, mask in masks.items()}
    assert vmap(lambda m: compress.with_biases(model, m))(stacked)["2.bias"].tolist() == [
        [True, False, True, True],
        [True, True, True, True],
    ]


def test_network_slimming() -> None:
    """Channels whose batch norm has the weight 0 are constant, whatever their weights."""
    model, params, buffers = trained(NETS["maps"][0], "maps2d")
    masks = compress.l1_unstructured(params, 0.5, where="1.weight")
    small = assert_shrunk(model, params, buffers, masks, "maps2d")
    assert small.params["0.weight"].shape[0] == 4


def test_small_models_are_models() -> None:
    """In float32: trained on, drawn anew, taken out as modules, and a run keeps its gradients."""
    model = functionalize(
        nn.Sequential(nn.Linear(6, 8), nn.BatchNorm1d(8), nn.ReLU(), nn.Linear(8, 3))
    )
    masks = compress.ln_structured(model.params, 0.75, where="0.weight")
    small = compress.shrink(model, model.params, model.buffers, masks)
    x, y = random.normal(random.key(0), (9, 6)), torch.arange(9) % 3
    wanted, _ = model.apply(compress.apply_masks(model.params, masks), model.buffers, x)
    found, _ = small.apply(small.params, small.buffers, x)
    assert (found - wanted).abs().max() < 1e-6
    params, _ = small.init(random.key(0))
    assert params["0.weight"].shape == (2, 6)
    step = train.make_step(train.supervised(small, F.cross_entropy), optim.sgd(0.1))
    _, info = step(train.init(small, optim.sgd(0.1), random.key(0)), (x, y))
    assert info["loss"].isfinite()
    module = small.to_module(small.params, small.buffers)
    assert (module[0].out_features, module[1].num_features, module[3].in_features) == (2, 2, 2)
    torch.testing.assert_close(module(x), found)


def test_frozen_models_are_shrunk_by_their_values() -> None:
    model, params, buffers = trained(NETS["linear"][0], "rows")
    frozen = transfer.freeze(model, "0.*")
    rest = {name: value for name, value in params.items() if name in frozen.params}
    values = {**buffers, **{n: v for n, v in params.items() if n not in rest}}
    values["0.weight"] = values["0.weight"] * torch.tensor([1.0, 0, 0, 0, 1, 1, 1, 1])[:, None]
    small = compress.shrink(frozen, rest, values)
    assert small.params["0.weight"].shape == (5, 6)


@pytest.mark.parametrize(
    ("layers", "message"),
    [
        ([nn.Linear(6, 8), nn.LayerNorm(8), nn.Linear(8, 2)], "'1', a LayerNorm, does with units"),
        ([nn.Linear(6, 8), nn.Softmax(1), nn.Linear(8, 2)], "'1', a Softmax, does with units"),
        ([nn.Linear(6, 8), nn.MaxPool1d(2), nn.Linear(4, 2)], "'1', a MaxPool1d, does with units"),
        (
            [nn.Linear(6, 8), nn.BatchNorm1d(8, track_running_stats=False), nn.Linear(8, 2)],
            "'1', a BatchNorm1d, does with units",
        ),
        ([nn.Conv2d(3, 6, 3, groups=3), nn.ReLU(), nn.Conv2d(6, 2, 3)], "it has groups"),
        ([nn.Conv2d(4, 6, 3), nn.ReLU(), nn.Conv2d(6, 2, 3, groups=2)], "'2' reads 6 inputs"),
        ([nn.Conv2d(4, 6, 3), nn.Linear(8, 2)], "'1' reads 8 inputs, and of 6 units"),
        ([nn.Linear(6, 8), nn.Flatten(), nn.Linear(16, 2)], "'2' reads 16 inputs, and of 8"),
    ],
)
def test_what_cannot_be_followed_raises(layers: list[nn.Module], message: str) -> None:
    model = functionalize(nn.Sequential(*layers))
    masks = compress.ln_structured(model.params, 0.5, where="0.weight")
    with pytest.raises(ValueError, match=message):
        compress.shrink(model, model.params, model.buffers, masks)
    same = compress.shrink(model, model.params, model.buffers)  # nothing is to go
    assert_equal(same.params, model.params)


def test_stacked_runs_raise() -> None:
    model = functionalize(nn.Sequential(nn.Linear(6, 8), nn.ReLU(), nn.Linear(8, 2)))
    params, buffers = vmap(model.init)(random.split(random.key(0), 3))
    with pytest.raises(ValueError, match="`params` must be those of one run"):
        compress.shrink(model, params, buffers)
    with pytest.raises(RuntimeError, match="`shrink` looks at values, which vmap"):
        vmap(lambda p: compress.shrink(model, p, {}).params)(params)
