"""Mixed precision: torch's autocast, alone and under transforms."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any

import pytest
import torch
import torch.nn.functional as F
from asserts import assert_close, assert_equal
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor, nn, vmap
from torch.func import grad_and_value

from fdnn import Model, functionalize, metrics, optim, random, train, transfer, tree
from fdnn.train import autocast

HALVES = (torch.bfloat16, torch.float16)


class Recurrent(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.lstm, self.head = nn.LSTM(4, 5, batch_first=True), nn.Linear(5, 3)

    def forward(self, x: Tensor) -> Tensor:
        return self.head(self.lstm(x)[0][:, -1])


def networks() -> dict[str, tuple[nn.Module, tuple[int, ...]]]:
    torch.manual_seed(0)
    return {
        "mlp": (
            nn.Sequential(
                *(nn.Linear(5, 16, bias=False), nn.BatchNorm1d(16), nn.ReLU(), nn.Dropout(0.2)),
                *(nn.LayerNorm(16), nn.Linear(16, 3)),
            ),
            (5,),
        ),
        "convolution": (
            nn.Sequential(
                *(nn.Conv2d(1, 4, 3), nn.BatchNorm2d(4), nn.SiLU(), nn.GroupNorm(2, 4)),
                *(nn.AvgPool2d(2), nn.Flatten(), nn.Linear(16, 3)),
            ),
            (1, 6, 6),
        ),
        "attention": (
            nn.Sequential(
                nn.TransformerEncoderLayer(8, 2, 8, dropout=0.0, batch_first=True),
                *(nn.Flatten(), nn.Linear(24, 3)),
            ),
            (3, 8),
        ),
        "recurrence": (Recurrent(), (3, 4)),
    }


def mixed(module: nn.Module, compute: torch.dtype = torch.bfloat16) -> Model:
    return train.mixed_precision(functionalize(module), train.Policy(compute=compute))


def batch_of(shape: tuple[int, ...], seed: int = 1) -> tuple[Tensor, Tensor]:
    return random.normal(random.key(seed), (8, *shape)), torch.arange(8) % 3


class Probe(nn.Module):
    """A module without weights that runs one function."""

    def __init__(self, fn: Any) -> None:
        super().__init__()
        self.fn = fn

    def forward(self, *args: Any) -> Any:
        return self.fn(*args)


def dtypes(fn: Any, *args: Any, compute: torch.dtype = torch.bfloat16) -> Any:
    """The dtypes of what a function returns inside of a mixed-precision model."""
    seen = []

    def looked(*args: Any) -> Tensor:
        out = fn(*args)
        seen.extend(x.dtype for x in (out if isinstance(out, tuple) else (out,)))
        return torch.zeros(())

    mixed(Probe(looked), compute).apply({}, {}, *args)
    return seen[0] if len(seen) == 1 else tuple(seen)


@settings(max_examples=10)
@given(seed=st.integers(0, 2**31), size=st.integers(1, 9), compute=st.sampled_from(HALVES))
def test_steps_are_those_of_torch_autocast(seed: int, size: int, compute: torch.dtype) -> None:
    """To the bit, where torch's lists for the CPU are those for CUDA."""
    module = nn.Sequential(nn.Linear(4, 7), nn.ReLU(), nn.Linear(7, 7), nn.Tanh(), nn.Linear(7, 3))
    model, tx = mixed(module, compute), optim.sgd(lr=0.1, momentum=0.9)
    step = train.make_step(train.supervised(model, F.cross_entropy), tx)
    state = train.init(model, tx, random.key(seed))
    module.load_state_dict(state.params)
    optimizer = torch.optim.SGD(module.parameters(), lr=0.1, momentum=0.9)
    x = random.normal(random.key(seed + 1), (size, 4))
    y = random.randint(random.key(seed + 2), (size,), 0, 3, torch.int64)
    for _ in range(3):
        state, info = step(state, (x, y))
        optimizer.zero_grad()
        with torch.autocast("cpu", dtype=compute):
            output = module(x)
            assert output.dtype == compute
            loss = F.cross_entropy(output, y)
        loss.backward()
        optimizer.step()
        assert torch.equal(info["loss"], loss.detach())
    for name, value in module.named_parameters():
        torch.testing.assert_close(state.params[name], value.detach(), rtol=1e-6, atol=1e-7)


