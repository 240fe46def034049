"""The contract's rows of `fdnn.uncertainty`."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import torch
from contracts.shared import (
    LINEAR,
    MODEL,
    STEPPED,
    Row,
    batch,
    key,
    labels,
    logits,
    loss,
    normal,
    others,
    params,
    shares,
    weights,
)
from torch import Tensor, vmap

from fdnn import random, train, tree, uncertainty


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


ROWS: dict[str, Row] = {
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
}

EXEMPT: dict[str, str] = {
    "uncertainty.swag_init": "is in the row of `swag_update`",
    "uncertainty.plot_entropies": "a picture",
    "uncertainty.plot_probabilities": "a picture",
    "uncertainty.plot_reliability": "a picture",
    "uncertainty.plot_risk_coverage": "a picture",
    "uncertainty.temperature_scaling": "compiles as long as `optim.lbfgs`; lanes tested with it",
    "uncertainty.vector_scaling": "compiles as long as `optim.lbfgs`; lanes tested with it",
}
