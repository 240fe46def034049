"""Every random operation of torch is keyed, or refused before it draws."""

from __future__ import annotations

import types
from collections.abc import Callable
from typing import Any

import pytest
import torch
import torch.nn.functional as F
from modules import Lambda
from torch import Tensor, nn

from fdnn import functionalize, random
from fdnn.model.keyed import _OPENED, _RANDOM_NAMES, KeyedRandomness
from fdnn.model.twins import TWINS

KEY = random.key(70)
GATE = 5.0  # standard errors


def call(fn: Callable[[Tensor], Any], x: Tensor, key: Tensor = KEY) -> Any:
    return functionalize(Lambda(fn)).apply({}, {}, x, key=key)[0]


def draw(*shape: int) -> Tensor:
    return random.normal(random.key(51), shape)


BASE_NAMES = sorted(name for name in _RANDOM_NAMES if "." not in name)
OWNERS = (torch, Tensor, F, torch._C._nn, torch._VF)
OPAQUE = ("quantized_gru", "quantized_lstm")  # take packed weights, which cannot be made up


def made_up(kind: Any) -> Any:
    """A value that a schema's type admits."""
    name = kind.kind()
    if name == "ListType":
        return [made_up(kind.getElementType())] * 4
    by_kind = {
        "TensorType": torch.full((2, 3), 0.5),
        "FloatType": 0.5,
        "NumberType": 0.5,
        "IntType": 2,
        "SymIntType": 2,
        "BoolType": True,
        "OptionalType": None,
    }
    return by_kind[name]


def arguments(overload: Any) -> tuple[list[Any], dict[str, Any]]:
    args, kwargs = [], {}
    for argument in overload._schema.arguments:
        value = argument.default_value if argument.has_default_value() else None
        value = made_up(argument.type) if value is None else value
        if not argument.kwarg_only:
            args.append(value)
        elif not argument.has_default_value():
            kwargs[argument.name] = value
    return args, kwargs


def overloads(name: str) -> list[Any]:
    packet = getattr(torch.ops.aten, name, None)
    return [] if packet is None else [getattr(packet, o) for o in packet.overloads()]


def functions(name: str) -> list[Any]:
    """What a user can call under this name."""
    found = {getattr(owner, name, None) for owner in OWNERS}
    return [function for function in found if callable(function)]


@pytest.mark.parametrize("name", [name for name in BASE_NAMES if name not in OPAQUE])
def test_random_operation_is_keyed_or_refused(name: str) -> None:
    generator = torch.get_rng_state()
    refused = 0
    for overload in overloads(name):
        args, kwargs = arguments(overload)
        for function in [overload, *functions(name)]:
            if function in TWINS:
                continue
            try:
                with KeyedRandomness(KEY):
                    function(*args, **kwargs)
            except NotImplementedError as error:
                assert "which fdnn cannot key" in str(error)
                refused += 1
            except TypeError:
                assert function is not overload  # these arguments are of another overload
            else:
                raise AssertionError(f"{function} ran")
    assert refused or name == "kaiming_uniform_"
    assert torch.equal(torch.get_rng_state(), generator)


def test_no_random_operation_is_overlooked() -> None:
    """All that take a generator or drop out are known, but for those that draw nothing."""
    for schema in torch._C._jit_get_all_schemas():
        space, _, name = schema.name.partition("::")
        draws = {argument.name for argument in schema.arguments} & {
            "generator",
            "dropout",
            "dropout_p",
        }
        if space == "aten" and draws and hasattr(torch.ops.aten, name):
            harmless = name.endswith("_backward") or name.startswith("_no_grad_")
            assert name in _RANDOM_NAMES or harmless, str(schema)


@pytest.mark.parametrize(
    "function",
    [
        torch._standard_gamma,
        torch.poisson,
        torch.native_dropout,
        torch._C._nn.rrelu_with_noise,
        Tensor.geometric_,
        Tensor.cauchy_,
        torch.ops.aten.bernoulli.default,
    ],
    ids=lambda function: function.__name__,
)
def test_unknown_operation_is_refused_when_traced(function: Any) -> None:
    name = function.__name__.partition(".")[0]
    args, kwargs = arguments(overloads(name)[0])

    def run(key: Tensor) -> Any:
        with KeyedRandomness(key):
            return function(*args, **kwargs)

    generator = torch.get_rng_state()
    with pytest.raises(torch._dynamo.exc.Unsupported, match="which fdnn cannot key"):
        torch.compile(run, fullgraph=True, backend="eager")(KEY)
    assert torch.equal(torch.get_rng_state(), generator)