@pytest.mark.parametrize("compute", HALVES, ids=str)
@pytest.mark.parametrize("name", networks())
def test_gradients_under_transforms(name: str, compute: torch.dtype) -> None:
    module, shape = networks()[name]
    full, half = functionalize(module), mixed(module, compute)
    keys, batch = random.split(random.key(0), 2), batch_of(shape)

    def gradient(model: Model) -> Any:
        loss = train.supervised(model, F.cross_entropy)

        def taken(params: Any, buffers: Any, key: Any) -> Any:
            return grad_and_value(loss, has_aux=True)(params, buffers, batch, key)

        return taken

    args = (*half.init(keys[1]), keys[1])
    grads, (value, buffers) = gradient(half)(*args)
    assert {leaf.dtype for leaf in tree.leaves(grads)} == {torch.float32}
    assert value.dtype == torch.float32
    assert {b.dtype for b in buffers.values()} <= {torch.float32, torch.int64}
    # Rounded where it should be, and no more.
    exact, (wanted, _) = gradient(full)(*args)
    eps = torch.finfo(compute).eps
    assert 0 < distance(grads, exact) < 10 * eps
    torch.testing.assert_close(value, wanted, rtol=3 * eps, atol=3 * eps)
    # The same with the tape, and in lanes.
    loss = train.supervised(half, F.cross_entropy)
    _, taped = train.value_and_grad(loss)(*args[:2], batch, keys[1])
    lanes, _ = vmap(gradient(half))(*vmap(half.init)(keys), keys)
    for found in (taped, tree.unstack(lanes)[1]):
        assert distance(found, grads) < 4 * eps


def test_compiled_steps_are_eager_steps() -> None:
    """As one graph, in lanes."""
    module = nn.Sequential(nn.Linear(4, 6), nn.BatchNorm1d(6), nn.Softmax(1), nn.Linear(6, 3))
    model, tx = mixed(module), optim.sgd(0.1)
    step = vmap(train.make_step(train.supervised(model, F.cross_entropy), tx), in_dims=(0, None))
    runs = vmap(lambda key: train.init(model, tx, key))(random.split(random.key(0), 2))
    torch._dynamo.reset()
    compiled = torch.compile(step, fullgraph=True, dynamic=False, backend="aot_eager")
    batch = batch_of((4,))
    assert_close(compiled(runs, batch), step(runs, batch), rtol=1e-5, atol=1e-6)


def distance(found: Any, wanted: Any) -> float:
    """Relative, over all leaves."""
    norm = tree.global_norm
    return (norm(tree.map(torch.sub, found, wanted)) / norm(wanted)).item()


def test_each_operation_has_the_precision_of_its_kind() -> None:
    x, w = torch.rand(4, 4), torch.rand(4, 4)
    low, wide = torch.bfloat16, torch.float32
    for fn in (
        *(torch.matmul, torch.mm, F.linear, lambda a, b: a @ b, lambda a, b: a.matmul(b)),
        lambda a, b: torch.einsum("ij,jk->ik", a, b),
        lambda a, b: torch.einsum("ij,jk->ik", [a, b]),
        lambda a, b: torch.linalg.multi_dot([a, b, a]),
        lambda a, b: F.conv1d(a[None], b[:, :, None]),
        lambda a, b: F.scaled_dot_product_attention(a[None], b[None], a[None]),
    ):
        assert dtypes(fn, x, w) == low
    h = x.to(low)
    for fn in (
        *(torch.exp, torch.log, torch.sum, F.softplus, lambda a: a**2, lambda a: 2**a),
        *(lambda a: 1 / a, lambda a: a.softmax(-1), lambda a: F.log_softmax(a, -1)),
        *(lambda a: F.layer_norm(a, (4,)), lambda a: F.rms_norm(a, (4,)), torch.Tensor.cumsum),
        *(lambda a: F.group_norm(a[None], 2), F.normalize, torch.linalg.vector_norm),
        *(lambda a: F.mse_loss(a, a), lambda a: F.cross_entropy(a, a), torch.norm),
    ):
        args = (h, 0) if fn is torch.Tensor.cumsum else (h,)
        assert dtypes(fn, *args) == wide
    for fn in (F.relu, F.gelu, torch.tanh, torch.mean, lambda a: a + 1, lambda a: a * a):
        assert dtypes(fn, h) == low
    assert dtypes(torch.add, h, x) == wide
    assert dtypes(torch.dot, h[0], x[0]) == wide
    assert dtypes(lambda a, b: torch.tensordot(a, b, 1), h, x) == wide


def test_double_precision_is_not_narrowed_by_the_wide_operations() -> None:
    x = torch.rand(3, 4, dtype=torch.float64)
    assert dtypes(lambda a: F.softmax(a, -1), x) == torch.float64
    assert dtypes(lambda a: F.batch_norm(a, None, None, training=True), x) == torch.float64
    assert dtypes(lambda a: (a @ a.T, a.sum()), x) == (torch.bfloat16, torch.float64)


