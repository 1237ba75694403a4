"""``import tilemap`` is light, and its public names load what they need when used."""

from __future__ import annotations

import subprocess
import sys

import pytest

import tilemap

HEAVY = ("torch", "dask", "distributed", "rasterio", "zarr", "odc", "pydantic", "scipy", "xarray")


def test_import_loads_nothing_heavy() -> None:
    """A fresh interpreter has none of the heavy modules after the import."""
    code = f"import sys, tilemap; print([m for m in {HEAVY!r} if m in sys.modules])"
    ran = subprocess.run(
        [sys.executable, "-c", code], check=True, capture_output=True, text=True, timeout=60
    )
    assert ran.stdout.strip() == "[]"


@pytest.mark.parametrize("name", sorted({*tilemap.__all__, *tilemap._HOME}))
def test_every_public_name_loads(name: str) -> None:
    """Each name is there, listed by dir(), and the same object the second time."""
    assert getattr(tilemap, name) is getattr(tilemap, name)
    assert name in dir(tilemap)


def test_an_unknown_name_is_an_attribute_error() -> None:
    """As from any module."""
    with pytest.raises(AttributeError, match="no attribute 'segmant'"):
        tilemap.segmant  # noqa: B018  # the access is what is tested
