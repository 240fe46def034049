"""`scipy.stats`, imported when it is first used: it takes longer to import than torch."""

from typing import Any

__all__ = ["scipy_stats"]


def scipy_stats() -> Any:
    """Import it, or say what to install."""
    try:
        from scipy import stats
    except ImportError as error:
        raise ImportError(
            "the statistics of `fdnn.study` need SciPy 1.15 or newer: "
            "pip install 'fdnn-torch[study]'",
            name=error.name,
        ) from error
    return stats
