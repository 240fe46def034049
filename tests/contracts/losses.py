"""The contract's rows of `fdnn.losses`."""

from __future__ import annotations

import torch
from contracts.shared import Row, labels, logits, loss, others, params, shares

from fdnn import losses

ROWS: dict[str, Row] = {
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
}

EXEMPT: dict[str, str] = {}
