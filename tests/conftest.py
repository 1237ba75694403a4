"""What all tests share: the real data, and how hard hypothesis searches."""

from __future__ import annotations

import os
from pathlib import Path

import pytest
from hypothesis import HealthCheck, settings

settings.register_profile("dev", max_examples=30, deadline=None)
settings.register_profile(
    "ci",
    max_examples=60,
    deadline=None,
    derandomize=True,
    print_blob=True,
    suppress_health_check=[HealthCheck.too_slow],  # a shared machine may stall
)
settings.register_profile("nightly", max_examples=1000, deadline=None)
settings.load_profile(os.environ.get("HYPOTHESIS_PROFILE", "ci" if os.environ.get("CI") else "dev"))


@pytest.fixture(scope="session")
def data() -> Path:
    """The folder of real scenes and models; tests that need it are skipped without it."""
    folder = os.environ.get("TILEMAP_DATA")
    if not folder:
        pytest.skip("TILEMAP_DATA does not name the folder of real scenes and models")
    path = Path(folder)
    if not (path / "scenes").is_dir():
        pytest.skip(f"TILEMAP_DATA={folder} has no folder scenes/")
    return path
