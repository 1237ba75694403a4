"""What all tests share: the real data, and how hard hypothesis searches."""

from __future__ import annotations

import os
from collections.abc import Iterator
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


@pytest.fixture(scope="session", autouse=True)
def _no_home_of_a_user(tmp_path_factory: pytest.TempPathFactory) -> Iterator[None]:
    """What tests measure or import goes into a folder of this session, never into the home."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("TILEMAP_HOME", str(tmp_path_factory.mktemp("tilemap-home")))
        yield
