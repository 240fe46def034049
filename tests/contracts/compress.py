"""The contract's rows of `fdnn.compress`."""

from __future__ import annotations

import functools
from typing import Any

import torch
from contracts.shared import MODEL, Row, key, normal, params, weights
from torch import Tensor, nn

from fdnn import compress, functionalize, optim, random, tree

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
}

EXEMPT: dict[str, str] = {
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
}
