"""Seeing inside a network: its layers, its signals, its gradients, and its mistakes."""

__all__: list[str] = []
