"""Seeing inside a network: its layers, its signals, its gradients, and its mistakes."""

from fdnn.inspect.check import check
from fdnn.inspect.mistakes import Finding, Report
from fdnn.inspect.norms import GradientNorms, gradient_norms, weight_update_ratio
from fdnn.inspect.plotting import plot_gradient_norms, plot_signals, plot_weight_update_ratio
from fdnn.inspect.signals import LayerSignals, signal_propagation
from fdnn.inspect.summarize import LayerRow, Summary, summary

__all__ = [
    "Finding",
    "GradientNorms",
    "LayerRow",
    "LayerSignals",
    "Report",
    "Summary",
    "check",
    "gradient_norms",
    "plot_gradient_norms",
    "plot_signals",
    "plot_weight_update_ratio",
    "signal_propagation",
    "summary",
    "weight_update_ratio",
]
