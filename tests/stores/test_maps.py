"""The map store: any window equals the array it was cut from, and figures come back."""

from __future__ import annotations

import shutil
from pathlib import Path

import numpy as np
import pytest
import xarray as xr
import zarr
from affine import Affine
from hypothesis import given, settings
from hypothesis import strategies as st
from odc.geo.geobox import GeoBox

from tilemap.errors import StoreError
from tilemap.geometry import Tile, TileGrid, Window
from tilemap.stores import maps as maps_module
from tilemap.stores.chunks import chunk_path
from tilemap.stores.maps import CoreStats, MapStore, Seam
from tilemap.stores.marks import Mark
from tilemap.testing import grids

NORTH_UP = Affine(10, 0, 400_000, 0, -10, 4_100_000)
ROTATED = Affine(9.4, 3.4, 400_000, 3.4, -9.4, 4_100_000)
GRID = TileGrid((45, 70), core=32, halo=8, blend=4)


def _geobox(
    shape: tuple[int, int], transform: Affine = NORTH_UP, crs: str = "EPSG:32618"
) -> GeoBox:
    return GeoBox(shape, transform, crs)


def _layers(shape: tuple[int, int]) -> tuple[np.ndarray, np.ndarray]:
    landcover, confidence = np.random.default_rng(8).integers(0, 256, (2, *shape), dtype=np.uint8)
    return landcover, confidence


NAMES = ("landcover", "confidence", "margin", "entropy")


def _stats(tile: Tile) -> CoreStats:
    """Figures near the largest that occur: a core of 2^16 pixels a side."""
    rng = np.random.default_rng(tile)
    labels, confidence = rng.integers(0, 2**32, (2, 256))
    return CoreStats(labels, confidence, Seam(2**31 + tile.row, 2**20 + tile.col, 0.1 + tile.col))


def _filled(path: Path, grid: TileGrid, geobox: GeoBox) -> tuple[MapStore, np.ndarray, np.ndarray]:
    store = MapStore.create(path, grid, geobox, "d" * 64)
    landcover, confidence = _layers(grid.scene)
    for tile in grid.tiles():
        place = grid.core_window(tile).slices()
        layers = {"landcover": landcover[place], "confidence": confidence[place]}
        store.write(tile, layers, _stats(tile), Mark.DONE)
    return MapStore(path, grid), landcover, confidence


@settings(max_examples=15)
@given(grids(longest=50), st.data())
def test_any_window_equals_the_array(
    tmp_path_factory: pytest.TempPathFactory, grid: TileGrid, data: st.DataObject
) -> None:
    """Windows that cross any number of cores, of one pixel, of all, and empty ones."""
    path = tmp_path_factory.mktemp("maps") / "map.zarr"
    store, landcover, confidence = _filled(path, grid, _geobox(grid.scene))
    for _ in range(8):
        rows = sorted(data.draw(st.tuples(*[st.integers(0, grid.scene[0])] * 2)))
        cols = sorted(data.draw(st.tuples(*[st.integers(0, grid.scene[1])] * 2)))
        window = Window(rows[0], cols[0], rows[1], cols[1])
        place = window.slices()
        np.testing.assert_array_equal(store.read_window("landcover", window), landcover[place])
        np.testing.assert_array_equal(store.read_window("confidence", window), confidence[place])


def test_a_window_over_an_unwritten_core_is_an_error(tmp_path: Path) -> None:
    """One core short: no zeros in its place."""
    store = MapStore.create(tmp_path / "map.zarr", GRID, _geobox(GRID.scene), "d" * 64)
    landcover, confidence = _layers(GRID.scene)
    place = GRID.core_window((0, 0)).slices()
    layers = {"landcover": landcover[place], "confidence": confidence[place]}
    store.write(Tile(0, 0), layers, _stats(Tile(0, 0)), Mark.DONE)
    store.read_window("landcover", Window(3, 4, 32, 32))
    with pytest.raises(StoreError, match=r"chunk \(0, 1\) of landcover must be written"):
        store.read_window("landcover", Window(3, 4, 32, 33))


def test_figures_come_back_exactly(tmp_path: Path) -> None:
    """Counts beyond 2^32 and the seam survive their float64 chunk."""
    store, _, _ = _filled(tmp_path / "map.zarr", GRID, _geobox(GRID.scene))
    for tile in GRID.tiles():
        want, got = _stats(tile), store.read_stats(tile)
        assert got.labels.dtype == got.confidence.dtype == np.int64
        np.testing.assert_array_equal(got.labels, want.labels)
        np.testing.assert_array_equal(got.confidence, want.confidence)
        assert got.seam == want.seam


def test_seams_add_up() -> None:
    """Pixels add, the largest difference is the largest of both, nothing compared is no share."""
    assert Seam(10, 2, 0.5) + Seam(30, 1, 0.25) == Seam(40, 3, 0.5)
    assert Seam(40, 3, 0.5).share == 3 / 40
    assert Seam().share == 0


@pytest.mark.parametrize("lost", ["landcover", "confidence", "stats"])
def test_a_mark_without_its_chunk_is_not_believed(tmp_path: Path, lost: str) -> None:
    """Each of the three chunks of a core must be there."""
    store, _, _ = _filled(tmp_path / "map.zarr", GRID, _geobox(GRID.scene))
    array = zarr.open_group(str(tmp_path / "map.zarr"))[lost]
    assert isinstance(array, zarr.Array)
    chunk_path(array, (1, 1, *(0,) * (array.ndim - 2))).unlink()
    states = {tile: store.state(tile) for tile in GRID.tiles()}
    assert states.pop(Tile(1, 1)) is Mark.MISSING
    assert set(states.values()) == {Mark.DONE}


