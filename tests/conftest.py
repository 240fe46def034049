"""One Hypothesis profile for all tests: the same examples on every run."""

from hypothesis import settings

settings.register_profile(
    "fdnn", derandomize=True, database=None, deadline=None, max_examples=40, print_blob=False
)
settings.load_profile("fdnn")
