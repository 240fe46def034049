"""Activation functions: torch's values, and what torch lacks; rrelu draws from a key."""

__all__: list[str] = []
