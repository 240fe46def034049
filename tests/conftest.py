"""The same examples and the same weights on every run."""

import pytest
import torch
from hypothesis import settings

settings.register_profile(
    "fdnn", derandomize=True, database=None, deadline=None, max_examples=40, print_blob=False
)
settings.load_profile("fdnn")


@pytest.fixture(autouse=True)
def torch_seed() -> None:
    """Fix what torch's own modules are born with."""
    torch.manual_seed(0)
