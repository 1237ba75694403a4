"""The store of one date: any window comes back; beyond the edge, lost or flipped is told."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import xarray as xr
from affine import Affine
from hypothesis import given
from odc.geo.geobox import GeoBox

from tilemap.errors import DamagedError
from tilemap.geometry import Tile, TileGrid, Window
from tilemap.stores.georeference import geobox_from_attributes
from tilemap.stores.marks import Mark
from tilemap.stores.series import DateStore
from tilemap.testing import windows

GRID = TileGrid((37, 53), 16, 0, 0)
GEOBOX = GeoBox(GRID.scene, Affine(10, 0, 4e5, 0, -10, 5e6), "EPSG:32633")
WHOLE = np.random.default_rng(5).integers(0, 255, (3, *GRID.scene)).astype(np.uint8)


def _store(path: Path) -> DateStore:
    store = DateStore.create(path, GRID, GEOBOX, 3, "abc")
    for tile in GRID.tiles():
        store.write(tile, WHOLE[:, *GRID.core_window(tile).slices()])
    return DateStore(path, GRID)


@pytest.fixture(scope="module", name="kept")
def _kept(tmp_path_factory: pytest.TempPathFactory) -> DateStore:
    return _store(tmp_path_factory.mktemp("series") / "2020-07-01-abc.zarr")


@given(windows())
def test_any_window_is_that_of_the_whole_with_nothing_around(
    kept: DateStore, window: Window
) -> None:
    """Windows that overhang, lie outside or cut through several cores; 255 beyond the edge."""
    around = np.pad(WHOLE, ((0, 0), (100, 100), (100, 100)), constant_values=255)
    rows, cols = Window(
        window.top + 100, window.left + 100, window.bottom + 100, window.right + 100
    ).slices()
    np.testing.assert_array_equal(kept.read_window(window), around[:, rows, cols])


def test_xarray_opens_it(kept: DateStore, tmp_path: Path) -> None:
    """Axes by name, numbers as stored, where its pixels lie."""
    path = tmp_path / "d.zarr"
    store = _store(path)
    with xr.open_zarr(path, consolidated=False) as opened:
        planes = opened["probability"]
        assert planes.dims == ("class", "y", "x")
        assert planes.dtype == np.uint8
        np.testing.assert_array_equal(planes.values, WHOLE)
        assert opened["x"].values[[0, -1]].tolist() == [400_005, 400_525]
        assert opened["y"].values[[0, -1]].tolist() == [4_999_995, 4_999_635]
        assert geobox_from_attributes(opened.attrs) == GEOBOX
    assert store.count == 3


@pytest.mark.parametrize("damage", ["flip", "cut", "lose"])
def test_a_damaged_core_is_an_error_and_to_be_made_again(tmp_path: Path, damage: str) -> None:
    """A core beside it can be read; the damaged one loses its mark."""
    path = tmp_path / "d.zarr"
    store = _store(path)
    chunk = path / "probability" / "c" / "0" / "1" / "2"
    content = bytearray(chunk.read_bytes())
    if damage == "lose":
        chunk.unlink()
    else:
        content[len(content) // 2] ^= 4
        chunk.write_bytes(bytes(content[: len(content) // 3] if damage == "cut" else content))
    np.testing.assert_array_equal(store.read_window(Window(0, 0, 37, 32)), WHOLE[:, :, :32])
    assert store.has(Tile(1, 2)) is (damage != "lose")
    with pytest.raises(DamagedError) as caught:
        store.read_window(Window(20, 30, 22, 40))
    assert caught.value.tile == Tile(1, 2)
    assert not store.has(Tile(1, 2))
    store.write(Tile(1, 2), WHOLE[:, 16:32, 32:48])
    assert store.has(Tile(1, 2))
    np.testing.assert_array_equal(store.read_window(GRID.scene_window), WHOLE)


def test_a_core_that_could_not_be_read_is_blank_and_provisional(tmp_path: Path) -> None:
    """Read as not observed, but not done: a later run tries it again."""
    store = _store(tmp_path / "d.zarr")
    store.write_blank(Tile(2, 3))
    assert (store.read_window(Window(32, 48, 37, 53)) == 255).all()
    assert store.marks.get(Tile(2, 3)) is Mark.PROVISIONAL
    assert not store.has(Tile(2, 3))


def test_a_core_of_zeros_is_there(tmp_path: Path) -> None:
    """A chunk of nothing but the fill value is written too."""
    store = DateStore.create(tmp_path / "d.zarr", GRID, GEOBOX, 3, "abc")
    assert not store.has(Tile(0, 1))
    store.write(Tile(0, 1), np.zeros((3, 16, 16), np.uint8))
    assert store.has(Tile(0, 1))
    assert not store.read_window(Window(0, 16, 16, 32)).any()
    with pytest.raises(DamagedError, match="must be written"):
        store.read_window(Window(0, 15, 1, 17))