def test_what_writes_in_place_or_elsewhere_is_left_alone() -> None:
    def written(a: Tensor) -> Tensor:
        out, again = torch.empty_like(a), a.clone()
        torch.exp(a, out=out)
        again.exp_()
        assert torch.equal(out, a.exp().to(a.dtype))
        assert torch.equal(again, out)
        return out, again

    assert dtypes(written, torch.rand(3).bfloat16()) == (torch.bfloat16, torch.bfloat16)


def test_what_torch_has_in_few_precisions_only() -> None:
    """Decompositions and transforms of half precision raise in torch; so do stores of another."""
    x, index = torch.rand(4, 4), torch.tensor([1])

    def stored(a: Tensor, b: Tensor) -> tuple[Tensor, ...]:
        kept = b.clone()
        kept.index_copy_(0, index, a[:1]).index_add_(0, index, a[:1])
        kept.index_put_((index,), a[0]).addmm_(a, b)
        return kept, b.scatter(0, torch.zeros(1, 4, dtype=torch.int64), a[:1])

    assert dtypes(stored, x.bfloat16(), x) == (torch.float32, torch.float32)
    h = (x @ x.T + torch.eye(4)).bfloat16()
    for fn in (torch.linalg.inv, torch.linalg.eigvalsh, torch.linalg.cholesky, torch.inverse):
        assert dtypes(fn, h) == torch.float32
    assert dtypes(lambda a: torch.fft.rfft(a).real, h) == torch.float32
    assert dtypes(torch.linalg.solve, h, x) == torch.float32


def test_integers_and_booleans_stay() -> None:
    def masked(q: Tensor, mask: Tensor) -> tuple[Tensor, ...]:
        attended = F.scaled_dot_product_attention(q, q, q, attn_mask=mask)
        return attended, mask.sum(), torch.arange(3).cumsum(0)

    found = dtypes(masked, torch.rand(1, 3, 4), torch.ones(3, 3, dtype=torch.bool))
    assert found == (torch.bfloat16, torch.int64, torch.int64)


def test_the_lists_are_those_of_torch() -> None:
    """As torch's header has them, which comes with every wheel."""
    header = Path(torch.__file__).parent / "include/ATen/autocast_mode.h"
    if not header.exists():
        pytest.skip("torch came without its headers")
    text = header.read_text()
    internal = {  # not called by Python, or under another name that is in the lists
        *("_convolution", "convolution", "native_layer_norm", "frobenius_norm", "nll_loss2d"),
        *("_scaled_dot_product_flash_attention", "grid_sampler"),
    }

    def listed(macro: str) -> set[str]:
        block = re.search(rf"#define {macro}\(_\)(.*?)\n\n", text, re.S)
        assert block
        names = set(re.findall(r"_\((\w+)", block.group(1))) - internal
        # Cells of recurrent layers are made of linear here, upsampling is `interpolate`.
        return {n for n in names if not re.search(r"_cell$|^_?upsample_", n)}

    assert listed("AT_FORALL_LOWER_PRECISION_FP") <= autocast._COMPUTE
    assert listed("AT_FORALL_FP32") | listed("AT_FORALL_FP32_SET_OPT_DTYPE") <= autocast._WIDE
    assert listed("AT_FORALL_PROMOTE") <= autocast._ALIKE
    kinds = [getattr(autocast, f"_{kind}") for kind in ("COMPUTE", "WIDE", "ALIKE", "INTO")]
    kinds.append(autocast._BATCH_NORMS)
    assert sum(map(len, kinds)) == len(set().union(*kinds)), "a name is in two lists"


def test_batch_norm_runs_in_float32_and_keeps_its_statistics() -> None:
    torch.manual_seed(1)
    layer = nn.BatchNorm1d(4)
    layer.weight.data.uniform_(0.5, 1.5)
    model = mixed(nn.Sequential(nn.Identity(), layer))
    x = (100 + torch.randn(16, 4)).bfloat16()
    output, buffers = model.apply(model.params, model.buffers, x, train=True)
    expected = layer(x.float())
    assert torch.equal(output, expected.bfloat16().float())
    assert torch.equal(buffers["1.running_mean"], layer.running_mean)
    assert torch.equal(buffers["1.running_var"], layer.running_var)


