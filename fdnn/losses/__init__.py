"""Losses: per example, with torch's names and semantics; penalties on parameters."""

__all__: list[str] = []
