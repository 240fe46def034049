"""Mistakes that can be seen before training, by what they are mistakes of."""

from fdnn.inspect.mistakes.report import Finding, Report

__all__ = ["Finding", "Report"]
