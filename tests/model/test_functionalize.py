"""`functionalize` against the module itself; what it keeps apart, what it refuses, what it says."""

from __future__ import annotations

import copy
import functools
import inspect
from typing import Any

import asserts
import pytest
import torch
import torch.nn.functional as F
from modules import Lambda
from torch import Tensor, nn, vmap
from torch.nn.utils import parametrizations, prune

from fdnn import Model, functionalize, random, tree

KEY = random.key(50)

pytestmark = pytest.mark.filterwarnings("ignore:LSTM with projections is not supported with oneDNN")


def draw(*shape: int, dtype: torch.dtype = torch.float32) -> Tensor:
    return random.normal(random.key(51), shape, dtype)


class Net(nn.Module):
    """A little of everything: a parameter, a buffer, dropout, a flag, a hook's target."""

    def __init__(self) -> None:
        super().__init__()
        self.linear = nn.Linear(4, 3)
        self.norm = nn.BatchNorm1d(3)
        self.relu = nn.ReLU(inplace=True)
        self.dropout = nn.Dropout(0.5, inplace=True)
        self.offset = torch.ones(3)  # neither parameter nor buffer

    def forward(self, x: Tensor) -> Tensor:
        return self.dropout(self.relu(self.norm(self.linear(x)))) + self.offset


assert_close = functools.partial(asserts.assert_close, rtol=1e-5, atol=1e-6)


def buffers_of(module: nn.Module) -> dict[str, Tensor]:
    return {name: value.detach().clone() for name, value in module.named_buffers()}


def call(model: Model, *args: Any, **kwargs: Any) -> Any:
    """Apply with the module's own values; the output alone."""
    return model.apply(model.params, model.buffers, *args, **kwargs)[0]


def test_eval_is_the_modules(case: Any) -> None:
    if case.noisy_eval:
        return
    module = case.make(0.5)
    model = functionalize(module)
    output, buffers = model.apply(model.params, model.buffers, *case.inputs, **case.kwargs)
    module.eval()
    assert_close(output, module(*case.inputs, **case.kwargs))
    assert_close(buffers, buffers_of(module))


def test_train_is_the_modules(case: Any) -> None:
    """With nothing dropped; running statistics included, over several calls."""
    if case.noisy_train:
        return
    module = case.make(0.0)
    model = functionalize(module)
    buffers = model.buffers
    module.train()
    for _ in range(3):
        output, buffers = model.apply(
            model.params, buffers, *case.inputs, train=True, **case.kwargs
        )
        assert_close(output, module(*case.inputs, **case.kwargs))
        assert_close(buffers, buffers_of(module))


