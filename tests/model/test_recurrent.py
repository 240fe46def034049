"""The loops and cells against torch's fused kernels: values, states and gradients."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor, nn, vmap
from torch.nn.utils.rnn import pack_padded_sequence

from fdnn import functionalize, random, tree

FEATURES, HIDDEN, TIME, BATCH = 3, 4, 5, 2
CELLS = {nn.RNN: nn.RNNCell, nn.LSTM: nn.LSTMCell, nn.GRU: nn.GRUCell}


def draw(seed: int, *shape: int) -> Tensor:
    return random.normal(random.key(seed), shape, torch.float64)


def with_gradients(outputs: Any, *inputs: Any) -> list[Tensor]:
    """Output leaves, and the gradients of a random functional of them."""
    leaves = tree.leaves(outputs)
    loss = sum((leaf * draw(i, *leaf.shape)).sum() for i, leaf in enumerate(leaves))
    return leaves + list(torch.autograd.grad(loss, tree.leaves(inputs)))


def tracked(values: Any) -> Any:
    return tree.map(lambda value: value.detach().clone().requires_grad_(), values)


def assert_torchs(module: nn.Module, *inputs: Any) -> None:
    """`apply` gives the module's values and gradients, of the parameters and all inputs."""
    model = functionalize(module)
    params, inputs = tracked(model.params), tracked(inputs)
    found = with_gradients(model.apply(params, {}, *inputs)[0], params, inputs)
    module.eval()
    own = dict(module.named_parameters())
    expected = with_gradients(module(*inputs), own, inputs)
    torch.testing.assert_close(found, expected, rtol=1e-10, atol=1e-10)


@st.composite
def layers(draws: st.DrawFn) -> tuple[nn.Module, tuple[Any, ...]]:
    """A recurrent layer with what it is called on."""
    kind = draws(st.sampled_from([nn.RNN, nn.LSTM, nn.GRU]))
    flag = st.booleans()
    options: dict[str, Any] = {
        "num_layers": draws(st.integers(1, 3)),
        "bias": draws(flag),
        "batch_first": draws(flag),
        "bidirectional": draws(flag),
        "dropout": draws(st.sampled_from([0.0, 0.5])),
    }
    out = HIDDEN
    if kind is nn.RNN:
        options["nonlinearity"] = draws(st.sampled_from(["tanh", "relu"]))
    if kind is nn.LSTM and draws(flag):
        options["proj_size"] = out = 2
    if options["num_layers"] == 1:
        options["dropout"] = 0.0  # torch warns that it would do nothing
    module = kind(FEATURES, HIDDEN, dtype=torch.float64, **options)
    batch = draws(st.sampled_from([(), (1,), (BATCH,)]))
    time = draws(st.integers(1, TIME))
    shape = (*batch, time) if options["batch_first"] else (time, *batch)
    inputs: tuple[Any, ...] = (draw(11, *shape, FEATURES),)
    if draws(flag):
        count = options["num_layers"] * (2 if options["bidirectional"] else 1)
        hidden = draw(12, count, *batch, out)
        inputs += ((hidden, draw(13, count, *batch, HIDDEN)) if kind is nn.LSTM else hidden,)
    return module, inputs


@given(layers())
@settings(max_examples=150)
def test_layer_is_torchs(layer: tuple[nn.Module, tuple[Any, ...]]) -> None:
    module, inputs = layer
    assert_torchs(module, *inputs)


@given(
    kind=st.sampled_from([nn.RNNCell, nn.LSTMCell, nn.GRUCell]),
    bias=st.booleans(),
    nonlinearity=st.sampled_from(["tanh", "relu"]),
    batch=st.sampled_from([(), (1,), (BATCH,)]),
    with_state=st.booleans(),
)
def test_cell_is_torchs(
    kind: Any, bias: bool, nonlinearity: str, batch: tuple[int, ...], with_state: bool
) -> None:
    options = {"nonlinearity": nonlinearity} if kind is nn.RNNCell else {}
    cell = kind(FEATURES, HIDDEN, bias=bias, dtype=torch.float64, **options)
    inputs: tuple[Any, ...] = (draw(11, *batch, FEATURES),)
    if with_state:
        state = draw(12, *batch, HIDDEN)
        inputs += ((state, draw(13, *batch, HIDDEN)) if kind is nn.LSTMCell else state,)
    assert_torchs(cell, *inputs)


@pytest.mark.parametrize("kind", CELLS.values())
@pytest.mark.parametrize("batched", [False, True])
def test_cell_vmapped(kind: Any, batched: bool) -> None:
    """Without a gradient too, where torch's fused cells have no batching rule."""
    model = functionalize(kind(FEATURES, HIDDEN))
    params, _ = vmap(model.init)(random.split(random.key(0), 3))
    x = draw(11, *(BATCH,) * batched, FEATURES).float()

    def run(params: Any) -> Any:
        return model.apply(params, {}, x)[0]

    expected = tree.stack([run(lane) for lane in tree.unstack(params)])
    torch.testing.assert_close(vmap(run)(params), expected)