def reachable_names(function: types.FunctionType, seen: set[Any]) -> set[str]:
    """Names that a function of torch and those that it calls refer to."""
    if function in seen:
        return set()
    seen.add(function)
    names: set[str] = set()
    codes = [function.__code__]
    while codes:
        code = codes.pop()
        names.update(code.co_names)
        codes += [constant for constant in code.co_consts if isinstance(constant, types.CodeType)]
    for name in tuple(names):
        called = function.__globals__.get(name)
        if isinstance(called, types.FunctionType) and called.__module__.startswith("torch."):
            names |= reachable_names(called, seen)
    return names


def dispatching_functions() -> set[types.FunctionType]:
    """Python functions of torch that hand themselves to a mode, which is off while they run."""
    listed = [f for fs in torch.overrides.get_overridable_functions().values() for f in fs]
    modules = (F, nn.init, torch.functional, torch._lowrank, torch._lobpcg, torch._tensor)
    listed += [f for module in modules for f in vars(module).values()]
    return {
        f
        for f in listed
        if isinstance(f, types.FunctionType) and "handle_torch_function" in f.__code__.co_names
    }


def test_python_functions_that_draw_inside_are_known() -> None:
    found = set()
    known = {name for name in _RANDOM_NAMES if "." not in name}
    for function in dispatching_functions():
        inside = reachable_names(function, set()) - {function.__name__}
        if inside & known:
            found.add(function)
            public = getattr(F, function.__name__.removeprefix("_"), function)
            assert public in TWINS or public in _OPENED or public.__name__ in _RANDOM_NAMES, public
    assert F.multi_head_attention_forward in found  # the search finds something
    assert set(_OPENED) <= found


@pytest.mark.parametrize(
    "fn",
    [
        nn.init.trunc_normal_,
        nn.init.kaiming_normal_,
        nn.init.xavier_uniform_,
        nn.init.xavier_normal_,
        nn.init.orthogonal_,
        lambda x: nn.init.sparse_(x, 0.5),
    ],
)
def test_init_functions_in_forward_are_keyed(fn: Any) -> None:
    generator = torch.get_rng_state()
    one, same, other = (
        call(lambda x: fn(torch.empty(4, 5)) + x, torch.zeros(()), random.key(seed))
        for seed in (0, 0, 1)
    )
    assert torch.equal(torch.get_rng_state(), generator)
    assert torch.equal(one, same)
    assert not torch.equal(one, other)


@pytest.mark.parametrize("fn", [nn.init.uniform_, nn.init.normal_, nn.init.kaiming_uniform_])
def test_init_functions_in_forward_that_are_refused(fn: Any) -> None:
    with pytest.raises(NotImplementedError, match=f"random operation '{fn.__name__}'"):
        call(lambda x: fn(torch.empty(4, 5)) + x, torch.zeros(()))


@pytest.mark.parametrize("wrap", [lambda x: x, nn.Parameter])
@pytest.mark.parametrize("fn", [torch.svd_lowrank, torch.pca_lowrank, torch.lobpcg])
def test_randomized_algebra_is_keyed(fn: Any, wrap: Any) -> None:
    """Given a Parameter these functions dispatch, given a tensor they do not."""
    x = draw(12, 12)
    x = wrap(x @ x.T)
    generator = torch.get_rng_state()
    with KeyedRandomness(KEY) as mode:
        fn(x, 2)
    assert mode.draws == 1
    assert torch.equal(torch.get_rng_state(), generator)


