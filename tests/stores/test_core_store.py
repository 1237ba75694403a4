"""Layers by core: what is written is read back in any window; what is missing is an error."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from affine import Affine
from odc.geo.geobox import GeoBox

from tilemap.errors import DamagedError
from tilemap.geometry import Tile, TileGrid, Window
from tilemap.stores.core_store import CoreStore, LayerSpec
from tilemap.stores.marks import Mark

GRID = TileGrid((37, 53), 16, 0, 0)
SPECS = {"code": LayerSpec("uint8"), "date": LayerSpec("int32"), "labels": LayerSpec("uint8", 3)}


def _store(folder: Path) -> tuple[CoreStore, dict[str, np.ndarray]]:
    geobox = GeoBox(GRID.scene, Affine(10, 0, 4e5, 0, -10, 5e6), "EPSG:32633")
    store = CoreStore.create(folder / "s.zarr", GRID, geobox, "abc", SPECS, 2)
    random = np.random.default_rng(1)
    whole = {
        "code": random.integers(0, 256, GRID.scene).astype(np.uint8),
        "date": random.integers(-(2**31), 2**31, GRID.scene).astype(np.int32),
        "labels": random.integers(0, 256, (3, *GRID.scene)).astype(np.uint8),
    }
    for number, tile in enumerate(GRID.tiles()):
        rows, cols = GRID.core_window(tile).slices()
        layers = {name: values[..., rows, cols] for name, values in whole.items()}
        store.write(tile, layers, np.array([number, 0.5]))
    return CoreStore(folder / "s.zarr", GRID), whole


def test_any_window_comes_back_as_it_was_written(tmp_path: Path) -> None:
    """Across cores, along edges, of any type and with planes."""
    store, whole = _store(tmp_path)
    assert store.digest == "abc"
    for window in (Window(0, 0, 37, 53), Window(15, 3, 17, 50), Window(36, 52, 37, 53)):
        rows, cols = window.slices()
        for name, values in whole.items():
            assert np.array_equal(store.read_window(name, window), values[..., rows, cols])
    assert store.read_figures(Tile(0, 2)).tolist() == [2, 0.5]


def test_a_core_without_its_figures_is_to_be_done_again(tmp_path: Path) -> None:
    """The tables are added up from them."""
    store, _ = _store(tmp_path)
    [chunk] = (tmp_path / "s.zarr" / "figures" / "c" / "2" / "3").glob("*")
    chunk.unlink()
    assert store.state(Tile(2, 3)) is Mark.MISSING
    assert store.state(Tile(2, 2)) is Mark.DONE


def test_a_core_is_done_only_with_all_its_chunks(tmp_path: Path) -> None:
    """A lost chunk is an error when it is read, and the core is to be done again."""
    store, _ = _store(tmp_path)
    tile = Tile(1, 1)
    assert store.state(tile) is Mark.DONE
    (tmp_path / "s.zarr" / "labels" / "c" / "0" / "1" / "1").unlink()
    assert store.state(tile) is Mark.MISSING
    with pytest.raises(DamagedError) as caught:
        store.read_window("labels", Window(0, 0, 37, 53))
    assert caught.value.tile == tile
    assert store.marks.get(tile) is Mark.MISSING


def test_a_flipped_bit_is_an_error(tmp_path: Path) -> None:
    """The checksum of a chunk is checked when it is read."""
    store, _ = _store(tmp_path)
    chunk = tmp_path / "s.zarr" / "date" / "c" / "0" / "3"
    content = bytearray(chunk.read_bytes())
    content[len(content) // 2] ^= 1
    chunk.write_bytes(bytes(content))
    with pytest.raises(DamagedError, match="damaged"):
        store.read_core("date", Tile(0, 3))