@pytest.mark.parametrize("kind", CELLS)
def test_dropout_between_layers_in_train_mode_only(kind: Any) -> None:
    """With all dropped, the second layer sees zeros, and its own output is untouched."""
    module = kind(FEATURES, HIDDEN, num_layers=2, dropout=1.0, dtype=torch.float64)
    model, x = functionalize(module), draw(11, TIME, BATCH, FEATURES)
    second = kind(HIDDEN, HIDDEN, dtype=torch.float64)
    second.load_state_dict(
        {name: module.state_dict()[name.replace("l0", "l1")] for name in second.state_dict()}
    )
    (output, _), _ = model.apply(model.params, {}, x, key=random.key(0), train=True)
    torch.testing.assert_close(output, second(torch.zeros(TIME, BATCH, HIDDEN).double())[0])
    (output, _), _ = model.apply(model.params, {}, x)
    torch.testing.assert_close(output, module.eval()(x)[0])


@pytest.mark.parametrize("kind", CELLS)
def test_dropout_is_of_the_key(kind: Any) -> None:
    module = kind(FEATURES, HIDDEN, num_layers=3, dropout=0.5)
    model, x = functionalize(module), torch.ones(TIME, BATCH, FEATURES)
    draws = []
    for seed in range(2):
        (output, _), _ = model.apply(model.params, {}, x, key=random.key(seed), train=True)
        draws.append(output)
    assert not torch.equal(*draws)
    single = functionalize(kind(FEATURES, HIDDEN))  # nothing between layers: nothing drawn
    single.apply(single.params, {}, x, train=True)


@pytest.mark.parametrize("kind", CELLS)
def test_nothing_stays_behind(kind: Any) -> None:
    """The module given is as it was, and can still run its own kernel."""
    module = nn.Sequential(kind(FEATURES, HIDDEN))
    x = torch.ones(TIME, BATCH, FEATURES)
    expected = module(x)
    functionalize(module)
    assert type(module[0]) is kind
    torch.testing.assert_close(module(x), expected, rtol=0, atol=0)


def test_packed_sequence_is_refused() -> None:
    model = functionalize(nn.LSTM(FEATURES, HIDDEN))
    packed = pack_padded_sequence(torch.ones(TIME, BATCH, FEATURES), torch.tensor([5, 3]))
    with pytest.raises(TypeError, match=r"got a PackedSequence.*pad the sequences and mask"):
        model.apply(model.params, {}, packed)


@pytest.mark.parametrize(
    ("module", "hx", "expected"),
    [
        (nn.GRU(FEATURES, HIDDEN), torch.zeros(1, 1, HIDDEN), r"\(1, 2, 4\), got \(1, 1, 4\)"),
        (nn.RNN(FEATURES, HIDDEN, 2), torch.zeros(1, 2, HIDDEN), r"\(2, 2, 4\), got \(1, 2, 4\)"),
        (
            nn.LSTM(FEATURES, HIDDEN),
            (torch.zeros(1, 1, HIDDEN), torch.zeros(1, BATCH, HIDDEN)),
            r"\(1, 2, 4\), got \(1, 1, 4\)",
        ),
        (
            nn.LSTM(FEATURES, HIDDEN, proj_size=2),
            (torch.zeros(1, 2, 2), torch.zeros(1, 2, 2)),
            r"\(1, 2, 4\), got \(1, 2, 2\)",
        ),
    ],
)
def test_state_of_another_shape_is_an_error(module: nn.Module, hx: Any, expected: str) -> None:
    """It would broadcast."""
    model = functionalize(module)
    with pytest.raises(ValueError, match="`hx` must have shape " + expected):
        model.apply(model.params, {}, torch.ones(TIME, BATCH, FEATURES), hx)


def test_state_of_another_shape_is_an_error_of_a_cell() -> None:
    model = functionalize(nn.GRUCell(FEATURES, HIDDEN))
    with pytest.raises(ValueError, match=r"`hx` must have shape \(2, 4\), got \(1, 4\)"):
        model.apply(model.params, {}, torch.ones(BATCH, FEATURES), torch.zeros(1, HIDDEN))


def test_cells_in_a_loop_traced() -> None:
    """The user's own loop over time, compiled as one graph."""

    class Loop(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.cell = nn.LSTMCell(FEATURES, HIDDEN)

        def forward(self, x: Tensor) -> Tensor:
            state = None
            for now in x:
                state = self.cell(now, state)
            return state[0]

    model, x = functionalize(Loop()), draw(11, TIME, BATCH, FEATURES).float()

    def run(params: Any) -> Tensor:
        return model.apply(params, {}, x)[0]

    traced = torch.compile(run, fullgraph=True, backend="aot_eager")
    torch.testing.assert_close(traced(model.params), run(model.params))


def test_subclass_keeps_its_own_kernel() -> None:
    """Its forward may be its own, so it stays; what it cannot do under a key is an error."""

    class Mine(nn.LSTM):
        pass

    x = torch.ones(TIME, BATCH, FEATURES)
    module = Mine(FEATURES, HIDDEN, num_layers=2, dropout=0.5)
    model = functionalize(module)
    torch.testing.assert_close(model.apply(model.params, {}, x)[0], module.eval()(x))
    with pytest.raises(NotImplementedError, match="'lstm', which fdnn cannot key"):
        model.apply(model.params, {}, x, key=random.key(0), train=True)