def test_statistics_of_half_precision_are_updated_too() -> None:
    model = mixed(nn.BatchNorm1d(4).bfloat16())
    x = 8 + torch.randn(16, 4)
    _, buffers = model.apply(model.params, model.buffers, x, train=True)
    assert buffers["running_mean"].dtype == torch.bfloat16
    assert torch.equal(buffers["running_mean"], (0.1 * x.mean(0)).bfloat16())
    assert torch.equal(model.buffers["running_mean"], torch.zeros(4).bfloat16())


def test_eval_mode_of_a_transformer_layer() -> None:
    """torch has a fused path for it, which would compute in float32."""
    module, shape = networks()["attention"]
    x = batch_of(shape)[0]
    full, half = functionalize(module), mixed(module)
    with torch.no_grad():
        wanted = full.apply(full.params, {}, x)[0]
        found = half.apply(half.params, {}, x)[0]
    assert 0 < distance(found, wanted) < 0.02


@given(
    policy=st.builds(train.Policy, *[st.sampled_from([torch.float64, torch.float32, *HALVES])] * 3)
)
def test_policies(policy: train.Policy) -> None:
    module = nn.Sequential(nn.Linear(4, 8), nn.BatchNorm1d(8), nn.ReLU(), nn.Linear(8, 2))
    model = train.mixed_precision(functionalize(module), policy)
    params, buffers = model.init(random.key(0))
    assert {value.dtype for value in (*params.values(), *model.params.values())} == {policy.params}
    batch = random.normal(random.key(1), (5, 4)), torch.arange(5) % 2
    assert model.apply(params, buffers, batch[0])[0].dtype == policy.output
    loss = train.supervised(model, lambda output, target: F.cross_entropy(output.float(), target))
    (_, after), grads = train.value_and_grad(loss)(params, buffers, batch, random.key(2))
    assert {value.dtype for value in grads.values()} == {policy.params}
    assert tree.map(lambda b: b.dtype, after) == tree.map(lambda b: b.dtype, buffers)


def test_all_in_float64_is_the_double_module() -> None:
    module, shape = networks()["mlp"]
    policy = train.Policy(*[torch.float64] * 3)
    model = train.mixed_precision(functionalize(module), policy)
    double = functionalize(module.double())
    x, _ = batch_of(shape)
    found, _ = model.apply(model.params, model.buffers, x)
    wanted, _ = double.apply(double.params, double.buffers, x.double())
    torch.testing.assert_close(found, wanted, rtol=1e-12, atol=1e-12)


def test_it_is_an_ordinary_model() -> None:
    module, shape = networks()["mlp"]
    plain = functionalize(module)
    before = tree.map(torch.clone, (plain.params, plain.buffers))
    model, tx = train.mixed_precision(plain), optim.adamw(1e-2)
    assert_equal((plain.params, plain.buffers), before)
    assert repr(model).endswith("float32/bfloat16/float32)")
    step = train.make_step(train.supervised(model, F.cross_entropy), tx)
    runs = vmap(lambda key: train.init(model, tx, key))(random.split(random.key(0), 3))
    data = batch_of(shape)
    runs, history = train.fit(
        step, runs, data, epochs=30, batch_size=8, compile=False, progress=False
    )
    assert (history["loss"][-1] < history["loss"][0] / 2).all()
    for solo in tree.unstack(runs):
        found = train.evaluate(model, solo, data, {"loss": metrics.cross_entropy()})
        wanted = train.evaluate(plain, solo, data, {"loss": metrics.cross_entropy()})
        assert found["loss"] != wanted["loss"]
        torch.testing.assert_close(found["loss"], wanted["loss"], rtol=0.1, atol=0.02)
    frozen = transfer.freeze(model, "0.*")
    assert repr(frozen).endswith("float32/bfloat16/float32)")
    assert_close(model.to_module(*before)(data[0]), plain.to_module(*before)(data[0]), 0, 0)


def test_outputs_of_other_kinds_are_handed_on() -> None:
    def several(x: Tensor) -> dict[str, Any]:
        return {"float": x @ x, "index": x.argmax(0), "pair": (x.half(), x > 0)}

    output, _ = mixed(Probe(several)).apply({}, {}, torch.rand(3, 3))
    found = tree.map(lambda leaf: leaf.dtype, output)
    assert found["float"] == torch.float32
    assert (found["index"], found["pair"]) == (torch.int64, (torch.float32, torch.bool))


def test_errors() -> None:
    with pytest.raises(TypeError, match=r"`policy.compute` must be a floating-point dtype, got "):
        train.mixed_precision(functionalize(nn.Linear(2, 2)), train.Policy(compute=torch.int32))
