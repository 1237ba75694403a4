"""The tile store: patches come back as they went in, and xarray knows where each pixel lies."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import xarray as xr
import zarr
from affine import Affine
from hypothesis import given, settings
from hypothesis import strategies as st
from odc.geo.geobox import GeoBox
from zarr.codecs import BloscCodec, Crc32cCodec

from tilemap.errors import StoreError
from tilemap.geometry import Tile, TileGrid
from tilemap.scene import Band, Scene
from tilemap.stages.tile import reflect_index
from tilemap.stores import tiles as tiles_module
from tilemap.stores.chunks import chunk_path
from tilemap.stores.georeference import geobox_from_attributes
from tilemap.stores.marks import Mark
from tilemap.stores.tiles import TileStore, open_tiles
from tilemap.testing import grids, random_scene

NORTH_UP = Affine(10, 0, 400_000, 0, -10, 4_100_000)
SOUTH_UP = Affine(30, 0, 400_000, 0, 31, 4_100_000)
ROTATED = Affine(9.4, 3.4, 400_000, 3.4, -9.4, 4_100_000)
GRID = TileGrid((39, 61), core=24, halo=8, blend=4, stride=8)


def _scene(
    shape: tuple[int, int],
    transform: Affine = NORTH_UP,
    crs: str | None = "EPSG:32618",
    dtype: str = "uint16",
) -> Scene:
    bands = tuple(Band(name, dtype, scale=1e-4, scaled=True) for name in ("red", "nir"))
    return Scene(GeoBox(shape, transform, crs), bands, "memory")


def _on_earth(transform: Affine, row: float, col: float) -> tuple[float, float]:
    """(x, y) of a place in the scene, written out."""
    x = transform.a * col + transform.b * row + transform.c
    return x, transform.d * col + transform.e * row + transform.f


def _patch(grid: TileGrid, tile: Tile, whole: np.ndarray) -> np.ndarray:
    window = grid.patch_window(tile)
    rows = reflect_index(window.top, window.bottom, grid.scene[0])
    cols = reflect_index(window.left, window.right, grid.scene[1])
    return whole[..., rows[:, None], cols[None, :]]


def _filled(path: Path, scene: Scene, grid: TileGrid) -> tuple[TileStore, np.ndarray, np.ndarray]:
    """A whole store, and the scene and valid it was made of."""
    image = random_scene(grid.scene, bands=2, dtype=scene.dtype)
    valid = np.random.default_rng(3).random(grid.scene) > 0.1
    store = TileStore.create(path, scene, grid, "d" * 64)
    for tile in grid.tiles():
        store.write(tile, _patch(grid, tile, image), _patch(grid, tile, valid))
    return store, image, valid


@settings(max_examples=15)
@given(grids(longest=40), st.sampled_from(["uint8", "uint16", "int16", "float32"]))
def test_patches_come_back_as_written(
    tmp_path_factory: pytest.TempPathFactory, grid: TileGrid, dtype: str
) -> None:
    """Every patch of any grid and dtype, ragged ones included, from a store opened again."""
    path = tmp_path_factory.mktemp("tiles") / "tiles.zarr"
    _, image, valid = _filled(path, _scene(grid.scene, dtype=dtype), grid)
    store = TileStore(path)
    for tile in grid.tiles():
        got_image, got_valid = store.read(tile, grid.patch_window(tile).shape)
        assert got_image.dtype == np.dtype(dtype)
        np.testing.assert_array_equal(got_image, _patch(grid, tile, image))
        np.testing.assert_array_equal(got_valid, _patch(grid, tile, valid))
        assert store.has(tile)


def test_what_a_ragged_patch_leaves_of_its_chunk_is_not_valid(tmp_path: Path) -> None:
    """The last row's patches are smaller than the chunk: the rest is 0 and not observed."""
    store, _, _ = _filled(tmp_path / "tiles.zarr", _scene(GRID.scene), GRID)
    last = Tile(GRID.shape[0] - 1, GRID.shape[1] - 1)
    height, width = GRID.patch_window(last).shape
    assert height < GRID.patch > width
    image, valid = store.read(last, (GRID.patch, GRID.patch))
    assert not valid[height:].any()
    assert not valid[:, width:].any()
    assert not image[:, height:].any()
    assert not image[:, :, width:].any()
    assert valid[:height, :width].any()


def test_codecs_and_chunks(tmp_path: Path) -> None:
    """One chunk is one patch, no shards; blosc-lz4, then crc32c, on image, valid and done."""
    TileStore.create(tmp_path / "tiles.zarr", _scene(GRID.scene), GRID, "d" * 64)
    group = zarr.open_group(str(tmp_path / "tiles.zarr"), mode="r")
    want = {"image": (1, 1, 2, 40, 40), "valid": (1, 1, 40, 40), "done": (1, 1)}
    for name, chunks in want.items():
        array = group[name]
        assert isinstance(array, zarr.Array)
        assert array.chunks == chunks
        assert array.shards is None
        blosc, crc = array.compressors
        assert isinstance(blosc, BloscCodec)
        assert blosc.to_dict()["configuration"]["cname"] == "lz4"
        assert isinstance(crc, Crc32cCodec)


