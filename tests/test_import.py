"""``import tilemap`` is light, and its public names load what they need when used."""

from __future__ import annotations

import os
import pkgutil
import subprocess
import sys
from pathlib import Path

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


def test_no_submodule_has_a_public_name() -> None:
    """Importing a submodule sets it on the package, so it must not replace a function."""
    modules = {module.name for module in pkgutil.iter_modules(tilemap.__path__)}
    assert not modules & set(tilemap.__all__)


@pytest.mark.parametrize("order", ["modules first", "names first"])
def test_public_functions_stay_functions(order: str) -> None:
    """Every public name is what it was after every module of the package is imported."""
    names = [name for name in tilemap.__all__ if name != "__version__"]
    first = f"[getattr(tilemap, n) for n in {names}]"
    second = (
        "[importlib.import_module('tilemap.' + m.name) for m in "
        "pkgutil.iter_modules(tilemap.__path__)]"
    )
    if order == "modules first":
        first, second = second, first
    code = (
        f"import importlib, pkgutil, tilemap\n{first}\n{second}\n"
        f"print([n for n in {names} if not callable(getattr(tilemap, n))])"
    )
    ran = subprocess.run(
        [sys.executable, "-c", code], check=True, capture_output=True, text=True, timeout=120
    )
    assert ran.stdout.strip() == "[]"


@pytest.mark.parametrize("first", ["tilemap", "pyproj"])
def test_positions_need_no_network(tmp_path: Path, first: str) -> None:
    """PROJ fetches no grids where its network is on, and leaves no store of fetched ones."""
    code = (
        f"import {first}\n"
        "from affine import Affine; from odc.geo.geobox import GeoBox\n"
        "from tilemap.stores.footprint import footprint\n"
        "from rasterio.warp import transform\n"
        "geobox = GeoBox((9, 9), Affine(0.1, 0, -100, 0, -0.1, 40), 'EPSG:4267')\n"
        "x, y, _, _ = footprint(geobox).bbox\n"
        "assert transform('EPSG:4267', 'EPSG:4326', [-100.0], [40.0])[0][0] < -100\n"
        "assert (round(x), round(y)) == (-100, 39), (x, y)"
    )
    unset = ("XDG_DATA_HOME", "PROJ_USER_WRITABLE_DIRECTORY")
    environment = {name: text for name, text in os.environ.items() if name not in unset}
    environment |= {"PROJ_NETWORK": "ON", "HOME": str(tmp_path)}
    subprocess.run([sys.executable, "-c", code], check=True, env=environment, timeout=120)
    assert not list(tmp_path.rglob("cache.db*"))
