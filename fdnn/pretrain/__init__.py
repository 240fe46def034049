"""Learning without the labels of the task: losses that give parameters for `transfer.reuse`."""

from fdnn.pretrain.augmentation import (
    compose,
    random_erasing,
    random_horizontal_flip,
    random_resized_crop,
    random_shift,
)
from fdnn.pretrain.autoencoder import Autoencoder
from fdnn.pretrain.contrastive import simclr
from fdnn.pretrain.greedy import greedy_layerwise
from fdnn.pretrain.masked_tokens import mask_tokens, masked_tokens
from fdnn.pretrain.masks import patch_mask, random_mask
from fdnn.pretrain.noise import gaussian_noise, masking_noise
from fdnn.pretrain.pairs import pairs, same_different, siamese
from fdnn.pretrain.reconstruction import masked_reconstruction, reconstruction

__all__ = [
    "Autoencoder",
    "compose",
    "gaussian_noise",
    "greedy_layerwise",
    "mask_tokens",
    "masked_reconstruction",
    "masked_tokens",
    "masking_noise",
    "pairs",
    "patch_mask",
    "random_erasing",
    "random_horizontal_flip",
    "random_mask",
    "random_resized_crop",
    "random_shift",
    "reconstruction",
    "same_different",
    "siamese",
    "simclr",
]
