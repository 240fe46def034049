"""The same examples and the same weights on every run."""

import pytest
import torch
import torch._dynamo
from hypothesis import settings

settings.register_profile(
    "fdnn", derandomize=True, database=None, deadline=None, max_examples=40, print_blob=False
)
settings.load_profile("fdnn")

# All functions that `vmap` returns share one code object, and with it torch.compile's count of
# recompilations: without this the tests that compile them would depend on each other.
torch._dynamo.config.recompile_limit = 10_000
torch._dynamo.config.accumulated_recompile_limit = 10_000


@pytest.fixture(autouse=True)
def torch_seed() -> None:
    """Fix what torch's own modules are born with."""
    torch.manual_seed(0)
