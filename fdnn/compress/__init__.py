"""Smaller models: pruning, networks really made smaller, and folding."""

from fdnn.compress.folding import fold_batch_norm, fold_layer_norm
from fdnn.compress.lottery import lottery_tickets
from fdnn.compress.masks import apply_masks, nonzero_masks
from fdnn.compress.report import ModelSize, Sparsity, model_size, sparsity
from fdnn.compress.shrinking import shrink, with_biases
from fdnn.compress.sparsity_schedules import cubic_sparsity, iterative_sparsity, one_shot_sparsity
from fdnn.compress.structured import ln_structured, n_of_m, random_structured
from fdnn.compress.training import gradual_pruning, keep_masked, masks_of, set_masks
from fdnn.compress.unstructured import global_unstructured, l1_unstructured, random_unstructured

__all__ = [
    "ModelSize",
    "Sparsity",
    "apply_masks",
    "cubic_sparsity",
    "fold_batch_norm",
    "fold_layer_norm",
    "global_unstructured",
    "gradual_pruning",
    "iterative_sparsity",
    "keep_masked",
    "l1_unstructured",
    "ln_structured",
    "lottery_tickets",
    "masks_of",
    "model_size",
    "n_of_m",
    "nonzero_masks",
    "one_shot_sparsity",
    "random_structured",
    "random_unstructured",
    "set_masks",
    "shrink",
    "sparsity",
    "with_biases",
]