def test_uncertainty_lies_beside_only_if_asked_for(tmp_path: Path) -> None:
    """A store made for one measure has it, wants it with every core, misses it when it is gone."""
    path = tmp_path / "map.zarr"
    store = MapStore.create(path, GRID, _geobox(GRID.scene), "d" * 64, ("margin",))
    assert store.uncertainty == MapStore(path, GRID).uncertainty == ("margin",)
    rng = np.random.default_rng(0)
    core = {name: rng.integers(0, 101, (32, 32)).astype(np.uint8) for name in NAMES}
    with pytest.raises(KeyError, match="margin"):
        store.write(Tile(0, 0), {n: core[n] for n in NAMES[:2]}, _stats(Tile(0, 0)), Mark.DONE)
    assert store.state(Tile(0, 0)) is Mark.MISSING
    store.write(Tile(0, 0), core, _stats(Tile(0, 0)), Mark.DONE)
    store = MapStore(path, GRID)
    window = Window(0, 0, 32, 32)
    for name in ("landcover", "confidence", "margin"):
        np.testing.assert_array_equal(store.read_window(name, window), core[name])
    array = zarr.open_group(str(path))["margin"]
    assert isinstance(array, zarr.Array)
    chunk_path(array, (0, 0)).unlink()
    assert store.state(Tile(0, 0)) is Mark.MISSING
    shutil.rmtree(path / "margin")
    with pytest.raises(StoreError, match="is damaged: its metadata has changed"):
        MapStore(path, GRID)


def test_done_is_marked_last_and_may_be_provisional(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """All three chunks are flushed first; the mark is the one asked for."""
    store = MapStore.create(tmp_path / "map.zarr", GRID, _geobox(GRID.scene), "d" * 64)
    flushed = []

    def sync(array: zarr.Array, index: tuple[int, ...]) -> None:
        assert chunk_path(array, index).exists()
        assert store.state(Tile(0, 0)) is Mark.MISSING
        flushed.append(array.name.strip("/"))

    monkeypatch.setattr(maps_module, "sync_chunk", sync)
    core = np.zeros((32, 32), np.uint8)
    layers = {"landcover": core, "confidence": core}
    store.write(Tile(0, 0), layers, _stats(Tile(0, 0)), Mark.PROVISIONAL)
    assert sorted(flushed) == ["confidence", "landcover", "stats"]
    assert store.state(Tile(0, 0)) is Mark.PROVISIONAL


@pytest.mark.parametrize(
    ("transform", "crs"),
    [
        (NORTH_UP, "EPSG:32618"),
        (Affine(1e-4, 0, -75.7, 0, -1e-4, 37.7), "EPSG:4326"),
        (ROTATED, "EPSG:32618"),
    ],
)
def test_xarray_coordinates_are_pixel_centres(tmp_path: Path, transform: Affine, crs: str) -> None:
    """They are in the CRS where the scene is not rotated, else in scene pixels."""
    path = tmp_path / "map.zarr"
    _, landcover, _ = _filled(path, GRID, _geobox(GRID.scene, transform, crs))
    with xr.open_zarr(str(path), consolidated=False) as dataset:
        found = dataset["landcover"].load()
    assert found.dims == ("y", "x")
    at = found.isel(y=13, x=37)
    assert int(at) == landcover[13, 37]
    if transform.b:
        assert (float(at.y), float(at.x)) == (13.5, 37.5)
    else:
        x, y = transform.c + transform.a * 37.5, transform.f + transform.e * 13.5
        np.testing.assert_allclose((float(at.y), float(at.x)), (y, x), rtol=1e-12)
        assert int(found.sel(y=y, x=x, method="nearest")) == landcover[13, 37]


@pytest.mark.filterwarnings("ignore:Use `@` matmul:PendingDeprecationWarning")  # odc-geo's
@pytest.mark.parametrize("crs", ["EPSG:32618", "EPSG:4326"])
def test_odc_geo_finds_the_geobox(tmp_path: Path, crs: str) -> None:
    """A reader that knows nothing of tilemap gets shape, geotransform and CRS from CF."""
    import odc.geo.xr  # noqa: F401  its accessor

    geobox = _geobox(GRID.scene, Affine(1e-4, 0, -75.7, 0, -1e-4, 37.7), crs)
    _filled(tmp_path / "map.zarr", GRID, geobox)
    path = str(tmp_path / "map.zarr")
    with xr.open_zarr(path, consolidated=False, decode_coords="all") as dataset:
        found = dataset["landcover"].odc.geobox
    assert found.shape == geobox.shape
    assert found.crs == geobox.crs
    np.testing.assert_allclose(tuple(found.affine), tuple(geobox.affine), rtol=1e-9)


def test_a_damaged_core_is_to_be_made_again(tmp_path: Path) -> None:
    """A window that meets it is an error, and its tile counts as missing from then on."""
    store, _, _ = _filled(tmp_path / "map.zarr", GRID, _geobox(GRID.scene))
    chunk = tmp_path / "map.zarr" / "confidence" / "c" / "1" / "1"
    content = bytearray(chunk.read_bytes())
    content[len(content) // 2] ^= 4
    chunk.write_bytes(content)
    assert store.read_window("confidence", Window(0, 0, 32, 70)).shape == (32, 70)
    with pytest.raises(StoreError, match="damaged"):
        store.read_window("confidence", Window(0, 0, 45, 70))
    again = MapStore(tmp_path / "map.zarr", GRID)
    states = {tuple(tile): again.state(tile) for tile in GRID.tiles()}
    assert [tile for tile, state in states.items() if state is Mark.MISSING] == [(1, 1)]
