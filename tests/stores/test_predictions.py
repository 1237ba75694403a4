"""The prediction store: cores and frames come back, and little lies on the disk."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import zarr
from hypothesis import given, settings
from hypothesis import strategies as st

from tilemap.errors import StoreError
from tilemap.geometry import Tile, TileGrid
from tilemap.stores import predictions as predictions_module
from tilemap.stores.chunks import chunk_path
from tilemap.stores.marks import Mark
from tilemap.stores.predictions import (
    SIDES,
    Prediction,
    PredictionStore,
    Side,
    Uncertainty,
    frame_windows,
)
from tilemap.testing import grids

GRID = TileGrid((70, 95), core=32, halo=8, blend=4)


def _prediction(grid: TileGrid, tile: Tile, classes: int) -> Prediction:
    """Made-up numbers with the entropy of real ones or more: nothing of them compresses."""
    rng = np.random.default_rng((*tile, classes))
    core = grid.core_window(tile).shape
    frame: dict[Side, np.ndarray] = {
        side: rng.random((classes, *window.shape), dtype=np.float32).astype(np.float16)
        for side, window in frame_windows(grid, tile).items()
    }
    label = rng.integers(0, classes, core).astype(np.uint8)
    confidence, entropy, margin = rng.integers(0, 256, (3, *core)).astype(np.uint8)
    return Prediction(label, confidence, frame, {"entropy": entropy, "margin": margin})


@settings(max_examples=15)
@given(grids(longest=50), st.integers(2, 6))
def test_predictions_come_back_as_written(
    tmp_path_factory: pytest.TempPathFactory, grid: TileGrid, classes: int
) -> None:
    """Core and every band of every tile, from a store opened again; none has all before."""
    path = tmp_path_factory.mktemp("predictions") / "p.zarr"
    store = PredictionStore.create(path, grid, classes, "d" * 64)
    for tile in grid.tiles():
        assert not store.has(tile)
        store.write(tile, _prediction(grid, tile, classes))
    store = PredictionStore(path, grid)
    for tile in grid.tiles():
        assert store.has(tile)
        want = _prediction(grid, tile, classes)
        label, confidence = store.read_core(tile)
        np.testing.assert_array_equal(label, want.label)
        np.testing.assert_array_equal(confidence, want.confidence)
        for side, window in frame_windows(grid, tile).items():
            if window.size:
                band = store.read_band(tile, side)
                assert band.dtype == np.float16
                np.testing.assert_array_equal(band, want.frame[side])


@given(grids(longest=60))
def test_bands_and_interior_partition_the_blend_window(grid: TileGrid) -> None:
    """Each pixel of a tile's blend window lies in the interior or in exactly one band."""
    for tile in grid.tiles():
        painted = np.zeros(grid.scene, int)
        interior = grid.interior_window(tile)
        for window in (interior, *frame_windows(grid, tile).values()):
            painted[window.slices()] += 1
        want = np.zeros(grid.scene, int)
        want[grid.blend_window(tile).slices()] = 1
        np.testing.assert_array_equal(painted, want)


@pytest.mark.parametrize("classes", [5, 10])
def test_at_most_four_bytes_for_each_pixel_of_the_scene(tmp_path: Path, classes: int) -> None:
    """At the defaults, for numbers that cannot be compressed, the whole store on the disk.

    Written is a grid of 3 x 3 full tiles, so that one has all its neighbours.
    """
    grid = TileGrid((2880, 2880), core=960, halo=32, blend=8, stride=4)
    path = tmp_path / "p.zarr"
    store = PredictionStore.create(path, grid, classes, "d" * 64)
    for tile in grid.tiles():
        store.write(tile, _prediction(grid, tile, classes))
    used = sum(f.stat().st_size for f in path.rglob("*") if f.is_file())
    per_pixel = used / (2880 * 2880)
    assert 1.5 < per_pixel <= 4  # 1.5: the test measures what was written
    for layer in ("label", "confidence"):
        whole = zarr.open_group(str(path))[layer]
        assert isinstance(whole, zarr.Array)
        assert whole.dtype == np.uint8


