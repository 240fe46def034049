"""The contract's rows of `fdnn.normalization`."""

from __future__ import annotations

import torch
from contracts.shared import Row, normal

from fdnn import normalization

ROWS: dict[str, Row] = {
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
}

EXEMPT: dict[str, str] = {}
