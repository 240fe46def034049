"""The contract that every public function keeps, as a registry crossed with the transforms.

A row gives a function of tensors and the arguments of lane i. A new public function needs a row
here, or a reason in `EXEMPT`; the tests then come for free: it is pure, vmap is a loop, chunks
change nothing, and it compiles as one graph, vmapped too.
"""

from __future__ import annotations

import functools
from collections.abc import Callable
from typing import Any, NamedTuple

import pytest
import torch
import torch.nn.functional as F
from asserts import assert_close, assert_equal
from losses import with_loss
from torch import Tensor, nn, vmap

import fdnn
from fdnn import (
    activations,
    compress,
    functionalize,
    initializers,
    inspect,
    losses,
    metrics,
    normalization,
    optim,
    pretrain,
    random,
    schedules,
    train,
    transfer,
    tree,
    uncertainty,
)
from fdnn.nn import TokenEncoder

LANES = 3


class Row(NamedTuple):
    """A pure function, and its arguments in lane i.

    Attributes:
        fn: takes and returns trees of tensors.
        args: the arguments of a lane.
        exact: whether a vmapped or compiled call gives the same bits.
    """

    fn: Callable[..., Any]
    args: Callable[[int], tuple[Any, ...]]
    exact: bool = True


def key(lane: int) -> tuple[Tensor]:
    return (random.key(lane),)


def normal(lane: int, *shape: int) -> Tensor:
    return random.normal(random.key(100 + lane), shape)


def nested(lane: int) -> tuple[Any]:
    return ({"a": normal(lane, 3), "b": (normal(lane + 50, 2, 2), []), "c": {}},)


def two(lane: int) -> tuple[Any, Any]:
    return nested(lane)[0], nested(lane + 7)[0]


def params(lane: int) -> dict[str, Tensor]:
    return {"w": normal(lane, 4, 3), "b": normal(lane + 9, 4), "s": normal(lane, 1)[0]}


def draw(fn: Callable[[Tensor], Any], exact: bool = True) -> Row:
    return Row(fn, key, exact)


def monitor(watch: train.Monitor) -> Row:
    """Three epochs of changing numbers: what it remembers, and the state when it is done."""

    def run(state: train.TrainState, losses: Tensor) -> Any:
        memory = watch.init(state)
        for loss in losses:
            memory, state = watch.update(memory, state, {"loss": loss})
        return watch.finish(memory, state), memory, watch.stopped(memory).to(losses.device)

    def args(lane: int) -> tuple[Any, ...]:
        state = train.init(LINEAR, STEPPED, random.key(lane))
        return state, normal(lane, 3)

    return Row(run, args)


def initializer(fn: Any, *shape: int, exact: bool = True) -> Row:
    return Row(lambda key: fn(key, shape or (6, 4), torch.float32), key, exact)


def optimizer(tx: Any) -> Row:
    """Three steps on changing gradients: new parameters, and the whole state."""

    def run(params: Any, grads: Any) -> Any:
        state = tx.init(params)
        for factor in (1.0, -0.5, 2.0):
            scaled = tree.map(lambda g, factor=factor: g * factor, grads)
            params, state = optim.step(tx, params, scaled, state)
        return params, state

    return Row(run, lambda lane: (params(lane), params(lane + 20)), exact=False)


def evaluated(tx: Any, eval_params: Callable[[Any, Any], Any]) -> Row:
    """The same, but the parameters are those to evaluate at."""

    def run(params: Any, grads: Any) -> Any:
        params, state = optimizer(tx).fn(params, grads)
        return eval_params(state, params), state

    return Row(run, lambda lane: (params(lane), params(lane + 20)), exact=False)


def schedule(build: Callable[[Tensor], Any]) -> Row:
    """The value of a schedule of a base rate at a count; lanes differ in both."""
    return Row(
        lambda lr, count: build(lr)(count),
        lambda i: (torch.tensor(0.1 * (i + 1), dtype=torch.float64), torch.tensor(3 * i + 1)),
        exact=False,
    )


def metric(
    m: metrics.Metric, output: Callable[[int], Tensor], target: Callable[[int], Tensor]
) -> Row:
    def run(*batch: Tensor) -> Tensor:
        return m.compute(m.update(m.update(m.init(), *batch), *batch))

    return Row(run, lambda lane: (output(lane), target(lane)), exact=False)


def loss(fn: Callable[..., Tensor], *args: Callable[[int], Tensor]) -> Row:
    """The value of a loss, and its gradient with respect to the first argument."""
    return Row(
        torch.func.grad_and_value(fn), lambda lane: tuple(arg(lane) for arg in args), exact=False
    )


def shares(lane: int) -> Tensor:
    return normal(lane + 30, 5, 3).softmax(-1)


def others(lane: int) -> Tensor:
    return normal(lane + 60, 5, 3)


def labels(lane: int) -> Tensor:
    return random.randint(random.key(lane), (5,), 0, 3, torch.int64)


def logits(lane: int) -> Tensor:
    return normal(lane, 5, 3)


MODEL = functionalize(
    nn.Sequential(
        nn.Linear(4, 6, bias=False), nn.BatchNorm1d(6), nn.ReLU(), nn.Dropout(0.3), nn.Linear(6, 3)
    )
)
TX = optim.chain(optim.clip_by_global_norm(1.0), optim.adamw(lr=lambda count: 0.1 / (count + 1)))
LOSS = train.supervised(MODEL, F.cross_entropy)
STEP = train.make_step(LOSS, TX)
LINEAR = functionalize(nn.Linear(4, 3))
STEPPED = optim.chain(optim.sgd(lr=0.1), optim.scale(1.0))
FIND = train.make_step(train.supervised(LINEAR, F.cross_entropy), optim.sgd())
PLATEAU = schedules.reduce_on_plateau(patience=0, cooldown=1)


def released(grads: Any, release: Tensor) -> Any:
    tx = transfer.gradual_unfreezing(optim.sgd(0.1), [(lambda path, leaf: path == "a", release)])
    return tx.update(grads, tx.init(grads), grads)


FROZEN = transfer.freeze(MODEL, transfer.by_depth(MODEL, 2))
FROZEN_STEP = train.make_step(train.supervised(FROZEN, F.cross_entropy), TX)
ADAPTED = transfer.lora(MODEL, 2, 4.0)
TRUNCATED = transfer.truncate(MODEL)
NEW_HEAD = transfer.replace_head(MODEL, 2)

MIXED = train.mixed_precision(MODEL, train.Policy(compute=torch.float64))
SCALING = train.dynamic_loss_scaling(growth_interval=1)
SCALED = train.with_loss_scaling(TX, SCALING)


def batch(lane: int) -> tuple[Tensor, Tensor]:
    return normal(lane, 5, 4), labels(lane)


def weights(lane: int) -> tuple[Any, Any]:
    return MODEL.init(random.key(lane))


def state(lane: int) -> train.TrainState:
    return train.init(MODEL, TX, random.key(lane))


AUTOENCODER = functionalize(
    pretrain.Autoencoder(
        nn.Sequential(nn.Linear(4, 3, bias=False), nn.BatchNorm1d(3), nn.ReLU(), nn.Dropout(0.3)),
        nn.Linear(3, 4),
    )
)
NOISE = pretrain.gaussian_noise(0.1)


def pretraining(loss: Any) -> Row:
    """The value, the buffers and the gradient of a loss on labelled examples."""
    return Row(
        train.value_and_grad(loss),
        lambda i: (*AUTOENCODER.init(*key(i)), batch(i), *key(i + 5)),
        exact=False,
    )


def augmented(augment: Any) -> Row:
    return Row(augment, lambda i: (*key(i), normal(i, 3, 2, 4, 6)), exact=False)


