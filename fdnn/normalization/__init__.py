"""Normalization as pure functions: what is learned and what runs along are arguments."""

__all__: list[str] = []