@pytest.mark.parametrize("lost", ["label", "confidence", *SIDES])
def test_has_looks_at_every_chunk(tmp_path: Path, lost: str) -> None:
    """A mark whose core or band vanished from the disk is not believed; its neighbours are."""
    store = PredictionStore.create(tmp_path / "p.zarr", GRID, 3, "d" * 64)
    for tile in GRID.tiles():
        store.write(tile, _prediction(GRID, tile, 3))
    array = zarr.open_group(str(tmp_path / "p.zarr"))[lost]
    assert isinstance(array, zarr.Array)
    chunk_path(array, (1, 1, *(0,) * (array.ndim - 2))).unlink()
    missing = [tile for tile in GRID.tiles() if not store.has(tile)]
    assert missing == [Tile(1, 1)]
    with pytest.raises(StoreError, match=f"of {lost} must be written before it is read"):
        store.read_core(Tile(1, 1)) if lost not in SIDES else store.read_band(Tile(1, 1), lost)


def test_done_is_marked_last(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Core and all four bands are flushed before the tile counts."""
    store = PredictionStore.create(tmp_path / "p.zarr", GRID, 3, "d" * 64)
    flushed = []

    def sync(array: zarr.Array, index: tuple[int, ...]) -> None:
        assert chunk_path(array, index).exists()
        assert store.marks.get(Tile(1, 1)) is Mark.MISSING
        flushed.append(array.name.strip("/"))

    monkeypatch.setattr(predictions_module, "sync_chunk", sync)
    store.write(Tile(1, 1), _prediction(GRID, Tile(1, 1), 3))
    assert sorted(flushed) == sorted(["label", "confidence", *SIDES])
    assert store.has(Tile(1, 1))


@pytest.mark.parametrize("kept", [(), ("margin",), ("entropy", "margin")])
def test_uncertainty_lies_beside_only_if_asked_for(
    tmp_path: Path, kept: tuple[Uncertainty, ...]
) -> None:
    """One array for each measure asked for, which counts as much as the labels."""
    path = tmp_path / "p.zarr"
    store = PredictionStore.create(path, GRID, 3, "d" * 64, kept)
    for tile in GRID.tiles():
        store.write(tile, _prediction(GRID, tile, 3))
    store = PredictionStore(path, GRID)
    assert store.uncertainty == kept
    want = _prediction(GRID, Tile(1, 1), 3).uncertainty
    got = store.read_uncertainty(Tile(1, 1))
    assert tuple(got) == kept
    for name in kept:
        np.testing.assert_array_equal(got[name], want[name])
        array = zarr.open_group(str(path))[name]
        assert isinstance(array, zarr.Array)
        chunk_path(array, (1, 1)).unlink()
        assert [tile for tile in GRID.tiles() if not store.has(tile)] == [Tile(1, 1)]
        store.write(Tile(1, 1), _prediction(GRID, Tile(1, 1), 3))
    assert {p.name for p in path.iterdir() if p.is_dir()} == {
        "label", "confidence", "done", *SIDES, *kept,
    }  # fmt: skip


def test_a_corner_writes_only_the_bands_it_has(tmp_path: Path) -> None:
    """Toward the scene's edge there is no neighbour, so nothing is kept."""
    store = PredictionStore.create(tmp_path / "p.zarr", GRID, 3, "d" * 64)
    store.write(Tile(0, 0), _prediction(GRID, Tile(0, 0), 3))
    assert store.has(Tile(0, 0))
    with pytest.raises(StoreError, match="of top must be written"):
        store.read_band(Tile(0, 0), "top")
    assert store.read_band(Tile(0, 0), "bottom").shape == (3, 2 * GRID.blend, 32 + GRID.blend)


def test_without_blend_there_are_no_bands(tmp_path: Path) -> None:
    """A hard cut keeps labels and confidence only."""
    grid = TileGrid((40, 50), core=16, halo=4, blend=0)
    store = PredictionStore.create(tmp_path / "p.zarr", grid, 3, "d" * 64)
    store.write(Tile(1, 1), _prediction(grid, Tile(1, 1), 3))
    assert store.has(Tile(1, 1))
    names = {p.name for p in (tmp_path / "p.zarr").iterdir() if p.is_dir()}
    assert names == {"label", "confidence", "done"}
