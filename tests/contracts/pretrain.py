"""The contract's rows of `fdnn.pretrain`."""

from __future__ import annotations

from typing import Any

import torch
from contracts.shared import Row, batch, key, labels, logits, normal
from torch import Tensor, nn

from fdnn import functionalize, pretrain, random, train
from fdnn.nn import TokenEncoder

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


ROWS: dict[str, Row] = {
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
}

EXEMPT: dict[str, str] = {
    "pretrain.greedy_layerwise": "is `train.fit` of one stage after another; tested with it",
}