N = 20_000
KEYED: dict[str, tuple[Callable[[], Any], float, float]] = {
    "Normal": (lambda: torch.distributions.Normal(2.0, 3.0), 2, 3),
    "Normal of tensors": (lambda: torch.distributions.Normal(*torch.tensor([2.0, 3.0])), 2, 3),
    "Bernoulli": (lambda: torch.distributions.Bernoulli(0.3), 0.3, 0.21**0.5),
    "Categorical": (lambda: torch.distributions.Categorical(torch.tensor([0.7, 0.3])), 0.3, 0.46),
    "Uniform": (lambda: torch.distributions.Uniform(1.0, 4.0), 2.5, 0.75**0.5),
    "Exponential": (lambda: torch.distributions.Exponential(2.0), 0.5, 0.5),
    "Laplace": (lambda: torch.distributions.Laplace(1.0, 2.0), 1, 8**0.5),
    "Geometric": (lambda: torch.distributions.Geometric(0.5), 1, 2**0.5),
    "Gumbel": (lambda: torch.distributions.Gumbel(0.0, 1.0), 0.57722, 1.28255),
    "LogNormal": (lambda: torch.distributions.LogNormal(0.0, 0.5), 1.13315, 0.60390),
}


@pytest.mark.parametrize(("make", "mean", "std"), KEYED.values(), ids=KEYED.keys())
def test_distributions_are_keyed(make: Any, mean: float, std: float) -> None:
    generator = torch.get_rng_state()
    one, same, other = (
        call(lambda x: make().sample((N,)) + x, torch.zeros(()), random.key(seed))
        for seed in (0, 0, 1)
    )
    assert torch.equal(torch.get_rng_state(), generator)
    assert torch.equal(one, same)
    assert not torch.equal(one, other)
    assert abs(one.mean() - mean) < GATE * std / N**0.5


@pytest.mark.parametrize(
    ("make", "operation"),
    [
        (lambda: torch.distributions.Gamma(2.0, 1.0), "_standard_gamma"),
        (lambda: torch.distributions.StudentT(3.0), "_standard_gamma"),
        (lambda: torch.distributions.Beta(2.0, 1.0), "_sample_dirichlet"),
        (lambda: torch.distributions.Dirichlet(torch.ones(3)), "_sample_dirichlet"),
        (lambda: torch.distributions.Poisson(3.0), "poisson"),
        (lambda: torch.distributions.Binomial(5, torch.tensor(0.3)), "binomial"),
        (lambda: torch.distributions.Cauchy(0.0, 1.0), "cauchy_"),
    ],
)
def test_distributions_that_are_refused(make: Any, operation: str) -> None:
    generator = torch.get_rng_state()
    with pytest.raises(NotImplementedError, match=f"random operation '{operation}', which fdnn"):
        call(lambda x: make().sample((3,)) + x, torch.zeros(()))
    assert torch.equal(torch.get_rng_state(), generator)


@pytest.mark.parametrize(
    "fn",
    [
        lambda x: torch.rand(3, generator=torch.Generator()) + x,
        lambda x: torch.randn(3, out=torch.empty(3)) + x,
        lambda x: x.clone().normal_(generator=torch.Generator()),
    ],
)
def test_generators_and_out_are_refused(fn: Any) -> None:
    with pytest.raises(ValueError, match=r"`(generator|out)` must not be given"):
        call(fn, torch.zeros(3))


@pytest.mark.parametrize("dropout", [0.0, 0.5])
def test_recurrent_functions_draw_only_with_dropout(dropout: float) -> None:
    """Called as functions, whichever way their arguments are given."""
    layer = nn.GRU(3, 3, num_layers=2)
    x, h, weights = draw(5, 2, 3), torch.zeros(2, 2, 3), list(layer.parameters())
    names = ("has_biases", "num_layers", "dropout", "train", "bidirectional", "batch_first")
    flags = (True, 2, dropout, True, False, False)
    for args, kwargs in (
        ((x, h, weights, *flags), {}),
        ((x, h, weights), dict(zip(names, flags, strict=True))),
    ):
        with KeyedRandomness(KEY):
            if dropout:
                with pytest.raises(NotImplementedError, match="'gru', which fdnn cannot key"):
                    torch.gru(*args, **kwargs)
            else:
                torch.testing.assert_close(torch.gru(*args, **kwargs), layer(x, h))