WORDS: dict[str, Any] = {"mask_token": 1, "num_tokens": 9, "ignore": 0}
LANGUAGE_MODEL = functionalize(
    nn.Sequential(TokenEncoder(9, 4, 2, 1, max_length=5, padding_idx=0), nn.Linear(4, 9))
)


def tokens(lane: int) -> Tensor:
    return random.randint(random.key(lane), (3, 5), 0, 9, torch.int64)


AVERAGING = optimizer(optim.chain(optim.sgd(0.1), optim.swa(1)))


def averaged(params: Any, grads: Any) -> Any:
    state = AVERAGING.fn(params, grads)[1]
    return optim.averaged_params(state), state


def scored(fn: Callable[..., Any], *args: Callable[[int], Any]) -> Row:
    return Row(fn, lambda lane: tuple(arg(lane) for arg in args), exact=False)


def member_shares(lane: int) -> Tensor:
    return normal(lane + 30, 4, 5, 3).softmax(-1)


def variances(lane: int) -> Tensor:
    return normal(lane + 90, 5, 3).exp()


def members(lane: int) -> tuple[Any, Any]:
    return vmap(MODEL.init)(random.split(random.key(lane), 2))


def along(watch: train.Monitor) -> Any:
    """What a monitor remembers of two epochs of four steps."""

    def run(state: train.TrainState) -> Any:
        memory = watch.init(state)
        for factor in (0.5, 3.0):
            moved = tree.map(lambda leaf, f=factor: leaf * f, state.params)
            state = state._replace(params=moved, count=state.count + 4)
            memory, state = watch.update(memory, state, {})
        return memory

    return run


def linear(lane: int) -> train.TrainState:
    return train.init(LINEAR, STEPPED, random.key(lane))


def streaming(stream: uncertainty.Stream) -> Row:
    """Two parts of the samples, in two states that are merged."""

    def run(outputs: Tensor) -> Any:
        start = stream.init(outputs[0])
        first, last = stream.update(start, outputs[:1]), stream.update(start, outputs[1:])
        return stream.compute(stream.merge(first, last)), first

    return Row(run, lambda lane: (normal(lane, 4, 5, 3),), exact=False)


def curvature(lane: int) -> uncertainty.LaplaceFit:
    root, total = normal(lane + 40, 3, 3), torch.tensor(2.0 + lane)
    return uncertainty.LaplaceFit({"w": normal(lane, 3)}, root @ root.mT, total, 10 * total)


AMOUNTS = torch.tensor([0.0, 0.5, 0.8], dtype=torch.float64)
PRUNED = compress.keep_masked(optim.sgd(), lambda p: compress.l1_unstructured(p, 0.5))
LAYER_NORMED = functionalize(nn.Sequential(nn.LayerNorm(4), nn.Linear(4, 3)))
FOLD_BATCH_NORM = compress.fold_batch_norm(MODEL)[1]
FOLD_LAYER_NORM = compress.fold_layer_norm(LAYER_NORMED)[1]


AWARE = compress.quantization_aware(MODEL)


def observed(observer: compress.Observer, x: Tensor) -> compress.QuantizationParams:
    return observer.compute(functools.reduce(observer.update, x.unbind(), observer.init(x[0])))


def pruned_step(tx: Any, params: Any, grads: Any) -> Any:
    return optim.step(tx, params, grads, tx.init(params))