def test_done_is_marked_last(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Until image and valid are flushed a tile counts as missing."""
    store = TileStore.create(tmp_path / "tiles.zarr", _scene(GRID.scene), GRID, "d" * 64)
    tile, flushed = Tile(0, 1), []

    def sync(array: zarr.Array, index: tuple[int, ...]) -> None:
        assert chunk_path(array, index).exists()
        assert store.marks.get(tile) is Mark.MISSING
        assert not store.has(tile)
        flushed.append(array.name.strip("/"))
        if len(flushed) == 4:
            raise StoreError("the power went")

    monkeypatch.setattr(tiles_module, "sync_chunk", sync)
    image, valid = np.ones((2, 40, 40), np.uint16), np.ones((40, 40), np.bool_)
    store.write(tile, image, valid)
    assert flushed == ["image", "valid"]
    assert store.has(tile)
    other = tile = Tile(0, 0)
    with pytest.raises(StoreError, match="the power went"):
        store.write(other, image, valid)
    assert not store.has(other)


@pytest.mark.parametrize("lost", ["image", "valid"])
def test_a_mark_without_its_chunk_is_not_believed(tmp_path: Path, lost: str) -> None:
    """A file that vanished after the mark was set makes the tile missing again."""
    store, _, _ = _filled(tmp_path / "tiles.zarr", _scene(GRID.scene), GRID)
    assert store.has(Tile(1, 1))
    array = zarr.open_group(str(tmp_path / "tiles.zarr"))[lost]
    chunk_path(array, (1, 1, *(0,) * (array.ndim - 2))).unlink()
    assert not store.has(Tile(1, 1))
    assert store.has(Tile(1, 0))
    with pytest.raises(StoreError, match="missing"):
        store.read(Tile(1, 1), (40, 40))


def test_marks_are_read_all_at_once(tmp_path: Path) -> None:
    """The done array holds one number per tile, and a mark can be taken back."""
    store, _, _ = _filled(tmp_path / "tiles.zarr", _scene(GRID.scene), GRID)
    store.marks.set(Tile(1, 2), Mark.MISSING)
    store.marks.set(Tile(0, 1), Mark.PROVISIONAL)
    want = np.full(GRID.shape, Mark.DONE)
    want[1, 2], want[0, 1] = Mark.MISSING, Mark.PROVISIONAL
    np.testing.assert_array_equal(store.marks.read(), want)
    assert not store.has(Tile(0, 1))


@pytest.mark.parametrize(
    ("transform", "crs"),
    [
        (NORTH_UP, "EPSG:32618"),
        (SOUTH_UP, "EPSG:32618"),
        (Affine(1e-4, 0, -75.7, 0, -1e-4, 37.7), "EPSG:4326"),
        (ROTATED, "EPSG:32618"),
        (Affine.identity(), None),
    ],
)
def test_coordinates_agree_with_the_geobox(
    tmp_path: Path, transform: Affine, crs: str | None
) -> None:
    """Whatever pixel is taken, its scene_row, scene_col and CRS coordinates are its own."""
    path, scene = tmp_path / "tiles.zarr", _scene(GRID.scene, transform, crs)
    _, image, valid = _filled(path, scene, GRID)
    with xr.open_zarr(str(path), consolidated=False) as plain, open_tiles(path) as dataset:
        for found in (plain, dataset):
            assert found["image"].dims == ("row", "col", "band", "y", "x")
            assert found["valid"].dims == ("row", "col", "y", "x")
            assert {"scene_row", "scene_col"} <= set(found.coords)
        assert dataset.band.values.tolist() == ["red", "nir"]
        assert dataset["image"].chunks is not None
        loaded = dataset.load()
    rotated = transform.b != 0
    for row, col, y, x in [(0, 0, 8, 8), (0, 2, 13, 20), (1, 0, 9, 31), (1, 2, 15, 12)]:
        at = loaded.isel(row=row, col=col, y=y, x=x)
        scene_row, scene_col = float(at.scene_row), float(at.scene_col)
        assert scene_row % 1 == scene_col % 1 == 0.5
        pixel = image[:, int(scene_row), int(scene_col)]
        np.testing.assert_array_equal(at.image.values, pixel)
        assert bool(at.valid) == valid[int(scene_row), int(scene_col)]
        here = _on_earth(transform, scene_row, scene_col)
        assert ("xc" in loaded.coords) is not rotated
        if not rotated:
            np.testing.assert_allclose((float(at.xc), float(at.yc)), here, rtol=1e-12)
        mapping = Affine.from_gdal(*map(float, loaded.spatial_ref.attrs["GeoTransform"].split()))
        assert _on_earth(mapping, scene_row, scene_col) == here
    assert geobox_from_attributes(loaded.attrs) == scene.geobox
    assert ("crs_wkt" in loaded.spatial_ref.attrs) is (crs is not None)


def test_patches_overlap_where_the_scene_says_so(tmp_path: Path) -> None:
    """Neighbours hold the same numbers wherever their coordinates are the same."""
    path = tmp_path / "tiles.zarr"
    _filled(path, _scene(GRID.scene), GRID)
    with open_tiles(path) as dataset:
        left, right = (
            dataset["image"].isel(row=0, col=col, band=1).load().set_index(x="xc", y="yc")
            for col in (0, 1)
        )
    shared = np.intersect1d(left.x, right.x)
    assert shared.size == 2 * GRID.halo
    np.testing.assert_array_equal(left.sel(x=shared), right.sel(x=shared))
