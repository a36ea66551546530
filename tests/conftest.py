"""Fixtures shared by every test, and one hypothesis profile: seeds are derived from the test, so a failure repeats."""

import numpy as np
import pytest
from hypothesis import HealthCheck, settings

settings.register_profile(
    "fhelearn",
    deadline=None,  # a shared machine may pause any single example
    derandomize=True,
    print_blob=True,
    suppress_health_check=[HealthCheck.too_slow],
)
settings.load_profile("fhelearn")


@pytest.fixture
def rng() -> np.random.Generator:
    """Give each test its own generator, always with the same seed."""
    return np.random.default_rng(20240611)