ROWS: dict[str, Row] = {
    **{
        f"compress.{prune.__name__}": Row(prune, lambda i: (params(i), AMOUNTS[i]))
        for prune in (
            compress.l1_unstructured,
            compress.global_unstructured,
            compress.ln_structured,
        )
    },
    **{
        f"compress.{prune.__name__}": Row(prune, lambda i: (*key(i), params(i), AMOUNTS[i]))
        for prune in (compress.random_unstructured, compress.random_structured)
    },
    "compress.apply_masks": Row(
        lambda p, m: compress.apply_masks(p, {"w": m}), lambda i: (params(i), normal(i, 4, 3) > 0)
    ),
    "compress.cubic_sparsity": Row(
        lambda amount, count: compress.cubic_sparsity(amount, 1, 7, 2)(count),
        lambda i: (AMOUNTS[i], torch.tensor(3 * i + 1)),
        exact=False,
    ),
    "compress.cast": Row(lambda p: compress.cast(p, torch.float64), lambda i: (params(i),)),
    "compress.fake_quantize": Row(
        torch.func.grad_and_value(
            lambda x, s, z: compress.fake_quantize(x, s.exp() / 4, z, num_bits=3, axis=1).sum()
        ),
        lambda i: (normal(i, 4, 3), normal(i + 9, 3), normal(i + 20, 3).round()),
        exact=False,
    ),
    "compress.fake_quantize_params": Row(
        lambda p, bits: compress.fake_quantize_params(p, num_bits=bits, symmetric=False),
        lambda i: (params(i), torch.tensor(i + 2)),
    ),
    "compress.fold_batch_norm": Row(
        lambda *values: FOLD_BATCH_NORM(*values), lambda i: weights(i), exact=False
    ),
    "compress.fold_layer_norm": Row(
        lambda *values: FOLD_LAYER_NORM(*values), lambda i: LAYER_NORMED.init(random.key(i))
    ),
    "compress.gradual_pruning": Row(
        lambda p, g, amount: pruned_step(compress.gradual_pruning(optim.sgd(0.1), amount), p, g),
        lambda i: (params(i), params(i + 20), AMOUNTS[i]),
        exact=False,
    ),
    "compress.iterative_sparsity": Row(
        lambda amount, count: compress.iterative_sparsity(amount, 3, 2)(count),
        lambda i: (AMOUNTS[i], torch.tensor(3 * i + 1)),
        exact=False,
    ),
    "compress.keep_masked": Row(
        lambda p, g, m: pruned_step(compress.keep_masked(optim.sgd(), {"w": m}), p, g),
        lambda i: (params(i), params(i + 20), normal(i, 4, 3) > 0),
        exact=False,
    ),
    "compress.lottery_tickets": Row(
        lambda p, amount: compress.lottery_tickets(
            lambda q, m: compress.apply_masks(tree.map(lambda x: 1 - x, q), m), p, amount
        ),
        lambda i: (params(i), AMOUNTS[i]),
    ),
    "compress.masks_of": Row(lambda p: compress.masks_of(PRUNED.init(p)), lambda i: (params(i),)),
    "compress.min_max_observer": Row(
        lambda x: observed(compress.min_max_observer(symmetric=False, axis=-1), x),
        lambda i: (normal(i, 2, 4, 3),),
    ),
    "compress.n_of_m": Row(lambda p: compress.n_of_m(p, 1, 3), lambda i: (params(i),)),
    "compress.nonzero_masks": Row(
        lambda p: compress.nonzero_masks(tree.map(torch.relu, p)), lambda i: (params(i),)
    ),
    "compress.one_shot_sparsity": Row(
        lambda amount, count: compress.one_shot_sparsity(amount, 3)(count),
        lambda i: (AMOUNTS[i], torch.tensor(3 * i + 1)),
    ),
    "compress.percentile_observer": Row(
        lambda x: observed(compress.percentile_observer(70.0), x), lambda i: (normal(i, 2, 4, 3),)
    ),
    "compress.quantization_aware": Row(
        lambda values, x: AWARE.apply(*values, x)[0],
        lambda i: (weights(i), normal(i, 5, 4)),
        exact=False,
    ),
    "compress.quantization_params": Row(
        lambda low, width, bits: compress.quantization_params(low, low + width, num_bits=bits),
        lambda i: (normal(i, 3), normal(i + 9, 3).abs(), torch.tensor(i + 2)),
    ),
    "compress.set_masks": Row(
        lambda p, m: compress.set_masks(PRUNED.init(p), {"w": m}),
        lambda i: (params(i), normal(i, 4, 3) > 0),
    ),
    "compress.sparsity": Row(
        lambda p, m: compress.sparsity(p, {"w": m}), lambda i: (params(i), normal(i, 4, 3) > 0)
    ),
    "compress.with_biases": Row(
        lambda m: compress.with_biases(MODEL, {"0.weight": m[:, None].expand(6, 4)}),
        lambda i: (normal(i, 6) > 0,),
    ),
    "random.bernoulli": draw(lambda key: random.bernoulli(key, 0.3, (40,))),
    "random.bits": draw(lambda key: random.bits(key, (5,)).to(torch.int64)),
    "random.categorical": Row(
        lambda k, x: random.categorical(k, x), lambda i: (*key(i), logits(i))
    ),
    "random.choice": Row(lambda k, x: random.choice(k, x, (3,)), lambda i: (*key(i), normal(i, 9))),
    "random.exponential": draw(lambda key: random.exponential(key, (9,)), exact=False),
    "random.fold_in": Row(random.fold_in, lambda i: (*key(i), torch.tensor(i))),
    "random.gumbel": draw(lambda key: random.gumbel(key, (9,)), exact=False),
    "random.normal": draw(lambda key: random.normal(key, (9,)), exact=False),
    "random.permutation": Row(random.permutation, lambda i: (*key(i), normal(i, 9))),
    "random.randint": draw(lambda key: random.randint(key, (9,), -3, 1000)),
    "random.split": draw(lambda key: random.split(key, 3)),
    "random.threefry2x32": Row(
        lambda *words: random.threefry2x32(*words),
        lambda i: tuple(torch.arange(5) * 10**n + i for n in range(4)),
    ),
    "random.truncated_normal": draw(
        lambda key: random.truncated_normal(key, -2, 1, (9,)), exact=False
    ),
    "random.uniform": draw(lambda key: random.uniform(key, (9,))),
    "tree.all_finite": Row(tree.all_finite, nested),
    "tree.cast": Row(lambda t: tree.cast(t, torch.float64), nested),
    "tree.column": Row(lambda a, b: tree.column(a, b), two),
    "tree.columns": Row(lambda a, b: tree.columns(a, b), two),
    "tree.combine": Row(lambda t: tree.combine(*tree.partition(t, "a")), nested),
    "tree.global_norm": Row(tree.global_norm, nested, exact=False),
    "tree.leaves": Row(tree.leaves, nested),
    "tree.map": Row(lambda a, b: tree.map(torch.maximum, a, b), two),
    "tree.map_with_path": Row(lambda t: tree.map_with_path(lambda p, x: x * len(p), t), nested),
    "tree.partition": Row(lambda t: tree.partition(t, "b.*"), nested),
    "tree.ravel": Row(lambda t: tree.ravel(t)[1](tree.ravel(t)[0] * 2), nested),
    "tree.refill": Row(lambda t: tree.refill(t, [2 * x for x in tree.columns(t)[0]]), nested),
    "tree.select": Row(lambda t: tree.select(t, "b*"), nested),
    "tree.stack": Row(lambda a, b: tree.stack([a, b]), two),
    "tree.unstack": Row(lambda x: tree.unstack({"x": x}), lambda i: (normal(i, 2, 3),)),
    "tree.where": Row(lambda a, b: tree.where(a["a"].sum() > 0, a, b), two),
    "tree.zeros_like": Row(tree.zeros_like, nested),
    **{
        f"activations.{name}": Row(getattr(activations, name), lambda i: (normal(i, 3, 4),))
        for name in ("relu", "leaky_relu", "relu_squared", "hardtanh", "hardswish")
    },
    **{
        f"activations.{name}": Row(
            getattr(activations, name), lambda i: (normal(i, 3, 4),), exact=False
        )
        for name in (
            *("celu", "elu", "selu", "softplus", "gelu", "silu", "mish"),
            *("glu", "geglu", "reglu"),
        )
    },
    "activations.prelu": Row(activations.prelu, lambda i: (normal(i, 3, 4), normal(i + 9, 4))),
    "activations.rrelu": Row(
        lambda x, key: activations.rrelu(x, key=key), lambda i: (normal(i, 3, 4), *key(i))
    ),
    "activations.swiglu": Row(
        activations.swiglu, lambda i: (normal(i, 3, 4), normal(i + 9, 2)), exact=False
    ),
    "activations.swish": Row(
        activations.swish, lambda i: (normal(i, 3, 4), normal(i + 9, 4)), exact=False
    ),
    "initializers.constant": initializer(initializers.constant(0.3)),
    "initializers.dirac": initializer(initializers.dirac(), 4, 3, 3),
    "initializers.for_activation": initializer(
        initializers.for_activation("leaky_relu", negative_slope=0.2), exact=False
    ),
    "initializers.glorot_normal": initializer(initializers.glorot_normal(), exact=False),
    "initializers.glorot_uniform": initializer(initializers.glorot_uniform()),
    "initializers.he_normal": initializer(initializers.he_normal(), exact=False),
    "initializers.he_uniform": initializer(initializers.he_uniform()),
    "initializers.identity": initializer(initializers.identity()),
    "initializers.lecun_normal": initializer(initializers.lecun_normal(), exact=False),
    "initializers.lecun_uniform": initializer(initializers.lecun_uniform()),
    "initializers.normal": initializer(initializers.normal(), exact=False),
    "initializers.ones": initializer(initializers.ones),
    "initializers.orthogonal": initializer(initializers.orthogonal(), exact=False),
    "initializers.sparse": initializer(initializers.sparse(0.5), exact=False),
    "initializers.torch_default": initializer(
        initializers.torch_default(nn.Linear(4, 6))["weight"]
    ),
    "initializers.truncated_normal": initializer(initializers.truncated_normal(), exact=False),
    "initializers.uniform": initializer(initializers.uniform()),
    "initializers.variance_scaling": initializer(
        initializers.variance_scaling(1.0, "fan_in", "uniform")
    ),
    "initializers.zeros": initializer(initializers.zeros),
    "optim.adam": optimizer(optim.adam(amsgrad=True, weight_decay=0.1, maximize=True)),
    "optim.adamw": optimizer(optim.adamw()),
    "optim.adaptive_grad_clip": optimizer(optim.adaptive_grad_clip(0.2)),
    "optim.add_l1": optimizer(optim.add_l1(0.1)),
    "optim.add_noise": optimizer(optim.add_noise(0.1, 0.55, random.key(0))),
    "optim.centralize": optimizer(optim.centralize()),
    "optim.clip": optimizer(optim.clip(0.3)),
    "optim.clip_by_block_rms": optimizer(optim.clip_by_block_rms(0.3)),
    "optim.clip_by_value": optimizer(optim.clip_by_value(-0.4, 0.2)),
    "optim.ema": optimizer(optim.ema(0.9)),
    "optim.flatten": optimizer(optim.flatten(optim.adam(0.1))),
    "optim.identity": optimizer(optim.identity()),
    "optim.keep_params_nonnegative": optimizer(optim.keep_params_nonnegative()),
    "optim.max_norm": optimizer(optim.max_norm(0.8)),
    "optim.normalize_by_update_norm": optimizer(optim.normalize_by_update_norm()),
    "optim.project": optimizer(optim.project(optim.projection_simplex, scale=2.0)),
    "optim.projection_box": Row(
        lambda x: optim.projection_box(x, x.amin(0) / 2, 0.5), lambda i: (normal(i, 4, 3),)
    ),
    "optim.projection_l2_ball": Row(
        lambda x: optim.projection_l2_ball(x, 1.5, dim=1), lambda i: (normal(i, 4, 3),), exact=False
    ),
    "optim.projection_non_negative": Row(
        optim.projection_non_negative, lambda i: (normal(i, 4, 3),)
    ),
    "optim.projection_simplex": Row(
        lambda x: optim.projection_simplex(x, x.abs().max(), dim=0),
        lambda i: (normal(i, 4, 3),),
        exact=False,
    ),
    "optim.proximal_l1": optimizer(optim.proximal_l1(optim.sgd(0.1), 0.5)),
    "optim.scale": optimizer(optim.scale(-0.1)),
    "optim.scale_by_schedule": optimizer(optim.scale_by_schedule(lambda count: -1 / (count + 2))),
    "optim.trace": optimizer(optim.trace(0.9, nesterov=True)),
    "optim.zero_nans": optimizer(optim.zero_nans()),
    "optim.add_decayed_weights": optimizer(optim.add_decayed_weights(0.1)),
    "optim.apply_updates": Row(optim.apply_updates, lambda i: (params(i), params(i + 1))),
    "optim.chain": optimizer(TX),
    "optim.clip_by_global_norm": optimizer(optim.clip_by_global_norm(0.5)),
    "optim.diagnostics": Row(lambda p: optim.diagnostics(TX.init(p)), lambda i: (params(i),)),
    "optim.freeze": optimizer(optim.freeze(optim.adam(0.1), lambda path, leaf: path == "b")),
    "optim.masked": optimizer(optim.masked(optim.adam(0.1), lambda path, leaf: leaf.ndim > 1)),
    "optim.partition": optimizer(
        optim.partition(
            {"momentum": optim.sgd(0.1, momentum=0.9), "rest": optim.adamw(0.1)},
            {"momentum": lambda path, leaf: path == "w", "rest": lambda *_: True},
        )
    ),
    "optim.set_hyperparams": Row(
        lambda p: optim.set_hyperparams(optim.adam().init(p), lr=0.3, beta1=torch.tensor(0.5)),
        lambda i: (params(i),),
    ),
    "optim.set_to_zero": optimizer(optim.set_to_zero()),
    "optim.apply_if_finite": optimizer(optim.apply_if_finite(optim.adam(0.1), 2)),
    "optim.averaged_params": Row(averaged, AVERAGING.args, exact=False),
    "optim.conditionally_transform": optimizer(
        optim.conditionally_transform(optim.adam(0.1), lambda count: count % 2 == 0)
    ),
    "optim.ema_params": optimizer(optim.chain(optim.sgd(0.1), optim.ema_params(0.9, True))),
    "optim.multi_steps": optimizer(optim.multi_steps(optim.adam(0.1), 2)),
    "optim.skip_not_finite": optimizer(optim.skip_not_finite(optim.adam(0.1))),
    "optim.swa": optimizer(optim.chain(optim.sgd(0.1), optim.swa(1))),
    "optim.adadelta": optimizer(optim.adadelta(weight_decay=0.1)),
    "optim.adagrad": optimizer(optim.adagrad(0.1, 0.1, initial_accumulator_value=0.3)),
    "optim.adamax": optimizer(optim.adamax(0.1, maximize=True)),
    "optim.asgd": optimizer(optim.asgd(0.1, t0=1.0, weight_decay=0.1)),
    "optim.nadam": optimizer(optim.nadam(0.1, weight_decay=0.1)),
    "optim.radam": optimizer(optim.radam(0.1, weight_decay=0.1, decoupled_weight_decay=True)),
    "optim.rmsprop": optimizer(optim.rmsprop(0.1, momentum=0.9, centered=True)),
    "optim.rprop": optimizer(optim.rprop(0.1)),
    "optim.scale_by_adadelta": optimizer(optim.scale_by_adadelta()),
    "optim.scale_by_adagrad": optimizer(optim.scale_by_adagrad()),
    "optim.scale_by_adamax": optimizer(optim.scale_by_adamax()),
    "optim.scale_by_asgd": optimizer(optim.scale_by_asgd(0.1)),
    "optim.scale_by_nadam": optimizer(optim.scale_by_nadam()),
    "optim.scale_by_radam": optimizer(optim.scale_by_radam()),
    "optim.scale_by_rmsprop": optimizer(optim.scale_by_rmsprop()),
    "optim.scale_by_rprop": optimizer(optim.scale_by_rprop(0.1)),
    "optim.lbfgs": optimizer(with_loss(optim.lbfgs(0.3, max_iter=1, history_size=2))),
    "optim.polyak_sgd": optimizer(with_loss(optim.polyak_sgd())),
    "optim.sam": optimizer(with_loss(optim.sam(optim.adam(0.1)))),
    "optim.maximize": optimizer(optim.maximize()),
    "optim.scale_by_adam": optimizer(optim.scale_by_adam()),
    "optim.scale_by_learning_rate": optimizer(optim.scale_by_learning_rate(0.1)),
    "optim.scale_by_momentum": optimizer(optim.scale_by_momentum(0.9, nesterov=True)),
    "optim.ademamix": optimizer(optim.ademamix(alpha_warmup=3, beta3_warmup=2)),
    "optim.adopt": optimizer(optim.adopt(0.1, weight_decay=0.1)),
    "optim.lamb": optimizer(optim.lamb(0.1, weight_decay=0.1)),
    "optim.lion": optimizer(optim.lion(0.1, weight_decay=0.1)),
    "optim.lookahead": optimizer(optim.lookahead(optim.sgd(0.1), 2)),
    "optim.schedule_free_adamw": optimizer(optim.schedule_free_adamw(weight_decay=0.1)),
    "optim.schedule_free_eval_params": evaluated(
        optim.schedule_free_sgd(0.1, warmup_steps=2), optim.schedule_free_eval_params
    ),
    "optim.sgd": optimizer(optim.sgd(0.1, momentum=0.9, dampening=0.1, weight_decay=0.01)),
    "optim.adafactor": optimizer(optim.adafactor(weight_decay=0.1, maximize=True)),
    "optim.scale_by_muon": optimizer(
        optim.masked(optim.scale_by_muon(ns_dtype=None), lambda path, leaf: path == "w")
    ),
    "optim.shampoo": optimizer(optim.shampoo(0.1, 0.9, 0.1, epsilon=0.1)),
    "optim.soap": optimizer(optim.soap(eps=0.1, precondition_1d=True)),
    "optim.step": optimizer(optim.sgd(0.1)),
    "schedules.chained": schedule(
        lambda lr: schedules.chained([lr, schedules.exponential(1.0, 0.9)])
    ),
    "schedules.constant": schedule(schedules.constant),
    "schedules.cosine_annealing": schedule(lambda lr: schedules.cosine_annealing(lr, 7)),
    "schedules.cosine_annealing_warm_restarts": schedule(
        lambda lr: schedules.cosine_annealing_warm_restarts(lr, 2, 2)
    ),
    "schedules.cyclic": schedule(lambda lr: schedules.cyclic(0.01, lr, 3, 2, "exp_range", 0.9)),
    "schedules.cyclic_momentum": schedule(lambda lr: schedules.cyclic_momentum(lr, 0.9, 3)),
    "schedules.exponential": schedule(lambda lr: schedules.exponential(lr, 0.9)),
    "schedules.inverse_sqrt": schedule(lambda lr: schedules.inverse_sqrt(lr, 3)),
    "schedules.lambda_": schedule(lambda lr: schedules.lambda_(lr, lambda count: 0.9**count)),
    "schedules.linear": schedule(schedules.linear),
    "schedules.multi_step": schedule(lambda lr: schedules.multi_step(lr, [2, 5])),
    "schedules.multiplicative": schedule(
        lambda lr: schedules.multiplicative(lr, lambda i: 1 - 0.5 / i, 9)
    ),
    "schedules.one_cycle": schedule(lambda lr: schedules.one_cycle(lr, 9)),
    "schedules.one_cycle_momentum": schedule(
        lambda lr: schedules.one_cycle_momentum(9, base_momentum=lr, three_phase=True)
    ),
    "schedules.per_epoch": schedule(
        lambda lr: schedules.per_epoch(schedules.exponential(lr, 0.9), 3)
    ),
    "schedules.piecewise": schedule(lambda lr: schedules.piecewise([lr, 0.1, lr], [2, 5], "cos")),
    "schedules.polynomial": schedule(schedules.polynomial),
    "schedules.power": schedule(lambda lr: schedules.power(lr, 4)),
    "schedules.reduce_on_plateau": Row(
        lambda metrics: functools.reduce(
            lambda state, metric: PLATEAU.update(state, metric)[0],
            metrics.unbind(),
            tree.map(lambda leaf: leaf.to(metrics.device), PLATEAU.init()),
        ),
        lambda i: (normal(i, 6),),
    ),
    "schedules.sequential": schedule(
        lambda lr: schedules.sequential([0.2, schedules.exponential(lr, 0.9)], [3])
    ),
    "schedules.step": schedule(lambda lr: schedules.step(lr, 3)),
    "schedules.swa": schedule(lambda lr: schedules.swa(lr, 0.05, 4, start=2)),
    "schedules.warmup": schedule(lambda lr: schedules.warmup(lr, 5)),
    "schedules.warmup_stable_decay": schedule(
        lambda lr: schedules.warmup_stable_decay(lr, 3, 3, 3)
    ),
    "normalization.batch_norm": Row(
        lambda x, w, m: normalization.batch_norm(
            x,
            normalization.BatchNormState(
                w, w.square(), torch.ones((), dtype=torch.int64, device=w.device)
            ),
            w,
            w,
            train=True,
            momentum=m,
        ),
        lambda i: (normal(i, 5, 4), normal(i, 4), torch.tensor(0.1 * i)),
        exact=False,
    ),
    "normalization.group_norm": Row(
        lambda x, w: normalization.group_norm(x, 2, w, w),
        lambda i: (normal(i, 3, 4, 2), normal(i, 4)),
        exact=False,
    ),
    "normalization.init_batch_norm": Row(
        lambda x: (x, normalization.init_batch_norm(3, device=x.device)), lambda i: (normal(i, 3),)
    ),
    "normalization.layer_norm": Row(
        lambda x, w: normalization.layer_norm(x, (3, 4), w, w),
        lambda i: (normal(i, 2, 3, 4), normal(i, 3, 4)),
        exact=False,
    ),
    "normalization.rms_norm": Row(
        lambda x, w: normalization.rms_norm(x, 4, w),
        lambda i: (normal(i, 3, 4), normal(i, 4)),
        exact=False,
    ),
    "normalization.weight_standardize": Row(
        normalization.weight_standardize, lambda i: (normal(i, 3, 4, 2),), exact=False
    ),
    "inspect.gradient_norms": Row(inspect.gradient_norms, nested, exact=False),
    "inspect.signal_propagation": Row(
        lambda p, b, data, k: inspect.signal_propagation(MODEL, p, b, data, F.cross_entropy, key=k),
        lambda i: (*weights(i), batch(i), *key(i)),
        exact=False,
    ),
    "inspect.weight_update_ratio": Row(inspect.weight_update_ratio, two, exact=False),
    "train.early_stopping": monitor(train.early_stopping("loss", patience=1)),
    "train.plateau": monitor(train.plateau("loss", schedules.reduce_on_plateau(patience=0))),
    "train.predict": Row(
        lambda state, data: train.predict(MODEL, state, data[0], batch_size=2),
        lambda i: (state(i), batch(i)),
        exact=False,
    ),
    "train.evaluator": Row(
        lambda state, data: train.evaluator(MODEL, {"loss": metrics.cross_entropy()}, some=data)(
            state
        ),
        lambda i: (state(i), batch(i)),
        exact=False,
    ),
    "train.accumulate": Row(
        lambda state, batch: train.accumulate(train.value_and_grad(LOSS), 2)(
            state.params, state.buffers, batch, state.key
        ),
        lambda i: (state(i), batch(i)),
        exact=False,
    ),
    "train.dynamic_loss_scaling": Row(
        SCALING.update,
        lambda i: (tree.map(lambda x: x + i, SCALING.init()), torch.tensor(i != 1)),
    ),
    "train.epoch_order": draw(lambda key: train.epoch_order(key, 3, 20)),
    "train.evaluate": Row(
        lambda state, data: train.evaluate(MODEL, state, data, {"accuracy": metrics.accuracy()}),
        lambda i: (state(i), batch(i)),
        exact=False,
    ),
    "train.init": draw(lambda key: train.init(MODEL, TX, key)),
    "train.loss_scale": Row(lambda p: train.loss_scale(SCALED.init(p)), lambda i: (params(i),)),
    "train.lr_find": Row(
        lambda state, data: train.lr_find(FIND, state, [data, data], smoothing=0.5),
        lambda i: (train.init(LINEAR, optim.sgd(), random.key(i)), batch(i)),
        exact=False,
    ),
    "train.make_step": Row(STEP, lambda i: (state(i), batch(i)), exact=False),
    "train.supervised": Row(LOSS, lambda i: (*weights(i), batch(i), *key(i)), exact=False),
    "train.mixed_precision": Row(
        lambda p, b, x, k: MIXED.apply(p, b, x, key=k, train=True),
        lambda i: (*weights(i), batch(i)[0], *key(i)),
        exact=False,
    ),
    "train.with_loss_scaling": Row(
        optimizer(SCALED).fn,
        lambda i: (params(i), tree.map(lambda g: g / (i != 1), params(i + 20))),  # overflow in 1
        exact=False,
    ),
    "train.value_and_grad": Row(
        train.value_and_grad(LOSS), lambda i: (*weights(i), batch(i), *key(i)), exact=False
    ),
    "metrics.accuracy": metric(metrics.accuracy(), logits, labels),
    "metrics.cross_entropy": metric(metrics.cross_entropy(), logits, labels),
    "metrics.mean_absolute_error": metric(metrics.mean_absolute_error(), logits, logits),
    "metrics.mean_squared_error": metric(metrics.mean_squared_error(), logits, logits),
    "losses.distillation_loss": loss(
        lambda x, z, t, k: losses.distillation_loss(x, z, t, temperature=k, alpha=0.3),
        logits,
        others,
        labels,
        lambda i: torch.tensor(1.0 + i),
    ),
    "losses.binary_cross_entropy_with_logits": loss(
        lambda x, t: losses.binary_cross_entropy_with_logits(x, t, t + 1, pos_weight=t[0]),
        logits,
        shares,
    ),
    "losses.class_weights": Row(
        lambda y: losses.class_weights(y, 3, beta=0.9),
        lambda i: (torch.cat([labels(i), torch.arange(3)]),),
        exact=False,
    ),
    "losses.contrastive_loss": loss(
        lambda x, y, t: losses.contrastive_loss(x, y, t > 0, margin=3.0), logits, others, labels
    ),
    "losses.cosine_embedding_loss": loss(
        lambda x, y, t: losses.cosine_embedding_loss(x, y, 1 - t, margin=0.1),
        logits,
        others,
        labels,
    ),
    "losses.cross_entropy": loss(
        lambda x, t, w: losses.cross_entropy(x, t, w[0], ignore_index=1, label_smoothing=0.1),
        logits,
        labels,
        shares,
    ),
    "losses.elastic_penalty": Row(
        torch.func.grad_and_value(lambda p: losses.elastic_penalty(p, 0.1, p["s"].detach() ** 2)),
        lambda i: (params(i),),
        exact=False,
    ),
    "losses.gaussian_nll_loss": loss(
        lambda x, y, var: losses.gaussian_nll_loss(x, y, var, eps=0.2, full=True),
        logits,
        others,
        shares,
    ),
    "losses.huber_loss": loss(
        lambda x, y: losses.huber_loss(x, y, delta=y.std().detach()), logits, others
    ),
    "losses.info_nce": loss(losses.info_nce, logits, others),
    "losses.kl_div": loss(
        lambda x, q: losses.kl_div(x.log_softmax(1), q, reduction="batchmean"), logits, shares
    ),
    "losses.l1_loss": loss(lambda x, y: losses.l1_loss(x, y, weight=y**2), logits, others),
    "losses.l1_penalty": Row(
        torch.func.grad_and_value(losses.l1_penalty), lambda i: (params(i),), exact=False
    ),
    "losses.l2_penalty": Row(
        torch.func.grad_and_value(lambda p: losses.l2_penalty(p, ["w", "s"])),
        lambda i: (params(i),),
        exact=False,
    ),
    "losses.mse_loss": loss(losses.mse_loss, logits, others),
    "losses.nt_xent": loss(losses.nt_xent, logits, others),
    "losses.per_example": Row(losses.per_example, lambda i: (logits(i),), exact=False),
    "losses.sigmoid_focal_loss": loss(losses.sigmoid_focal_loss, logits, shares),
    "losses.smooth_l1_loss": loss(losses.smooth_l1_loss, logits, others),
    "losses.softmax_focal_loss": loss(
        lambda x, t, w: losses.softmax_focal_loss(x, t, w[0], ignore_index=1, gamma=0.5),
        logits,
        labels,
        shares,
    ),
    "losses.triplet_margin_loss": loss(
        lambda a, x, y: losses.triplet_margin_loss(a, x, y, swap=True), logits, others, shares
    ),
    "losses.weighted_mean": loss(losses.weighted_mean, logits, lambda i: shares(i)[:, 0]),
    "transfer.carry_over": Row(
        lambda state: transfer.carry_over(state, FROZEN, TX), lambda i: (state(i),)
    ),
    "transfer.freeze": Row(
        FROZEN_STEP, lambda i: (train.init(FROZEN, TX, random.key(i)), batch(i)), exact=False
    ),
    "transfer.gradual_unfreezing": Row(
        released,
        lambda i: ({"a": normal(i, 3), "b": normal(i + 9, 2)}, torch.tensor(i)),
        exact=False,
    ),
    "transfer.init": Row(
        lambda k, p, b: transfer.init(NEW_HEAD, TX, k, {**p, **b}),
        lambda i: (*key(i + 9), *weights(i)),
    ),
    "transfer.lora": Row(
        lambda k, x: ADAPTED.apply(*ADAPTED.init(k), x, key=k, train=True),
        lambda i: (*key(i), batch(i)[0]),
        exact=False,
    ),
    "transfer.merge": Row(
        lambda k: transfer.merge(ADAPTED, *ADAPTED.init(k, weight=None)), key, exact=False
    ),
    "transfer.reuse": Row(
        lambda k, p, b: transfer.reuse({**p, **b}, NEW_HEAD, key=k)[:2],
        lambda i: (*key(i + 9), *weights(i)),
    ),
    "transfer.truncate": Row(
        lambda p, b, x, k: TRUNCATED.apply(p, b, x, key=k, train=True),
        lambda i: (*weights(i), batch(i)[0], *key(i)),
        exact=False,
    ),
    "pretrain.compose": augmented(pretrain.compose(pretrain.random_shift(1), NOISE)),
    "pretrain.gaussian_noise": augmented(NOISE),
    "pretrain.mask_tokens": Row(
        lambda k, x, rate: pretrain.mask_tokens(k, x, rate=rate, **WORDS),
        lambda i: (*key(i), tokens(i), torch.tensor(0.3 * i)),
    ),
    "pretrain.masked_tokens": Row(
        train.value_and_grad(pretrain.masked_tokens(LANGUAGE_MODEL, rate=0.5, **WORDS)),
        lambda i: (*LANGUAGE_MODEL.init(*key(i)), (tokens(i),), *key(i + 5)),
        exact=False,
    ),
    "pretrain.masked_reconstruction": pretraining(
        pretrain.masked_reconstruction(AUTOENCODER, pretrain.random_mask(0.4))
    ),
    "pretrain.masking_noise": Row(
        lambda k, x, rate: pretrain.masking_noise(rate)(k, x),
        lambda i: (*key(i), logits(i), torch.tensor(0.2 * i)),
    ),
    "pretrain.pairs": Row(pretrain.pairs, lambda i: (*key(i), labels(i))),
    "pretrain.patch_mask": augmented(pretrain.patch_mask(2, 0.5)),
    "pretrain.random_erasing": augmented(pretrain.random_erasing(0.7)),
    "pretrain.random_horizontal_flip": augmented(pretrain.random_horizontal_flip()),
    "pretrain.random_mask": augmented(pretrain.random_mask(0.5)),
    "pretrain.random_resized_crop": augmented(pretrain.random_resized_crop()),
    "pretrain.random_shift": augmented(pretrain.random_shift(2)),
    "pretrain.reconstruction": pretraining(pretrain.reconstruction(AUTOENCODER, corrupt=NOISE)),
    "pretrain.same_different": pretraining(pretrain.same_different(AUTOENCODER)),
    "pretrain.siamese": Row(
        lambda p, b, x, y, t, k: train.value_and_grad(pretrain.siamese(AUTOENCODER))(
            p, b, (x, y, t > 0), k
        ),
        lambda i: (
            *AUTOENCODER.init(*key(i)),
            batch(i)[0],
            batch(i + 9)[0],
            labels(i),
            *key(i + 5),
        ),
        exact=False,
    ),
    "pretrain.simclr": pretraining(pretrain.simclr(AUTOENCODER, NOISE)),
    "uncertainty.adaptive_calibration_error": loss(
        lambda p, y: uncertainty.adaptive_calibration_error(p, y, 2), shares, labels
    ),
    "uncertainty.apply_temperature": loss(
        lambda x, t: uncertainty.apply_temperature(x, t[0, 0]).sum(), logits, shares
    ),
    "uncertainty.apply_vector_scaling": scored(
        lambda x, w: uncertainty.apply_vector_scaling(x, w[0], w[1]), logits, others
    ),
    "uncertainty.aps_scores": scored(
        lambda p, y, k: uncertainty.aps_scores(p, y, key=k), shares, labels, lambda i: key(i)[0]
    ),
    "uncertainty.aps_sets": scored(
        lambda p, q, k: uncertainty.aps_sets(p, q[0, 0], key=k),
        shares,
        shares,
        lambda i: key(i)[0],
    ),
    "uncertainty.aurc": loss(lambda e, u: uncertainty.aurc(u[:, 0], e[:, 0]), others, logits),
    "uncertainty.auroc": scored(
        lambda x, y: uncertainty.auroc(x.round(), y > 0),
        lambda i: normal(i, 40),
        lambda i: normal(i + 20, 40),
    ),
    "uncertainty.average_precision": scored(
        lambda x, y: uncertainty.average_precision(x.round(), y > 0),
        lambda i: normal(i, 40),
        lambda i: normal(i + 20, 40),
    ),
    "uncertainty.brier_score": loss(uncertainty.brier_score, shares, labels),
    "uncertainty.classwise_calibration_error": loss(
        uncertainty.classwise_calibration_error, shares, labels
    ),
    "uncertainty.conformal_quantile": scored(
        uncertainty.conformal_quantile,
        lambda i: normal(i, 9),
        lambda i: torch.tensor(0.1 + 0.3 * i),
    ),
    "uncertainty.coverage": scored(
        lambda x, y: uncertainty.coverage(x - 0.5, x + 0.5, y), logits, others
    ),
    "uncertainty.excess_aurc": loss(
        lambda e, u: uncertainty.excess_aurc(u[:, 0], e[:, 0]), others, logits
    ),
    "uncertainty.expected_calibration_error": loss(
        lambda p, y: uncertainty.expected_calibration_error(p, y, 5), shares, labels
    ),
    "uncertainty.expected_entropy": loss(
        lambda p: uncertainty.expected_entropy(p).sum(), member_shares
    ),
    "uncertainty.gaussian_crps": loss(uncertainty.gaussian_crps, logits, variances, others),
    "uncertainty.gaussian_interval": scored(
        lambda m, v, p: uncertainty.gaussian_interval(m, v, p[0, 0]), logits, variances, shares
    ),
    "uncertainty.gaussian_nll": loss(uncertainty.gaussian_nll, logits, variances, others),
    "uncertainty.interval_width": loss(uncertainty.interval_width, logits, others),
    "uncertainty.lac_scores": scored(uncertainty.lac_scores, shares, labels),
    "uncertainty.lac_sets": scored(lambda p, q: uncertainty.lac_sets(p, q[0, 0]), shares, shares),
    "uncertainty.max_probability": loss(lambda p: uncertainty.max_probability(p).sum(), shares),
    "uncertainty.mutual_information": loss(
        lambda p: uncertainty.mutual_information(p).sum(), member_shares
    ),
    "uncertainty.nll": loss(uncertainty.nll, shares, labels),
    "uncertainty.predictive_entropy": loss(
        lambda p: uncertainty.predictive_entropy(p).sum(), shares
    ),
    "uncertainty.predictive_std": loss(
        lambda p: uncertainty.predictive_std(p).sum(), member_shares
    ),
    "uncertainty.reliability": scored(
        lambda p, y: tree.map(torch.nan_to_num, uncertainty.reliability(p, y, 5)), shares, labels
    ),
    "uncertainty.residual_interval": scored(
        lambda m, q, v: uncertainty.residual_interval(m, q[0, 0], scale=v),
        logits,
        shares,
        variances,
    ),
    "uncertainty.residual_scores": scored(
        lambda m, y, v: uncertainty.residual_scores(m, y, scale=v), logits, others, variances
    ),
    "uncertainty.risk_coverage": scored(
        lambda u, e: uncertainty.risk_coverage(u.round(), e > 0),
        lambda i: normal(i, 40),
        lambda i: normal(i + 20, 40),
    ),
    "uncertainty.set_coverage": scored(
        lambda p, y: uncertainty.set_coverage(p > 0.3, y), shares, labels
    ),
    "uncertainty.sharpness": loss(uncertainty.sharpness, shares),
    "uncertainty.variation_ratio": scored(uncertainty.variation_ratio, member_shares),
    "uncertainty.center_logits": Row(
        lambda x, c: uncertainty.center_logits(x, c @ c.mT),
        lambda i: (logits(i), normal(i, 5, 3, 3)),
        exact=False,
    ),
    "uncertainty.categorical": Row(
        lambda x: (uncertainty.categorical(x), uncertainty.categorical(x, "logits")),
        lambda i: (normal(i, 4, 5, 3),),
        exact=False,
    ),
    "uncertainty.categorical_stream": streaming(uncertainty.categorical_stream()),
    "uncertainty.gaussian": Row(
        uncertainty.gaussian, lambda i: (normal(i, 4, 5, 3), shares(i)), exact=False
    ),
    "uncertainty.gaussian_stream": streaming(uncertainty.gaussian_stream(0.5)),
    "uncertainty.mc_dropout": Row(
        lambda p, b, x, k: uncertainty.mc_dropout(
            MODEL, p, b, x, key=k, num_samples=3, chunk_size=2
        ),
        lambda i: (*weights(i), batch(i)[0], *key(i)),
        exact=False,
    ),
    "uncertainty.model_precision": Row(
        lambda x: uncertainty.model_precision(x[0], x[1], x[2], 5),
        lambda i: (shares(i)[0],),
        exact=False,
    ),
    "uncertainty.predictive_log_likelihood": loss(
        lambda x, y, t: uncertainty.predictive_log_likelihood(x, y, t).sum(),
        lambda i: normal(i, 4, 5, 3),
        others,
        shares,
    ),
    "uncertainty.streamed": Row(
        lambda x: uncertainty.streamed(
            torch.sin, x, stream=uncertainty.categorical_stream(), chunk_size=2
        ),
        lambda i: (normal(i, 5, 4, 3),),
        exact=False,
    ),
    "uncertainty.deep_ensemble": Row(
        lambda p, b, x: uncertainty.deep_ensemble(MODEL, p, b, x, chunk_size=1),
        lambda i: (*members(i), batch(i)[0]),
        exact=False,
    ),
    "uncertainty.laplace_fit": Row(
        lambda p, b, x, y: uncertainty.laplace_fit(MODEL, p, b, (x, y)),
        lambda i: (*weights(i), *batch(i)),
        exact=False,
    ),
    "uncertainty.laplace_posterior": Row(
        lambda fit, d: (
            uncertainty.laplace_posterior(fit, d, d + 1),
            uncertainty.laplace_posterior(fit._replace(curvature=fit.curvature.diagonal()), d),
        ),
        lambda i: (curvature(i), torch.tensor(0.5 + i)),
        exact=False,
    ),
    "uncertainty.laplace_predictive": Row(
        lambda p, b, x, scale: uncertainty.laplace_predictive(
            MODEL, p, b, uncertainty.LaplacePosterior({"4.bias": p["4.bias"]}, scale), x
        ),
        lambda i: (*weights(i), batch(i)[0], normal(i, 3, 3)),
        exact=False,
    ),
    "uncertainty.laplace_sample": Row(
        lambda k, fit: (
            uncertainty.laplace_sample(k, uncertainty.LaplacePosterior(*fit[:2])),
            uncertainty.laplace_sample(
                k, uncertainty.LaplacePosterior(fit.mean, fit.curvature.diagonal())
            ),
        ),
        lambda i: (*key(i), curvature(i)),
        exact=False,
    ),
    "uncertainty.linearized_ensemble": Row(
        lambda p, b, x, bias: uncertainty.linearized_ensemble(MODEL, p, b, {"4.bias": bias}, x),
        lambda i: (*weights(i), batch(i)[0], normal(i, 2, 3)),
        exact=False,
    ),
    "uncertainty.log_marginal_likelihood": Row(
        torch.func.grad_and_value(uncertainty.log_marginal_likelihood, argnums=(1, 2)),
        lambda i: (curvature(i), torch.tensor(0.5 + i), torch.tensor(1.5 + i)),
        exact=False,
    ),
    "uncertainty.maximize_marginal_likelihood": Row(
        lambda fit, d: uncertainty.maximize_marginal_likelihood(fit, d, d, num_steps=3),
        lambda i: (curvature(i), torch.tensor(0.5 + i)),
        exact=False,
    ),
    "uncertainty.probit": Row(
        lambda x, c: uncertainty.probit(x, c @ c.mT),
        lambda i: (logits(i), normal(i, 5, 3, 3)),
        exact=False,
    ),
    "uncertainty.regroup": Row(lambda p, b: uncertainty.regroup((p, b), 1), lambda i: members(i)),
    "uncertainty.snapshots": Row(along(uncertainty.snapshots(2, every=4)), lambda i: (linear(i),)),
    "uncertainty.swag": Row(
        along(uncertainty.swag(2, start=4)), lambda i: (linear(i),), exact=False
    ),
    "uncertainty.swag_sample": Row(
        lambda k, p, scale: uncertainty.swag_sample(
            k, uncertainty.swag_update(uncertainty.swag_init(p, 2), p), scale
        ),
        lambda i: (*key(i), params(i), torch.tensor(0.5 + i)),
        exact=False,
    ),
    "uncertainty.swag_update": Row(
        lambda p, q: uncertainty.swag_update(
            uncertainty.swag_update(uncertainty.swag_init(p, 2), p), q
        ),
        lambda i: (params(i), params(i + 1)),
        exact=False,
    ),
    "functionalize": Row(
        lambda p, b, x, k: MODEL.apply(p, b, x, key=k, train=True),
        lambda i: (*weights(i), batch(i)[0], *key(i)),
        exact=False,
    ),
}

