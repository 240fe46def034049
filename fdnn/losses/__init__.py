"""Losses with torch's names and semantics; penalties on parameters.

A loss is `loss(input, target, ..., *, reduction="mean", ...)`. What is compared goes by position,
options go by keyword, and the reduction is one rule:

- `"mean"`, the default as in torch: a 0-d tensor, what `train.supervised` wants of a criterion,
  so that it is `train.supervised(model, losses.cross_entropy)`. It is divided by the sum of
  weights where torch does that: class weights, and those of `mse_loss` and `l1_loss`.
- `"sum"`: the sum of the terms.
- `"none"`: the terms, as in torch. Losses of classes, pairs and triplets have one for each
  example. Losses of elements (`mse_loss`, ...) have one for each element, of which `per_example`
  makes one for each example. `weighted_mean` averages terms with weights, or with a mask.

`input` and `target` have one shape and are never broadcast where both hold elements: torch warns
there, and then broadcasts. Margins, widths, temperatures, `alpha`, `gamma` and `label_smoothing`
may be floats or 0-d tensors, so that they can be swept by `vmap` and differentiated.
"""

from fdnn.losses.class_weights import class_weights
from fdnn.losses.classification import binary_cross_entropy_with_logits, cross_entropy, kl_div
from fdnn.losses.contrastive import info_nce, nt_xent
from fdnn.losses.distillation import distillation_loss
from fdnn.losses.embedding import contrastive_loss, cosine_embedding_loss, triplet_margin_loss
from fdnn.losses.focal import sigmoid_focal_loss, softmax_focal_loss
from fdnn.losses.penalties import elastic_penalty, l1_penalty, l2_penalty
from fdnn.losses.reduction import per_example, weighted_mean
from fdnn.losses.regression import (
    gaussian_nll_loss,
    huber_loss,
    l1_loss,
    mse_loss,
    smooth_l1_loss,
)

__all__ = [
    "binary_cross_entropy_with_logits",
    "class_weights",
    "contrastive_loss",
    "cosine_embedding_loss",
    "cross_entropy",
    "distillation_loss",
    "elastic_penalty",
    "gaussian_nll_loss",
    "huber_loss",
    "info_nce",
    "kl_div",
    "l1_loss",
    "l1_penalty",
    "l2_penalty",
    "mse_loss",
    "nt_xent",
    "per_example",
    "sigmoid_focal_loss",
    "smooth_l1_loss",
    "softmax_focal_loss",
    "triplet_margin_loss",
    "weighted_mean",
]