def test_gradient_is_the_modules(case: Any) -> None:
    """Of a shared or tied parameter it is the sum over its uses."""
    if case.noisy_train:
        return
    module = case.make(0.0).train()
    model = functionalize(module)

    def loss_of(output: Any) -> Tensor:
        return sum((leaf.sin() * draw(*leaf.shape)).sum() for leaf in tree.leaves(output))

    def loss(params: Any) -> Tensor:
        output, _ = model.apply(params, model.buffers, *case.inputs, train=True, **case.kwargs)
        return loss_of(output)

    loss_of(module(*case.inputs, **case.kwargs)).backward()
    expected = {
        name: torch.zeros_like(p) if p.grad is None else p.grad
        for name, p in module.named_parameters()
    }
    torch.testing.assert_close(torch.func.grad(loss)(model.params), expected, rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize(
    "layer",
    [
        nn.Dropout(0.4),
        nn.Dropout1d(0.4),
        nn.Dropout2d(0.4),
        nn.Dropout3d(0.4),
        nn.AlphaDropout(0.4),
        nn.FeatureAlphaDropout(0.4),
        Lambda(torch.rand_like),
    ],
    ids=lambda layer: type(layer).__name__,
)
@pytest.mark.parametrize("chunk_size", [None, 1, 2])
def test_masks_of_a_lane_are_the_solo_masks(layer: nn.Module, chunk_size: int | None) -> None:
    """Bit for bit, and without anything stacked but the keys."""
    model, x = functionalize(nn.Sequential(layer, layer)), torch.ones(3, 4, 3, 3, 3)
    x = x[..., 0, 0] if isinstance(layer, nn.Dropout1d) else x
    x = x[..., 0] if isinstance(layer, nn.Dropout2d) else x
    keys = random.split(KEY, 5)

    def masks(key: Tensor) -> Tensor:
        return call(model, x, key=key, train=True)

    found = vmap(masks, chunk_size=chunk_size)(keys)
    expected = torch.stack([masks(key) for key in keys])
    assert torch.equal(found == found.max(), expected == expected.max())
    torch.testing.assert_close(found, expected)
    assert len({mask.numpy().tobytes() for mask in found}) == 5


def test_global_generator_decides_nothing(case: Any) -> None:
    model = functionalize(case.make(0.5))
    outputs = []
    for seed in (0, 1):
        with torch.random.fork_rng(devices=[]):
            torch.manual_seed(seed)
            before = torch.get_rng_state()
            outputs.append(call(model, *case.inputs, key=KEY, train=True, **case.kwargs))
            assert torch.equal(torch.get_rng_state(), before)
    for one, other in zip(*map(tree.leaves, outputs), strict=True):
        assert torch.equal(one, other)


def test_module_given_is_left_alone() -> None:
    module = Net().train()
    module.relu.eval()  # flags that differ from each other
    seen: list[str] = []
    module.linear.register_forward_hook(lambda *_: seen.append("hook"))
    before = copy.deepcopy(module)
    attributes = {name: list(vars(layer)) for name, layer in module.named_modules()}
    model = functionalize(module)
    params, buffers = model.init(KEY)
    for train in (True, False):
        model.apply(params, buffers, draw(6, 4), key=KEY, train=train)
    assert seen == ["hook", "hook"]
    for name, value in before.state_dict().items():
        assert torch.equal(module.state_dict()[name], value), name
    for (name, layer), old in zip(module.named_modules(), before.modules(), strict=True):
        assert list(vars(layer)) == attributes[name]
        assert layer.training == old.training
        assert getattr(layer, "inplace", None) == getattr(old, "inplace", None)
        assert len(layer._forward_hooks) == len(old._forward_hooks)
    assert all(p.requires_grad and p.grad is None for p in module.parameters())


def test_model_is_left_alone_by_the_module() -> None:
    """Training, freezing or mutilating the module afterwards changes nothing."""
    module = Net()
    model, x = functionalize(module), draw(6, 4)
    params = tree.map(torch.clone, (model.params, model.buffers))
    expected = [call(model, x, key=KEY, train=train) for train in (True, False)]
    with torch.no_grad():
        for value in [*module.parameters(), *module.buffers(), module.offset]:
            value.fill_(7)
    module.eval().requires_grad_(False)
    module.dropout.p = 0.9
    module.linear.register_forward_hook(lambda layer, x, y: 0 * y)
    module.relu = nn.Sigmoid()
    found = [call(model, x, key=KEY, train=train) for train in (True, False)]
    torch.testing.assert_close(found, expected, rtol=0, atol=0)
    torch.testing.assert_close((model.params, model.buffers), params, rtol=0, atol=0)


def test_skeleton_holds_no_weights(case: Any) -> None:
    """After a call too: nothing of it lingers, no graph, no lane."""
    model = functionalize(case.make(0.5))
    params = tree.map(lambda value: value.clone().requires_grad_(), model.params)
    for train, run in ((True, model), (False, model), (True, model.settled())):
        run.apply(params, model.buffers, *case.inputs, key=KEY, train=train, **case.kwargs)
    for skeleton in (model._train, model._eval, model._settled):
        values = [*skeleton.parameters(), *skeleton.buffers()]
        assert all(value.is_meta and not value.requires_grad for value in values)


def test_settled_statistics_stay(case: Any) -> None:
    """A settled model is in train mode, but for what would move statistics."""
    model = functionalize(case.make(0.5)).settled()
    _, buffers = model.apply(
        model.params, model.buffers, *case.inputs, key=KEY, train=True, **case.kwargs
    )
    asserts.assert_equal(buffers, model.buffers)
    for layer in model.skeleton(train=True).modules():
        assert layer.training != isinstance(layer, nn.modules.batchnorm._NormBase)


def in_place_layers() -> list[nn.Module]:
    """One of each layer of torch that has the argument `inplace`."""
    classes = [value for _, value in sorted(vars(nn).items()) if inspect.isclass(value)]
    found = [layer for layer in classes if "inplace" in inspect.signature(layer).parameters]
    return [
        layer(0.1, 20.0, inplace=True) if layer is nn.Threshold else layer(inplace=True)
        for layer in found
    ]


@pytest.mark.parametrize("layer", in_place_layers(), ids=lambda layer: type(layer).__name__)
@pytest.mark.parametrize("train", [True, False])
def test_inputs_are_not_overwritten(layer: nn.Module, train: bool) -> None:
    x = draw(3, 4, 5, 6, 2) if isinstance(layer, nn.Dropout3d) else draw(3, 4, 5, 6)
    x = x[..., 0] if isinstance(layer, nn.Dropout1d) else x
    before, model = x.clone(), functionalize(layer)
    output = call(model, x, key=KEY, train=train)
    assert torch.equal(x, before)
    assert layer.inplace is True
    if not train:
        torch.testing.assert_close(output, layer.eval()(x))
        assert not torch.equal(x, before) or "Dropout" in type(layer).__name__  # it would have


def test_tied_parameters_are_one_entry() -> None:
    embedding, head = nn.Embedding(7, 4), nn.Linear(4, 7, bias=False)
    head.weight = embedding.weight
    model, x = functionalize(nn.Sequential(embedding, head)), torch.tensor([1, 5])
    assert list(model.params) == ["0.weight"]
    table = draw(7, 4, dtype=torch.float64)
    output, _ = model.apply({"0.weight": table}, {}, x)
    torch.testing.assert_close(output, table[x] @ table.T)


def test_tied_buffers_stay_tied() -> None:
    class Counters(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.register_buffer("count", torch.zeros(2))
            self.register_buffer("same", self.count)

        def forward(self, x: Tensor) -> Tensor:
            self.count.add_(1)
            return x + self.same

    model = functionalize(Counters())
    assert list(model.buffers) == ["count"]
    output, buffers = model.apply({}, model.buffers, torch.zeros(2))
    assert torch.equal(output, torch.ones(2))
    assert torch.equal(buffers["count"], torch.ones(2))
    assert torch.equal(model.buffers["count"], torch.zeros(2))


def test_buffer_that_is_assigned_is_returned() -> None:
    class Average(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.register_buffer("mean", torch.zeros(2), persistent=False)

        def forward(self, x: Tensor) -> Tensor:
            self.mean = 0.5 * self.mean + 0.5 * x.mean(0)
            return x - self.mean

    model, x = functionalize(Average()), torch.ones(3, 2)
    output, buffers = model.apply({}, model.buffers, x)
    assert torch.equal(buffers["mean"], torch.full((2,), 0.5))
    assert torch.equal(output, torch.full((3, 2), 0.5))
    stacked = {"mean": torch.tensor([[0.0, 0.0], [1.0, 1.0]])}
    _, buffers = vmap(lambda buffers: model.apply({}, buffers, x))(stacked)
    assert torch.equal(buffers["mean"], torch.tensor([[0.5, 0.5], [1.0, 1.0]]))


@pytest.mark.parametrize("layer", [nn.Embedding, nn.EmbeddingBag])
def test_max_norm_writes_into_nothing(layer: Any) -> None:
    """Rows are renormalized for the call; the parameters given stay as they are."""
    module = layer(5, 3, max_norm=0.5)
    model, x = functionalize(nn.Sequential(module)), torch.tensor([[0, 3]])
    before = tree.map(torch.clone, model.params)

    def loss(params: Any) -> Tensor:
        return (model.apply(params, {}, x)[0] * draw(3)).sum()

    output, gradient = call(model, x), torch.func.grad(loss)(model.params)
    assert torch.equal(model.params["0.weight"], before["0.weight"])
    expected = module(x)
    assert not torch.equal(module.weight, before["0.weight"])  # the module's own was written to
    torch.testing.assert_close(output, expected)
    (expected * draw(3)).sum().backward()
    torch.testing.assert_close(gradient["0.weight"], module.weight.grad)
    traced = torch.compile(torch.func.grad(loss), fullgraph=True, backend="aot_eager")
    torch.testing.assert_close(traced(before), gradient)


def test_not_a_module() -> None:
    with pytest.raises(TypeError, match=r"`module` must be an nn\.Module, got <built-in"):
        functionalize(torch.sin)  # type: ignore[arg-type]


def test_lazy_layer() -> None:
    with pytest.raises(ValueError, match=r"lazy parameter '0.weight' without a shape; call it"):
        functionalize(nn.Sequential(nn.LazyLinear(3)))


@pytest.mark.filterwarnings("ignore:`torch.jit.script` is deprecated")
def test_scripted_part() -> None:
    scripted = torch.jit.script(nn.Dropout(0.5))
    with pytest.raises(TypeError, match="scripted part '1', whose random operations cannot be se"):
        functionalize(nn.Sequential(nn.Linear(3, 3), scripted))


def test_pruned_layer() -> None:
    layer = nn.Linear(3, 3)
    prune.l1_unstructured(layer, "weight", 0.5)
    with pytest.raises(ValueError, match=r"holds a tensor 'weight' in '0'.*prune\.remove"):
        functionalize(nn.Sequential(layer))
    prune.remove(layer, "weight")
    assert_close(call(functionalize(nn.Sequential(layer)), draw(2, 3)), layer(draw(2, 3)))


@pytest.mark.parametrize("argument", ["params", "buffers"])
def test_missing_and_unknown_names(argument: str) -> None:
    model = functionalize(nn.Sequential(nn.Linear(3, 3), nn.BatchNorm1d(3)))
    given = {"params": dict(model.params), "buffers": dict(model.buffers)}
    name = next(iter(given[argument]))
    given[argument]["other"] = given[argument].pop(name)
    message = rf"`{argument}` must have the module's names: missing \['{name}'\], unknown \['other'"
    with pytest.raises(ValueError, match=message):
        model.apply(*given.values(), draw(2, 3))


def test_key_is_missing_or_no_key() -> None:
    model, x = functionalize(nn.Dropout(0.5)), draw(2, 3)
    assert torch.equal(call(model, x), x)
    with pytest.raises(ValueError, match=r"`key` must be given.*random operation 'dropout'"):
        call(model, x, train=True)
    with pytest.raises(ValueError, match=r"`key` must be a key.*vmap over a stack of keys"):
        call(model, x, train=True, key=random.split(KEY, 2))


def test_error_in_forward_does_no_harm() -> None:
    model = functionalize(Net())
    expected = call(model, draw(6, 4))
    with pytest.raises(RuntimeError, match="shapes cannot be multiplied"):
        call(model, draw(6, 5))
    assert torch.equal(call(model, draw(6, 4)), expected)


def test_other_errors_are_not_retold() -> None:
    model = functionalize(Lambda(lambda x: x.add_(1)))
    with pytest.raises(RuntimeError, match=r"^a leaf Variable that requires grad is being used in"):
        call(model, draw(3).requires_grad_())


def test_unstacked_buffers_under_vmap() -> None:
    module = nn.Sequential(nn.Dropout(0.5), nn.BatchNorm1d(4))
    model, keys = functionalize(module), random.split(KEY, 3)

    def train(key: Tensor, buffers: Any) -> Any:
        return model.apply(model.params, buffers, draw(6, 4), key=key, train=True)

    with pytest.raises(RuntimeError, match="buffers must be stacked like the parameters"):
        vmap(train, in_dims=(0, None))(keys, model.buffers)
    _, buffers = vmap(train)(keys, tree.stack([model.buffers] * 3))
    assert buffers["1.running_mean"].shape == (3, 4)
    assert (buffers["1.num_batches_tracked"] == 1).all()


def test_fresh_tensor_filled_under_vmap() -> None:
    module = Lambda(lambda x: x * torch.empty(4).exponential_())
    model, keys = functionalize(module), random.split(KEY, 3)
    assert call(model, draw(4), key=KEY).shape == (4,)
    with pytest.raises(RuntimeError, match=r"`torch.empty\(3\).exponential_\(\)`\) must be drawn"):
        vmap(lambda key: call(model, draw(4), key=key))(keys)


def test_batch_norm_with_cumulative_average() -> None:
    """`momentum=None` reads the count of batches as a Python number."""
    module = nn.BatchNorm1d(4, momentum=None)
    model, buffers = functionalize(module), None
    for seed in range(3):
        x = random.normal(random.key(seed), (6, 4))
        output, buffers = model.apply(model.params, buffers or model.buffers, x, train=True)
        torch.testing.assert_close(output, module(x))
    torch.testing.assert_close(buffers, buffers_of(module))
    with pytest.raises(RuntimeError, match=r"an operation that vmap cannot batch.*item.*gotchas"):
        vmap(lambda b: model.apply(model.params, b, draw(6, 4), train=True))(
            tree.stack([model.buffers] * 2)
        )


@pytest.mark.parametrize("decide", [lambda x: bool(x.sum() > 0), lambda x: x.sum().item() > 0])
def test_control_flow_by_values(decide: Any) -> None:
    model = functionalize(Lambda(lambda x: x if decide(x) else -x))
    assert torch.equal(call(model, -torch.ones(2)), torch.ones(2))
    with pytest.raises(RuntimeError, match=r"lets a tensor decide what Python does.*torch\.where"):
        vmap(lambda x: call(model, x))(draw(3, 2))


def test_repr() -> None:
    assert repr(functionalize(Net())) == "Model(Net, 21 parameters, 3 buffers)"
    assert "1,001,000 parameters" in repr(functionalize(nn.Linear(1000, 1000)))


def test_nested_outputs() -> None:
    class Nested(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.linear = nn.Linear(4, 3)

        def forward(self, x: Tensor, *, scales: list[float]) -> Any:
            y = self.linear(x)
            return {"y": y, "rest": (y.sum(), [y * scale for scale in scales], {})}, None, 3

    module = Nested()
    model = functionalize(module)
    (nested, none, three), buffers = model.apply(model.params, {}, draw(6, 4), scales=[0.5, 2.0])
    assert_close(nested, module(draw(6, 4), scales=[0.5, 2.0])[0])
    assert (none, three, buffers) == (None, 3, {})


@pytest.mark.parametrize("dtype", [torch.float64, torch.bfloat16])
def test_dtype_is_kept(dtype: torch.dtype) -> None:
    module = nn.Sequential(
        nn.Linear(4, 6),
        nn.BatchNorm1d(6),
        nn.Dropout(0.5),
        nn.AlphaDropout(0.1),
        nn.RReLU(),
        Lambda(lambda x: x + torch.randn_like(x)),
        Lambda(F.gumbel_softmax),
        Lambda(lambda x: F.scaled_dot_product_attention(x, x, x, dropout_p=0.5)),
    ).to(dtype)
    model = functionalize(module)
    params, buffers = model.init(KEY)
    output, moved = model.apply(params, buffers, draw(6, 4).to(dtype), key=KEY, train=True)
    assert output.dtype == dtype
    assert {name: b.dtype for name, b in moved.items()} == {n: b.dtype for n, b in buffers.items()}


def test_complex_parameters() -> None:
    module = nn.Sequential(nn.Linear(4, 3, dtype=torch.complex128), Lambda(torch.abs))
    model, x = functionalize(module), draw(6, 4, dtype=torch.complex128)

    def loss(params: Any) -> Tensor:
        return model.apply(params, {}, x)[0].square().sum()

    gradient = torch.func.grad(loss)(model.params)
    module(x).square().sum().backward()
    torch.testing.assert_close(gradient, {n: p.grad for n, p in module.named_parameters()})
    lanes = tree.stack([model.params, gradient])
    expected = torch.stack([loss(model.params), loss(gradient)])
    torch.testing.assert_close(vmap(loss)(lanes), expected)


def test_under_no_grad() -> None:
    model = functionalize(Net())
    params = tree.map(lambda value: value.clone().requires_grad_(), model.params)
    expected, _ = model.apply(params, model.buffers, draw(6, 4), key=KEY, train=True)
    with torch.no_grad():
        found, buffers = model.apply(params, model.buffers, draw(6, 4), key=KEY, train=True)
    assert expected.requires_grad
    assert not found.requires_grad
    assert not any(value.requires_grad for value in buffers.values())
    assert torch.equal(found, expected)


def test_plain_tensor_attributes_are_constants() -> None:
    module = Net()
    model = functionalize(module)
    assert "offset" not in {**model.params, **model.buffers}
    expected = module.eval()(draw(6, 4))
    module.offset.zero_()
    torch.testing.assert_close(call(model, draw(6, 4)), expected)


def test_hooks_run_with_the_values_of_the_call() -> None:
    module = nn.Sequential(nn.Linear(4, 3))
    module[0].register_forward_hook(lambda layer, inputs, output: output + layer.bias)
    module.register_forward_pre_hook(lambda layer, inputs: (2 * inputs[0],))
    model, x = functionalize(module), draw(6, 4)
    torch.testing.assert_close(call(model, x), module(x))
    params = {"0.weight": torch.zeros(3, 4), "0.bias": torch.ones(3)}
    output, _ = model.apply(params, {}, x)
    assert torch.equal(output, torch.full((6, 3), 2.0))
    lanes = tree.stack([params, model.params])
    assert vmap(lambda params: model.apply(params, {}, x)[0])(lanes).shape == (2, 6, 3)


PARAMETRIZATIONS = {
    "weight_norm": parametrizations.weight_norm,
    "spectral_norm": parametrizations.spectral_norm,
    "orthogonal": parametrizations.orthogonal,
}


@pytest.mark.parametrize("name", PARAMETRIZATIONS)
@pytest.mark.parametrize("train", [True, False])
def test_parametrized_layer(name: str, train: bool) -> None:
    module = nn.Sequential(PARAMETRIZATIONS[name](nn.Linear(4, 3))).train(train)
    model, x = functionalize(module), draw(6, 4)

    def loss(params: Any) -> tuple[Tensor, Any]:
        output, buffers = model.apply(params, model.buffers, x, train=train)
        return output.sin().sum(), buffers

    gradient, buffers = torch.func.grad(loss, has_aux=True)(model.params)
    output = module(x)
    output.sin().sum().backward()
    torch.testing.assert_close(call(model, x, train=train), output)
    torch.testing.assert_close(gradient, {n: p.grad for n, p in module.named_parameters()})
    torch.testing.assert_close(buffers, buffers_of(module))


@pytest.mark.filterwarnings("ignore:There is a performance drop")
@pytest.mark.parametrize("name", PARAMETRIZATIONS)
def test_parametrized_layer_under_vmap(name: str) -> None:
    """Slowly, with vmap's warning; spectral_norm in eval mode only."""
    model = functionalize(PARAMETRIZATIONS[name](nn.Linear(4, 3)))
    two = [model.params, tree.map(lambda value: 2 * value, model.params)]
    buffers = tree.stack([model.buffers] * 2) if model.buffers else {}

    def run(params: Any, buffers: Any, train: bool = False) -> Tensor:
        return model.apply(params, buffers, draw(6, 4), train=train)[0]

    expected = torch.stack([run(params, model.buffers) for params in two])
    torch.testing.assert_close(vmap(run)(tree.stack(two), buffers), expected)
    if name == "spectral_norm":
        with pytest.raises(RuntimeError, match="an operation that vmap cannot batch"):
            vmap(lambda *lane: run(*lane, train=True))(tree.stack(two), buffers)


def test_padding_mask_of_attention() -> None:
    """Traced too, where torch's own check of it cannot be traced."""
    module = nn.MultiheadAttention(8, 2, dropout=0.5, batch_first=True)
    model, x = functionalize(module), draw(2, 4, 8)
    mask = torch.tensor([[False] * 4, [False, False, True, True]])

    def run(params: Any, key: Tensor | None) -> Any:
        train = key is not None
        return model.apply(params, {}, x, x, x, key_padding_mask=mask, key=key, train=train)[0]

    assert_close(run(model.params, None), module.eval()(x, x, x, key_padding_mask=mask))
    traced = torch.compile(run, fullgraph=True, backend="aot_eager")
    assert_close(traced(model.params, KEY), run(model.params, KEY))
    with pytest.raises(AssertionError, match=r"must have shape \(2, 4\), got \(4, 2\)"):
        call(model, x, x, x, key_padding_mask=mask.T, key=KEY)