EXEMPT = {
    "jit": "compiles; donation is tested with it",
    "data.california_housing": "reads files",
    "data.diabetes": "reads files",
    "data.digits": "reads files",
    "data.fashion_mnist": "reads files",
    "data.read_idx": "reads files",
    "initializers.calculate_gain": "a number from a name",
    "initializers.fan_in_and_fan_out": "numbers from a shape",
    "initializers.matching_variance": "a number from a name and a shape",
    "initializers.variance_mismatch": "a sentence from numbers",
    "inspect.check": "words about values, so not under transforms; its purity is tested with it",
    "inspect.plot_gradient_norms": "a picture",
    "inspect.plot_signals": "a picture",
    "inspect.plot_weight_update_ratio": "a picture",
    "inspect.summary": "a table of numbers; its purity is tested with it",
    "metrics.in_lanes": "is `vmap`, or a loop; tested with `train.evaluate`",
    "metrics.from_torchmetrics": "does not vmap; its purity is tested with it",
    "model.functionalize": "is fdnn.functionalize",
    "optim.muon": "rounds to bfloat16, otherwise under vmap; its block has a row without that",
    "optim.names_by_type": "names from a module",
    "optim.as_torchopt": "returns functions; tested with it",
    "optim.from_torch": "reads a state_dict of torch",
    "optim.inject_hyperparams": "returns a factory; tested with it",
    "optim.scale_by_adafactor": "is in the row of `adafactor`",
    "optim.scale_by_shampoo": "is in the row of `shampoo`",
    "optim.scale_by_soap": "is in the row of `soap`",
    "optim.to_torch": "writes into an optimizer of torch",
    "train.reestimate_batch_norm": "a loop over batches with a copied module; tested with it",
    "optim.scale_by_ademamix": "is in the row of `ademamix`",
    "optim.scale_by_adopt": "is in the row of `adopt`",
    "optim.scale_by_lion": "is in the row of `lion`",
    "optim.scale_by_trust_ratio": "is in the row of `lamb`",
    "optim.schedule_free": "is in the row of `schedule_free_adamw`",
    "optim.schedule_free_sgd": "is in the row of `schedule_free_eval_params`",
    "optim.with_extra_args": "returns a transformation; tested with it",
    "pretrain.greedy_layerwise": "is `train.fit` of one stage after another; tested with it",
    "compress.benchmark": "measures time",
    "compress.benchmark_table": "a text",
    "compress.calibrate": "a loop over batches with a copied module; observers have rows",
    "compress.cast_module": "a module from a model",
    "compress.compile_package": "writes a file",
    "compress.export": "a program from a model",
    "compress.load_package": "reads a file",
    "compress.quantize": "a module from a model",
    "compress.save_onnx": "writes a file",
    "compress.size_in_bytes": "a Python number",
    "compress.model_size": "counts, in Python numbers",
    "compress.shrink": "a model from a model: shapes hang on values",
    "random.key": "takes a number",
    "schedules.plot": "a picture",
    "train.csv_logger": "writes a file",
    "train.tensorboard_logger": "writes files",
    "train.fit": "a loop with progress and interruption",
    "train.load": "reads a file",
    "train.load_params": "reads a file or a state_dict of torch",
    "train.save": "writes a file; that it changes nothing is tested with it",
    "transfer.by_depth": "a predicate from a model",
    "transfer.by_type": "a predicate from a model",
    "transfer.discriminative": "is `optim.partition`; tested with it",
    "transfer.features": "a loop over batches with a copied module; `truncate` has a row",
    "transfer.layers": "names from a model",
    "transfer.rename": "a function of names",
    "transfer.replace_head": "a model from a model; in the rows of `init` and `reuse`",
    "transfer.unfreeze": "undoes `freeze`; tested with it",
    "tree.assert_same_structure": "returns nothing",
    "tree.paths": "returns names",
    "uncertainty.swag_init": "is in the row of `swag_update`",
    "uncertainty.plot_entropies": "a picture",
    "uncertainty.plot_probabilities": "a picture",
    "uncertainty.plot_reliability": "a picture",
    "uncertainty.plot_risk_coverage": "a picture",
    "uncertainty.temperature_scaling": "compiles as long as `optim.lbfgs`; lanes tested with it",
    "uncertainty.vector_scaling": "compiles as long as `optim.lbfgs`; lanes tested with it",
}

