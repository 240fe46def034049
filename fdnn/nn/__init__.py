"""Layers that torch lacks, as ordinary `nn.Module`s."""

__all__: list[str] = []
