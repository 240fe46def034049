"""Smaller and faster models: pruning, folding, few bits, export, and what each is worth."""

from fdnn.compress.benchmark import BenchmarkRow, benchmark, benchmark_table, size_in_bytes
from fdnn.compress.calibration import Observer, calibrate, min_max_observer, percentile_observer
from fdnn.compress.export import compile_package, export, load_package, save_onnx
from fdnn.compress.fake_quantization import (
    QuantizationParams,
    fake_quantize,
    fake_quantize_params,
    quantization_params,
)
from fdnn.compress.folding import fold_batch_norm, fold_layer_norm
from fdnn.compress.lottery import lottery_tickets
from fdnn.compress.masks import apply_masks, nonzero_masks
from fdnn.compress.precision import cast, cast_module
from fdnn.compress.quantization import quantize
from fdnn.compress.quantization_aware import quantization_aware
from fdnn.compress.report import ModelSize, Sparsity, model_size, sparsity
from fdnn.compress.shrinking import shrink, with_biases
from fdnn.compress.sparsity_schedules import cubic_sparsity, iterative_sparsity, one_shot_sparsity
from fdnn.compress.structured import ln_structured, n_of_m, random_structured
from fdnn.compress.training import gradual_pruning, keep_masked, masks_of, set_masks
from fdnn.compress.unstructured import global_unstructured, l1_unstructured, random_unstructured

__all__ = [
    "BenchmarkRow",
    "ModelSize",
    "Observer",
    "QuantizationParams",
    "Sparsity",
    "apply_masks",
    "benchmark",
    "benchmark_table",
    "calibrate",
    "cast",
    "cast_module",
    "compile_package",
    "cubic_sparsity",
    "export",
    "fake_quantize",
    "fake_quantize_params",
    "fold_batch_norm",
    "fold_layer_norm",
    "global_unstructured",
    "gradual_pruning",
    "iterative_sparsity",
    "keep_masked",
    "l1_unstructured",
    "ln_structured",
    "load_package",
    "lottery_tickets",
    "masks_of",
    "min_max_observer",
    "model_size",
    "n_of_m",
    "nonzero_masks",
    "one_shot_sparsity",
    "percentile_observer",
    "quantization_aware",
    "quantization_params",
    "quantize",
    "random_structured",
    "random_unstructured",
    "save_onnx",
    "set_masks",
    "shrink",
    "size_in_bytes",
    "sparsity",
    "with_biases",
]