every_row = pytest.mark.parametrize("row", ROWS.values(), ids=ROWS.keys())


def assert_same(found: Any, expected: Any, exact: bool) -> None:
    if exact:
        assert_equal(found, expected)
    else:
        assert_close(found, expected, rtol=1e-4, atol=1e-5)


def looped(row: Row) -> Any:
    return tree.stack([row.fn(*row.args(lane)) for lane in range(LANES)])


def stacked(row: Row) -> Any:
    return tree.stack([row.args(lane) for lane in range(LANES)])


def test_registry_is_complete() -> None:
    public = {
        f"{package}.{name}"
        for package in (
            "activations",
            "random",
            "tree",
            "initializers",
            "losses",
            "optim",
            "schedules",
            "train",
            "metrics",
            "model",
            "data",
            "inspect",
            "normalization",
            "transfer",
            "pretrain",
            "compress",
            "uncertainty",
        )
        for name in getattr(fdnn, package).__all__
        if not isinstance(getattr(getattr(fdnn, package), name), type | tuple)
    } | {"jit", "functionalize"}
    assert set(ROWS) | set(EXEMPT) == public
    assert not set(ROWS) & set(EXEMPT)


@every_row
def test_pure(row: Row) -> None:
    args, before, generator = row.args(0), row.args(0), torch.get_rng_state()
    first, second = row.fn(*args), row.fn(*args)
    assert torch.equal(torch.get_rng_state(), generator)
    assert_same(args, before, exact=True)
    assert_same(second, first, exact=True)


