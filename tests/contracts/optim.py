"""The contract's rows of `fdnn.optim`."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import torch
from contracts.shared import TX, Row, normal, optimizer, params
from losses import with_loss

from fdnn import optim, random


def evaluated(tx: Any, eval_params: Callable[[Any, Any], Any]) -> Row:
    """The same, but the parameters are those to evaluate at."""

    def run(params: Any, grads: Any) -> Any:
        params, state = optimizer(tx).fn(params, grads)
        return eval_params(state, params), state

    return Row(run, lambda lane: (params(lane), params(lane + 20)), exact=False)


AVERAGING = optimizer(optim.chain(optim.sgd(0.1), optim.swa(1)))


def averaged(params: Any, grads: Any) -> Any:
    state = AVERAGING.fn(params, grads)[1]
    return optim.averaged_params(state), state


ROWS: dict[str, Row] = {
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
}

EXEMPT: dict[str, str] = {
    "optim.muon": "rounds to bfloat16, otherwise under vmap; its block has a row without that",
    "optim.names_by_type": "names from a module",
    "optim.as_torchopt": "returns functions; tested with it",
    "optim.from_torch": "reads a state_dict of torch",
    "optim.inject_hyperparams": "returns a factory; tested with it",
    "optim.scale_by_adafactor": "is in the row of `adafactor`",
    "optim.scale_by_shampoo": "is in the row of `shampoo`",
    "optim.scale_by_soap": "is in the row of `soap`",
    "optim.to_torch": "writes into an optimizer of torch",
    "optim.scale_by_ademamix": "is in the row of `ademamix`",
    "optim.scale_by_adopt": "is in the row of `adopt`",
    "optim.scale_by_lion": "is in the row of `lion`",
    "optim.scale_by_trust_ratio": "is in the row of `lamb`",
    "optim.schedule_free": "is in the row of `schedule_free_adamw`",
    "optim.schedule_free_sgd": "is in the row of `schedule_free_eval_params`",
    "optim.with_extra_args": "returns a transformation; tested with it",
}