@every_row
def test_vmap_is_a_loop(row: Row) -> None:
    assert_same(vmap(row.fn)(*stacked(row)), looped(row), row.exact)


@every_row
def test_chunk_size_changes_nothing(row: Row) -> None:
    assert_same(vmap(row.fn, chunk_size=2)(*stacked(row)), looped(row), row.exact)


@every_row
def test_stays_on_its_device(row: Row) -> None:
    """Tensors of another device meet none of the CPU: meta, which has no values, is at hand."""
    args = tree.map(lambda leaf: torch.empty_like(leaf, device="meta"), stacked(row))
    assert {leaf.device.type for leaf in tree.leaves(vmap(row.fn)(*args))} == {"meta"}


@every_row
def test_compiles(row: Row) -> None:
    """As one graph, by dynamo and autograd; what inductor makes of it is tested by package."""
    torch._dynamo.reset()  # rows share code, and dynamo counts compilations of code
    for fn, args, wanted in (
        (row.fn, row.args(1), row.fn(*row.args(1))),
        (vmap(row.fn), stacked(row), looped(row)),
    ):
        traced = torch.compile(fn, fullgraph=True, dynamic=False, backend="aot_eager")
        assert_same(traced(*args), wanted, row.exact)


@pytest.mark.parametrize("empty", [{}, (), {"a": {}, "b": []}], ids=str)
@pytest.mark.parametrize("name", [name for name in ROWS if name.startswith("optim.")])
def test_optimizers_take_empty_trees(name: str, empty: Any) -> None:
    if name.split(".")[1] in ("apply_updates", "diagnostics", "set_hyperparams", "step"):
        return
    if name.startswith("optim.projection_"):  # of one tensor
        return
    moved, state = ROWS[name].fn(empty, empty)
    assert moved == empty
    assert state.count == 3
